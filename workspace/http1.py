"""HTTP/1.1 for Carrel's own clients: a transport for httpx over asyncio, on TCP or a unix socket.

Every action passes two clients, the caller's and the controller's. httpx's own transport takes 0.7
ms for an exchange that takes 0.1 by itself; this one speaks only what desktopd and the controller
do (no TLS, no proxy, one request at a time on a connection) and leaves the rest to httpx.

What comes is not trusted: an answer's head is limited in size, and its framing is one length,
chunks, or the end (RFC 9112, section 6.3); all else is httpx's ``RemoteProtocolError``. Memory is
bounded whatever is sent, and every wait by the request's timeouts. Nothing is retried; a connection
that was closed while it lay idle is noticed before it is used.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from socket import socket
from typing import NamedTuple, cast

import anyio
import httpx

MAX_HEAD_BYTES = 64 << 10
MAX_BUFFERED_BYTES = 256 << 10
MAX_CONNECTIONS = 200
MAX_IDLE = 20
_MAX_INTERIM = 20  # answers before the answer
IDLE_SECONDS = 4.0  # less than a server waits before it closes
_MAX_LINE = 256  # of a chunk's head
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\x00\r\n]*))?")
_FIELD = re.compile(rb"([!#-'*+.^-`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


def client_transport(url: str) -> httpx.AsyncBaseTransport:
    """What carries requests to ``url``: this, or httpx's own where it is https."""
    if url.startswith("https:"):
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_IDLE)
        # Whom this machine trusts (or SSL_CERT_FILE names), not a list that comes with a package.
        trusted = ssl.create_default_context()
        return httpx.AsyncHTTPTransport(verify=trusted, trust_env=False, limits=limits)
    return Transport()


