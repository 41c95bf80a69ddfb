"""How an actor reaches a desktop's daemon, and how a desktop reaches its actor: plain sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Sequence

from workspace.errors import BackendUnavailable

ASK_SECONDS = 3.0
_MAX_BYTES = 64 << 10


async def health(host: str, port: int, token: str) -> int:
    """The status that desktopd answers of its health.

    Raises:
        OSError: it cannot be reached.
        ValueError: what answers is no desktopd.
    """
    try:
        asking = asyncio.ensure_future(_health(host, port, token))
        try:
            await asyncio.wait([asking], timeout=ASK_SECONDS)
            if asking.done():
                return asking.result()
        finally:
            asking.cancel()
        raise OSError(f"it does not answer within {ASK_SECONDS:.0f} s")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ValueError("what it says is not HTTP") from error


async def _health(host: str, port: int, token: str) -> int:
    reader, writer = await asyncio.open_connection(host, port, limit=_MAX_BYTES)
    try:
        writer.write(
            f"GET /health HTTP/1.0\r\nHost: {netloc(host, port)}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode("latin-1")
        )
        version, _, rest = (await reader.readuntil(b"\r\n")).decode("latin-1").partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise ValueError("what it says is not HTTP")
        return int(rest[:3])
    finally:
        writer.transport.abort()


def netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(address: str, ports: Sequence[int]) -> socket.socket:
    """A socket on a free one of the ports.

    Raises:
        BackendUnavailable: there is none, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    first = random.randrange(len(ports))
    why = ""
    for step in range(len(ports)):
        port = ports[(first + step) % len(ports)]
        try:
            return socket.create_server((address, port), family=family, backlog=512)
        except OSError as error:
            why = error.strerror or str(error)
    raise BackendUnavailable(
        f"The way out of a desktop cannot be served at {address}: {why}.",
        hint="Free some of CARREL_KATA_PROXY_PORTS, and let CARREL_KATA_POD_IP be this pod's.",
    )
