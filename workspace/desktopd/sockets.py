"""Carrying two directions at once over a WebSocket, until either ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, NamedTuple

from starlette.websockets import WebSocket, WebSocketState


class Ended(NamedTuple):
    """Which of the two directions ended first, and how."""

    which: int
    error: BaseException | None


async def until_first(*work: Coroutine[Any, Any, None]) -> Ended:  # Any: asyncio's own
    """Run all until the first ends, and cancel the others; nothing runs when this returns."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        which = next(number for number, task in enumerate(tasks) if task.done())
        return Ended(which, tasks[which].exception())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def close(websocket: WebSocket, code: int = 1000, reason: str | None = None) -> None:
    """Close it, unless sending has shown already that nobody is there."""
    if websocket.application_state is not WebSocketState.DISCONNECTED:
        await websocket.close(code, reason)


async def send_frames(websocket: WebSocket, frames: AsyncIterator[Mapping[str, object]]) -> None:
    """Send frames as JSON until they or the caller end, then close."""

    async def show() -> None:
        async for frame in frames:
            await websocket.send_json(frame)

    async def gone() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass  # what a reader sends is not asked for

    ended = await until_first(show(), gone())
    if ended.which == 0 and ended.error is None:
        await close(websocket)
