"""Waiting for something to be so: never for a time alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_STEP_SECONDS = 0.01


def until(condition: Callable[[], object], seconds: float = 20) -> float:
    """Return once ``condition`` holds; how many seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"it did not come true in {seconds} s"
        time.sleep(_STEP_SECONDS)
    return time.monotonic() - began


async def eventually(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], seconds: float = 20
) -> None:
    """Return once ``condition``, or what it awaits, holds."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"it did not come true in {seconds} s"
        await asyncio.sleep(_STEP_SECONDS)
