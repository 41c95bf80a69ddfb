"""What the store said of things a moment ago, so that not every request asks it again.

Something is believed for ``FRESH_SECONDS``; what this controller changes itself is forgotten at
once. While the database is away, what was read in the last minute goes on being believed, so that
whoever uses a desktop may go on.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from workspace.errors import CarrelError

T = TypeVar("T")
FRESH_SECONDS = 2.0
STALE_SECONDS = 60.0
ASK_SECONDS = 1.0  # of a database that may be away, where there is something to go on with
MOST = 10_000


@dataclass
class _Known(Generic[T]):
    value: T
    read_at: float
    asked_at: float
    is_asked: bool = False  # somebody is asking anew


class Remembered(Generic[T]):
    """What ``read`` says, by name; None is not remembered, and what never changes for good."""

    def __init__(
        self, read: Callable[[str], Awaitable[T | None]], *, is_constant: bool = False
    ) -> None:
        self._read = read
        self._is_constant = is_constant
        self._known: OrderedDict[str, _Known[T]] = OrderedDict()
        self._changes = 0

    async def get(self, name: str) -> T | None:
        """
        Raises:
            Unavailable: it is not known, and cannot be read.
        """
        known, now = self._known.get(name), time.monotonic()
        if known is None:
            return await self._anew(name)
        if self._is_constant:
            self._known.move_to_end(name)
            return known.value
        is_usable = now - known.read_at < STALE_SECONDS
        if now - known.asked_at < FRESH_SECONDS or (known.is_asked and is_usable):
            return known.value
        known.is_asked = True
        try:
            if not is_usable:
                return await self._anew(name)
            with anyio.fail_after(ASK_SECONDS):
                return await self._anew(name)
        except (CarrelError, TimeoutError):
            if not is_usable or self._known.get(name) is not known:
                raise
            known.asked_at = now
            return known.value
        finally:
            known.is_asked = False

    def forget(self, name: str) -> None:
        """It has changed: the next one who asks is told so."""
        self._changes += 1
        self._known.pop(name, None)

    async def _anew(self, name: str) -> T | None:
        while True:
            changes, began = self._changes, time.monotonic()
            value = await self._read(name)
            if changes == self._changes:  # else what was read may be from before the change
                break
        if value is None:
            self._known.pop(name, None)
            return None
        self._known[name] = _Known(value, began, began)
        self._known.move_to_end(name)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return value
