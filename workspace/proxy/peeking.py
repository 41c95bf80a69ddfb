"""What lies ready on a socket, looked at and left there: who speaks what, and for whom.

Nothing is taken that the next reader would need, and what does not come in time is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable
from typing import Literal

from workspace.proxy import hello
from workspace.proxy.requests import HEAD_SECONDS, MAX_HEAD_BYTES
from workspace.proxy.resolving import Refused

_BACKOFF_SECONDS = (0.002, 0.25)
_TLS = b"\x16\x03"  # a record of the handshake: RFC 8446 section 5.1
# By any of them a server could be asked for another host than the tunnel's, even without a version.
_METHODS = tuple(
    f"{method}{space}".encode()
    for space in " \t"
    for method in (
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PROPFIND",
        "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT", "QUERY", "PRI",
    )
)  # fmt: skip
# And by a method that nobody knows: RFC 9112 section 3, and the blanks of lenient servers.
_TOKEN, _BLANK = rb"[!#$%&'*+.^_`|~0-9A-Z-]+", rb"[ \t\v\f\r]"
_LINE = re.compile(_TOKEN + _BLANK + rb"[^\x00-\x08\n\x0e-\x1f\x7f]*" + _BLANK + rb"HTTP/")
_BEGUN = re.compile(_TOKEN + rb"(?:" + _BLANK + rb"[^\x00-\x08\n\x0e-\x1f\x7f]*)?")


def peek(sock: socket.socket, count: int) -> bytes | None:
    """What lies ready on a socket, and stays there; None if nothing does yet."""
    try:
        return sock.recv(count, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return None


async def readable(*socks: socket.socket, seconds: float) -> list[socket.socket]:
    """Those on which something came, or which ended; none if that took too long."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not came.done():
            came.set_result(None)

    for sock in socks:
        loop.add_reader(sock, wake)
    try:
        await asyncio.wait_for(came, seconds)
    except asyncio.TimeoutError:
        return []
    finally:
        for sock in socks:
            loop.remove_reader(sock)
    return [sock for sock in socks if peek(sock, 1) is not None]


def is_request(data: bytes) -> bool | None:
    """Whether that begins as a request of HTTP does; None if it may yet."""
    said = data.lstrip().upper()
    if said.startswith(_METHODS) or _LINE.match(said):
        return True
    return None if not said or _BEGUN.fullmatch(said) else False


async def head(sock: socket.socket) -> bytes:
    """The head of a request, and nothing of what follows; as much as came, if it is none."""
    found = await until(
        sock,
        lambda data: b"\r\n\r\n" in data or b"\n\n" in data or not b"CONNECT ".startswith(data[:8]),
        seconds=HEAD_SECONDS,
    )
    ends = [at + len(end) for end in (b"\r\n\r\n", b"\n\n") if (at := found.find(end)) >= 0]
    if not found.startswith(b"CONNECT "):
        return found
    return sock.recv(min(ends) if ends else len(found))


async def spoken(sock: socket.socket, port: int) -> Literal["tls", "http", "other"]:
    """What a client speaks that has said something, or ended. In doubt it is HTTP, and judged."""
    found = await until(sock, lambda data: data[:1] != _TLS[:1] or len(data) > 1, seconds=3)
    if not found:  # it will never ask for anything
        return "other"
    if _TLS.startswith(found[:2]):
        return "tls"
    if port == 80:
        return "http"
    found = await until(sock, lambda data: is_request(data) is not None, seconds=3)
    return "other" if is_request(found) is False else "http"


async def server_name(sock: socket.socket) -> str | None:
    def is_whole(data: bytes) -> bool:
        try:
            hello.server_name(data)
        except hello.Unfinished:
            return False
        except ValueError:
            pass
        return True

    found = await until(sock, is_whole, seconds=HEAD_SECONDS)
    try:
        return hello.server_name(found)
    except (ValueError, hello.Unfinished) as error:
        raise Refused(f"its TLS is not understood: {error}") from None


async def until(
    sock: socket.socket, is_enough: Callable[[bytes], bool], *, seconds: float
) -> bytes:
    """What lies ready on a socket, and stays there, once it is enough, its end, or too late."""
    loop = asyncio.get_running_loop()
    until, wait = loop.time() + seconds, _BACKOFF_SECONDS[0]
    if not await readable(sock, seconds=seconds):
        return b""
    size = -1
    while True:
        data = peek(sock, MAX_HEAD_BYTES) or b""
        if is_enough(data) or not data or len(data) >= MAX_HEAD_BYTES or loop.time() > until:
            return data
        wait = _BACKOFF_SECONDS[0] if len(data) > size else min(wait * 2, _BACKOFF_SECONDS[1])
        size = len(data)
        await asyncio.sleep(wait)


async def leave(sock: socket.socket) -> None:
    """Close it so that what was said last arrives: what came and was not read would undo that."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        for _ in range(16):
            if not sock.recv(MAX_HEAD_BYTES):
                break
    sock.close()