class Transport(httpx.AsyncBaseTransport):
    """Connections to the hosts that are asked for, or all to one place."""

    def __init__(
        self,
        *,
        unix_socket: str | None = None,
        dial: Callable[[], Awaitable[socket]] | None = None,
    ) -> None:
        """All go to ``unix_socket``, or over the connected sockets that ``dial`` returns; what
        that raises beside OSError is raised as it is.
        """
        self._unix_socket = unix_socket
        self._dial = dial
        self._idle: list[_Link] = []  # the one used last at the end
        self._slots = anyio.Semaphore(MAX_CONNECTIONS, fast_acquire=True)
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def aclose(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for link in self._idle:
            link.close()
        self._idle.clear()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = _Limits(**request.extensions.get("timeout", {}))
        await self._take_slot(limits.pool)
        link: _Link | None = None
        try:
            link = self._kept(request.url) or await self._open(request.url, limits.connect)
            is_sent = await link.send_request(request, limits.write)
            head = await link.read_head(limits.read)
            pieces, is_whole = _framing(link, head, request.method, limits.read)
        except BaseException:
            self._give_back(link, is_reusable=False)
            raise

        def done(is_read: bool) -> None:
            self._give_back(link, is_reusable=is_read and is_sent and is_whole)

        return httpx.Response(
            head.status,
            headers=head.fields,
            stream=_Body(pieces, done),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": head.reason},
        )

    async def _take_slot(self, seconds: float | None) -> None:
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after(seconds):
                await self._slots.acquire()
                return
            raise httpx.PoolTimeout("all connections are in use") from None

    def _kept(self, url: httpx.URL) -> _Link | None:
        place = (url.host, url.port)
        for link in reversed(self._idle):
            if link.place == place:
                self._idle.remove(link)
                if link.is_usable():
                    return link
                link.close()
        return None

    async def _open(self, url: httpx.URL, seconds: float | None) -> _Link:
        loop = asyncio.get_running_loop()
        place = (url.host, url.port)
        try:
            with anyio.fail_after(seconds):
                if self._dial is not None:
                    sock = await self._dial()
                    _, link = await loop.create_connection(lambda: _Link(place), sock=sock)
                elif self._unix_socket is not None:
                    _, link = await loop.create_unix_connection(
                        lambda: _Link(place), self._unix_socket
                    )
                else:
                    _, link = await loop.create_connection(
                        lambda: _Link(place), url.host, url.port or 80
                    )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none
            raise httpx.ConnectError(str(error)) from error
        return link

    def _give_back(self, link: _Link | None, *, is_reusable: bool) -> None:
        self._slots.release()
        if link is None:
            return
        if is_reusable and not self._is_closed and link.is_usable():
            link.idle_until = time.monotonic() + IDLE_SECONDS
            self._idle.append(link)
            if len(self._idle) > MAX_IDLE:
                self._idle.pop(0).close()
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(IDLE_SECONDS, self._close_idle)
        else:
            link.close()

    def _close_idle(self) -> None:
        """Close what nobody has used for so long, and look again while there are others."""
        now = time.monotonic()
        for link in [link for link in self._idle if link.idle_until <= now]:
            self._idle.remove(link)
            link.close()
        self._timer = None
        if self._idle:
            loop = asyncio.get_running_loop()
            wait = min(link.idle_until for link in self._idle) - now
            self._timer = loop.call_later(wait, self._close_idle)


class _Limits(NamedTuple):
    """Seconds, as httpx names them."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None


class _Head(NamedTuple):
    status: int
    reason: bytes
    is_kept: bool  # the connection, by its server
    fields: list[tuple[bytes, bytes]]

    def all(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.fields if field.lower() == name]


class _Body(httpx.AsyncByteStream):
    """An answer's body; its connection goes back when it is closed."""

    def __init__(self, pieces: AsyncIterator[bytes], done: Callable[[bool], None]) -> None:
        self._pieces = pieces
        self._done: Callable[[bool], None] | None = done
        self._is_read = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            yield piece
        self._is_read = True

    async def aclose(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._is_read)


class _Link(asyncio.Protocol):
    """One connection: what has come and was not read yet, and whoever waits for more."""

    def __init__(self, place: tuple[str, int | None]) -> None:
        self.place = place
        self.idle_until = float("inf")
        self.buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_over = False
        self._is_held = False  # reading, because too much lies here
        self._is_full = False  # the way out
        self._error: Exception | None = None

    # What asyncio tells of it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # a stream's protocol gets no other

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > MAX_BUFFERED_BYTES and not self._is_held:
            self._is_held = True
            self._way.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._is_over = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over, self._error = True, error
        self._wake()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def _way(self) -> asyncio.Transport:
        assert self._transport is not None, "it is connected before it is used"
        return self._transport

    # What the transport does with it.

    def close(self) -> None:
        self._way.abort()

    def is_usable(self) -> bool:
        """Whether a request can be sent: nothing came unasked, not even its end."""
        if self._is_over or self.buffer or self._way.is_closing():
            return False
        if time.monotonic() > self.idle_until:
            return False
        news = select.poll()  # the loop may not have come to it yet
        news.register(self._way.get_extra_info("socket").fileno(), select.POLLIN)
        return not news.poll(0)

    async def send_request(self, request: httpx.Request, seconds: float | None) -> bool:
        """Whether all of it could be sent; a server that takes no more may have answered."""
        is_chunked = "transfer-encoding" in request.headers
        left = None if is_chunked else int(request.headers.get("content-length", "0"))
        data = _request_head(request)
        async for piece in cast(httpx.AsyncByteStream, request.stream):  # it has both faces
            if left is not None:
                left -= len(piece)
                if left < 0:
                    break
            if is_chunked and piece:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            if len(data) + len(piece) > MAX_BUFFERED_BYTES:
                if not (await self._send(data, seconds) and await self._send(piece, seconds)):
                    return False
            elif not await self._send(data + piece, seconds):
                return False
            data = b""
        if left:
            raise httpx.LocalProtocolError("the body is not as long as its head says")
        return await self._send(data + b"0\r\n\r\n" if is_chunked else data, seconds)

    async def _send(self, data: bytes, seconds: float | None) -> bool:
        view = memoryview(data)
        # In parts: asyncio moves what is left of all that it was given with each bit that goes.
        for start in range(0, len(data), MAX_BUFFERED_BYTES):
            if self._is_over:
                break
            self._way.write(view[start : start + MAX_BUFFERED_BYTES])
            while self._is_full and not self._is_over:
                if not await self._wait(seconds):
                    raise httpx.WriteTimeout("what was sent was not taken in time")
        return not self._is_over

    async def _wait(self, seconds: float | None) -> bool:
        """Return when something has happened; False if it did not in time."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        is_late = False

        def expire() -> None:
            nonlocal is_late
            is_late = True
            self._wake()

        timer = None if seconds is None else loop.call_later(seconds, expire)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return not is_late

    async def more(self, seconds: float | None) -> bool:
        """Wait until there is more in the buffer; False if that was all."""
        before = len(self.buffer)
        while len(self.buffer) == before:
            if self._error is not None:
                raise httpx.ReadError(str(self._error)) from self._error
            if self._is_over:
                return False
            if self._is_held:
                self._is_held = False
                self._way.resume_reading()
            if not await self._wait(seconds):
                raise httpx.ReadTimeout("nothing came in time")
        return True

    async def read_head(self, seconds: float | None) -> _Head:
        for _ in range(_MAX_INTERIM):
            head = _parse_head(await self.read_until(b"\r\n\r\n", MAX_HEAD_BYTES, seconds))
            if head.status >= 200:
                return head
            if head.status == 101:
                raise httpx.RemoteProtocolError("it changes the protocol unasked")
        raise httpx.RemoteProtocolError("it says again and again that it will answer")

    async def read_until(self, end: bytes, limit: int, seconds: float | None) -> bytes:
        """What comes before ``end``, which is dropped; at most ``limit`` bytes."""
        while (place := self.buffer.find(end, 0, limit + len(end))) < 0:
            if len(self.buffer) >= limit + len(end):
                raise httpx.RemoteProtocolError("a line or a head is too long")
            if not await self.more(seconds):
                raise httpx.RemoteProtocolError("it hung up without an answer")
        found = bytes(self.buffer[:place])
        del self.buffer[: place + len(end)]
        return found

    async def read_exactly(self, length: int, seconds: float | None) -> AsyncIterator[bytes]:
        """That many bytes, as they come."""
        while length:
            if not self.buffer and not await self.more(seconds):
                raise httpx.RemoteProtocolError("it hung up in the middle of its answer")
            piece = bytes(self.buffer[:length])
            del self.buffer[:length]
            length -= len(piece)
            yield piece


def _request_head(request: httpx.Request) -> bytes:
    # httpx's own extension: what is asked for exactly as it is written.
    target: bytes = request.extensions.get("target", request.url.raw_path)
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)]
    lines += [b"%b: %b" % field for field in request.headers.raw]
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise httpx.LocalProtocolError("a header holds the end of a line")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _parse_head(head: bytes) -> _Head:
    first, *rest = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    fields = [_FIELD.fullmatch(line) for line in rest]
    if status is None or None in fields:
        raise httpx.RemoteProtocolError("its answer is not HTTP")
    found = [(field[1], field[2].strip(b" \t")) for field in fields if field is not None]
    parsed = _Head(int(status[2]), status[3] or b"", False, found)
    is_closed = any(b"close" in value.lower() for value in parsed.all(b"connection"))
    return parsed._replace(is_kept=status[1] == b"1" and not is_closed)


def _framing(
    link: _Link, head: _Head, method: str, seconds: float | None
) -> tuple[AsyncIterator[bytes], bool]:
    """The answer's body, and whether another answer can follow it."""
    codings, lengths = head.all(b"transfer-encoding"), head.all(b"content-length")
    if method == "HEAD" or head.status in (204, 304):
        return link.read_exactly(0, seconds), head.is_kept
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"]:
            raise httpx.RemoteProtocolError("its length is said in a way that is not served")
        return _chunks(link, seconds), head.is_kept
    if lengths:
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
            raise httpx.RemoteProtocolError("its length is no number")
        return link.read_exactly(int(lengths[0]), seconds), head.is_kept
    return _to_the_end(link, seconds), False


async def _chunks(link: _Link, seconds: float | None) -> AsyncIterator[bytes]:
    """RFC 9112, section 7.1."""
    while True:
        size = _CHUNK.fullmatch(await link.read_until(b"\r\n", _MAX_LINE, seconds))
        if size is None:
            raise httpx.RemoteProtocolError("a chunk has no size")
        length = int(size[1], 16)
        if length == 0:
            break
        async for piece in link.read_exactly(length, seconds):
            yield piece
        if await link.read_until(b"\r\n", 0, seconds):
            raise httpx.RemoteProtocolError("a chunk is longer than its size")
    room = MAX_HEAD_BYTES
    while trailer := await link.read_until(b"\r\n", room, seconds):
        room -= len(trailer)


async def _to_the_end(link: _Link, seconds: float | None) -> AsyncIterator[bytes]:
    while link.buffer or await link.more(seconds):
        piece = bytes(link.buffer)
        link.buffer.clear()
        yield piece
