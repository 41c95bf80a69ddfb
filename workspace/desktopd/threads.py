"""Blocking work in threads, so that a slow disk or a large picture does not stop the daemon.

On failure: a desktop whose programs have taken every process there may be is ``NoCapacity``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from workspace.errors import NoCapacity

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread; cancelled or not, it is over when this returns."""
    try:
        work = asyncio.ensure_future(asyncio.to_thread(function))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # it may be using a file that the caller will close
            raise
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise NoCapacity(
            "The desktop has too many processes.", hint="End some of its programs."
        ) from error
