"""A connection on which any bytes can be sent, and from which only an answer of HTTP is read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

ANSWER_SECONDS = 20.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def keeps_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


class Closed(Exception):
    """The server ended the connection without an answer."""


class Wire:
    """One connection to a server, opened again whenever it was closed."""

    def __init__(
        self, connect: Callable[[], Any]
    ) -> None:  # Any: asyncio's coroutine of two streams
        self._connect = connect
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(
        self, request: bytes, *, is_head: bool = False, ends: bool = False
    ) -> Answer:
        """Send bytes and read one answer, in the time that there is.

        Raises:
            Closed: there was none. asyncio.TimeoutError: the server hangs.
        """
        answer = await asyncio.wait_for(self._exchange(request, is_head, ends), ANSWER_SECONDS)
        if ends or not answer.keeps_alive:
            await self.close()
        return answer

    async def _exchange(self, request: bytes, is_head: bool, ends: bool) -> Answer:
        if self._streams is None:
            self._streams = await self._connect()
        reader, writer = self._streams
        sending = asyncio.ensure_future(self._send(writer, request, ends))
        try:
            answer = await read_answer(reader, is_head)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            raise Closed(repr(error)) from None
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return answer

    async def _send(self, writer: asyncio.StreamWriter, request: bytes, ends: bool) -> None:
        writer.write(request)
        await writer.drain()
        if ends:
            writer.write_eof()

    async def hang_up(self, last: bytes) -> None:
        """Send ``last`` and no more, and read until the server closes too."""
        assert self._streams is not None
        reader, writer = self._streams
        with suppress(ConnectionError):
            writer.write(last)
            await writer.drain()
            writer.write_eof()
            while await reader.read(1 << 16):
                pass

    async def close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader, is_head: bool = False) -> Answer:
    """One HTTP answer; what precedes it (100 Continue) is passed over."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        headers = dict(re.findall(r"^([^:\r\n]+): ?(.*?)\r$", head, re.MULTILINE))
        headers = {name.lower(): value for name, value in headers.items()}
        if status == 101 or status >= 200:
            break
    if is_head or status in (101, 204, 304):
        return Answer(status, headers, b"")
    if "transfer-encoding" in headers:
        body = b""
        while (size := int((await reader.readuntil(b"\r\n")).strip(), 16)) > 0:
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return Answer(status, headers, body)
    return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
