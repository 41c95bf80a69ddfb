"""Copies bytes between two sockets, both ways, until both have ended or nothing moves any more.

One buffer serves all pumps of a thread; a connection holds bytes of its own only while the other
side is slower. A side that has said all is said so to the other, which may go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

CHUNK_BYTES = 64 << 10
HALF_SECONDS = 60.0  # one side has ended, and the other says no more
_ERRORS = (BlockingIOError, InterruptedError)
_shared = threading.local()


def _buffer() -> memoryview:
    if not hasattr(_shared, "view"):
        _shared.view = memoryview(bytearray(CHUNK_BYTES))
    view: memoryview = _shared.view
    return view


class _Way:
    """One direction."""

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        moved: Callable[[int], None],
        done: Callable[[BaseException | None], None],
    ) -> None:
        self._source, self._sink, self._moved, self._done = source, sink, moved, done
        self._left = b""
        self._loop = asyncio.get_running_loop()
        self.is_over = False
        self._loop.add_reader(source, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)

    def _read(self) -> None:
        view = _buffer()
        try:
            count = self._source.recv_into(view)
            if not count:
                return self._end()
            self._moved(count)
            sent = self._send(view[:count])
            if sent < count:
                self._left = bytes(view[sent:count])
                self._loop.remove_reader(self._source)
                self._loop.add_writer(self._sink, self._write)
        except _ERRORS:
            return
        except Exception as error:
            self._done(error)

    def _write(self) -> None:
        try:
            self._left = self._left[self._send(memoryview(self._left)) :]
        except OSError as error:
            return self._done(error)
        if not self._left:
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._read)

    def _send(self, data: memoryview) -> int:
        try:
            return self._sink.send(data)
        except _ERRORS:
            return 0

    def _end(self) -> None:
        self._loop.remove_reader(self._source)
        self.is_over = True
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._done(None)


async def pump(
    client: socket.socket,
    server: socket.socket,
    moved: Callable[[int, int], None],
    *,
    idle_seconds: float,
) -> None:
    """Until both ends have ended, or one has and the other is silent.

    ``moved`` is told of bytes up and down; what it raises ends it.

    Raises:
        OSError: a side broke off.
        TimeoutError: nothing moved for so long.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    last = loop.time()
    ways: list[_Way] = []

    def count(up: int, down: int) -> None:
        nonlocal last
        last = loop.time()
        moved(up, down)

    def done(error: BaseException | None) -> None:
        if over.done():
            return
        if error is not None:
            over.set_exception(error)
        elif all(way.is_over for way in ways):
            over.set_result(None)

    try:
        ways.append(_Way(client, server, lambda n: count(n, 0), done))
        ways.append(_Way(server, client, lambda n: count(0, n), done))
        while not over.done():
            is_half = any(way.is_over for way in ways)
            left = last + (min(HALF_SECONDS, idle_seconds) if is_half else idle_seconds)
            left -= loop.time()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait([over], timeout=min(left, HALF_SECONDS))
        over.result()
    finally:
        for way in ways:
            way.close()
        if over.done() and not over.cancelled():
            over.exception()
