"""What came of a desktop's connections, told to the controllers, who write it into the log.

A few lines at a time, and after a full batch not again for a while, so that no desktop floods the
log. While no controller answers they are kept, which costs no more than their kinds.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from workspace.proxy.tally import MAX_LINES, Tally

TOGETHER_SECONDS = 1.0  # what ends in that time is told together
FULL_SECONDS = 10.0
AGAIN_SECONDS = 15.0
LAST_SECONDS = 1.5  # for what is left when the desktop ends
log = logging.getLogger(__name__)


class Reports:
    """Those of one desktop. ``tell`` says whether they were taken."""

    def __init__(self, tally: Tally, tell: Callable[[bytes], Awaitable[bool]]) -> None:
        self._tally, self._tell = tally, tell

    async def run(self) -> None:
        """Tell of them as they come; ends when it is cancelled."""
        while True:
            await self._tally.until_some()
            await asyncio.sleep(TOGETHER_SECONDS)
            count = await self._next()
            await asyncio.sleep(
                AGAIN_SECONDS if count is None else FULL_SECONDS if count == MAX_LINES else 0
            )

    async def finish(self) -> None:
        """Tell of what is left, as far as that goes in a moment."""
        try:
            await asyncio.wait_for(self._rest(), LAST_SECONDS)
        except asyncio.TimeoutError:
            log.warning("the last connections of a desktop could not be told")

    async def _rest(self) -> None:
        while await self._next() == MAX_LINES:
            pass

    async def _next(self) -> int | None:
        """Tell of the next lines: how many; None if they could not be told."""
        lines = self._tally.take()
        if not lines:
            return 0
        body = json.dumps({"connections": [line.model_dump() for line in lines]}).encode()
        try:
            if await self._tell(body):
                return len(lines)
        except BaseException:  # it may have been told: rather twice than never
            self._tally.give_back(lines)
            raise
        self._tally.give_back(lines)
        return None
