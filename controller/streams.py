"""Bytes through the controller: bounded, with backpressure, and ended when the caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from controller.problems import CallerGone
from workspace.protocols import CUT

DRAIN_SECONDS = 60.0
READ_SECONDS = 10.0  # that a caller gets to take a piece
T = TypeVar("T")


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:  # Any: asyncio's own
    """Do ``work`` for a caller that waits; once it hangs up, ``work`` is cancelled and ended.

    The request's body must have been read: the next thing ``receive`` says is the hang-up.

    Raises:
        CallerGone: it hung up.
    """
    doing = asyncio.ensure_future(work)
    hanging_up = asyncio.ensure_future(_hung_up(receive))
    try:
        await asyncio.wait((doing, hanging_up), return_when=asyncio.FIRST_COMPLETED)
    finally:
        hanging_up.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait((doing,))  # its cleanup; what it waits for is bounded
            if not doing.cancelled():
                doing.exception()  # seen: nobody is left to be told
    if doing.cancelled():
        raise CallerGone
    return doing.result()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Upload:
    """A request's body, passed on piece by piece as the desktop takes it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_over = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._is_over:
            message = await self._receive()
            self._is_over = not message.get("more_body", False)
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if piece := message.get("body"):
                yield piece

    async def drain(self) -> None:
        """Throw away what was not taken.

        Many clients read no answer before they have sent all; one that is cut off meanwhile is
        told of a broken connection and not of what was wrong.
        """
        with anyio.move_on_after(DRAIN_SECONDS):
            async for _ in self:
                pass


class Download(Response):
    """A file of a desktop as an attachment, passed on as it comes; ``size`` if it is known.

    It is whatever the desktop says it is, so a browser may only save it: never show it, never run
    it, never guess what it is.
    """

    def __init__(
        self,
        source: AbstractAsyncContextManager[AsyncIterator[bytes]],
        *,
        path: str,
        size: int | None = None,
    ) -> None:
        super().__init__(
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Disposition": attachment(path),
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "sandbox; default-src 'none'",
                "Cache-Control": "no-store",
            }
        )
        del self.headers["content-length"]  # of nothing
        if size is not None:
            self.headers["content-length"] = str(size)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, self._pass_on(send))

    async def _pass_on(self, send: Send) -> None:
        async with self._source as chunks:  # what can be refused is refused before it starts
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def within(seconds: float, sending: Awaitable[None], scope: Scope) -> None:
    """Send to a caller who may not read; one who does not within that time is cut off.

    Raises:
        CallerGone: it was cut off.
    """
    with anyio.move_on_after(seconds) as waiting:
        await sending
    if waiting.cancelled_caught:
        if cut := scope.get("extensions", {}).get(CUT):
            cut["abort"]()
        raise CallerGone


class Stream(Response):
    """Pieces as they come, to a caller who reads them or is cut off."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], *, media_type: str) -> None:
        super().__init__(
            media_type=media_type,
            headers={
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "X-Accel-Buffering": "no",  # a proxy is to hand it on as it comes
            },
        )
        del self.headers["content-length"]  # not known before it has come
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, self._pass_on(scope, send))

    async def _pass_on(self, scope: Scope, send: Send) -> None:
        async def give(message: Message) -> None:
            await within(READ_SECONDS, send(message), scope)

        async with aclosing(self._pieces) as pieces:
            is_begun = False
            async for piece in pieces:  # what can be refused is refused before it starts
                if not is_begun:
                    is_begun = True
                    await give(
                        {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                    )
                await give({"type": "http.response.body", "body": piece, "more_body": True})
            await give({"type": "http.response.body", "body": b""})


def attachment(path: str) -> str:
    """``Content-Disposition`` for a file of any name (RFC 6266, RFC 5987)."""
    name = PurePosixPath(path).name or "file"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
