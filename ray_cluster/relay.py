"""Makes a desktop's unix socket reachable from another node, without making it an open door.

The daemon checks the token of every request; the relay checks it once more at the head of every
connection, before the daemon sees a byte, so that whoever merely reaches the port reaches nothing.
From then on it copies bytes both ways, HTTP or WebSocket alike: a full buffer on one side stops
reading on the other, the end of one direction leaves the other open, and a connection on which
nothing moves, or one too many, is closed. When the daemon is gone the caller sees 502.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Sequence

from workspace.errors import CarrelError, DesktopLost, InvalidRequest, Unauthorized, Unavailable

MAX_CONNECTIONS = 200
MAX_HEAD_BYTES = 32 << 10
HEAD_SECONDS = 10.0
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 3700.0  # a request may wait an hour for a command's end
CHUNK_BYTES = 64 << 10
_REASONS = {401: "Unauthorized", 422: "Unprocessable Content", 502: "Bad Gateway", 503: "Busy"}


class Relay:
    """A TCP port in front of the unix socket at ``path``; ``token`` is the daemon's."""

    def __init__(
        self,
        path: str,
        token: str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._path = path
        self._token = token
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, host: str) -> str:
        """Listen on a free port of ``host``, this node's own address; the URL it answers on."""
        self._server = await asyncio.start_server(self._accept, host, 0, limit=MAX_HEAD_BYTES)
        name = self._server.sockets[0].getsockname()
        return f"http://[{host}]:{name[1]}" if ":" in host else f"http://{host}:{name[1]}"

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=CONNECT_SECONDS)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a stream's callback runs in a task"
        self._open.add(task)
        try:
            if len(self._open) > self._max_connections:
                raise Unavailable("This desktop has too many connections from other nodes.")
            head = await checked_head(reader, self._token)
            await self._pass_on(head, reader, writer)
        except CarrelError as error:
            await refuse(writer, error)
        except (OSError, asyncio.CancelledError):
            pass  # one side broke off, or the desktop ended: close the other
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            desktop_reader, desktop_writer = await asyncio.wait_for(
                asyncio.open_unix_connection(self._path, limit=CHUNK_BYTES), CONNECT_SECONDS
            )
        except (OSError, asyncio.TimeoutError) as error:
            raise DesktopLost("The desktop's daemon does not answer.") from error
        moved = _Moved()
        copies = [
            asyncio.ensure_future(_copy(reader, desktop_writer, moved)),
            asyncio.ensure_future(_copy(desktop_reader, writer, moved)),
        ]
        try:
            desktop_writer.write(head)
            await self._until_done(copies, moved)
        finally:
            for copy in copies:
                copy.cancel()
            desktop_writer.transport.abort()
            await asyncio.gather(*copies, return_exceptions=True)

    async def _until_done(self, copies: Sequence[asyncio.Future[None]], moved: _Moved) -> None:
        """Until both directions have ended, one broke, or nothing moved for too long."""
        left: set[asyncio.Future[None]] = set(copies)
        while left and (idle := time.monotonic() - moved.at) < self._idle_seconds:
            done, left = await asyncio.wait(
                left,
                timeout=self._idle_seconds - idle,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for copy in done:
                copy.result()


async def checked_head(reader: asyncio.StreamReader, token: str) -> bytes:
    """The first request's head, once it proves that the caller knows the token.

    Raises:
        InvalidRequest, Unauthorized.
    """
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):
        raise InvalidRequest("This is not a request that a desktop answers.") from None
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    given = [value.strip() for name, _, value in fields if name.lower() == b"authorization"]
    if len(given) != 1 or not hmac.compare_digest(given[0], f"Bearer {token}".encode()):
        raise Unauthorized("The desktop's token is missing or wrong.")
    return head


class _Moved:
    """When a byte last moved on a connection, either way."""

    def __init__(self) -> None:
        self.at = time.monotonic()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moved: _Moved) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        moved.at = time.monotonic()
        writer.write(chunk)
        await writer.drain()
        moved.at = time.monotonic()
    if writer.can_write_eof():
        writer.write_eof()


async def refuse(writer: asyncio.StreamWriter, error: CarrelError) -> None:
    """Answer with an error."""
    body = json.dumps(error.to_wire()).encode()
    writer.write(
        f"HTTP/1.1 {error.status} {_REASONS.get(error.status, 'Error')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n".encode()
        + body
    )
    try:
        writer.write_eof()
        await asyncio.wait_for(writer.drain(), CONNECT_SECONDS)
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError):
        pass  # it did not stay for the answer
