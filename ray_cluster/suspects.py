"""Nodes on which desktops do not come up for the node's own reason: avoided for a while. Pure.

The first time for half a minute, each further time for twice as long, a quarter of an hour at most.
One desktop that comes up there clears the node. What is a template's fault is nobody's here. Each
controller learns for itself, and what it learnt ends with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_SECONDS = 30.0
MOST_SECONDS = 900.0
MOST_NODES = 10_000


@dataclass
class _Doubt:
    why: str
    until: float
    seconds: float


class Suspects:
    """Of one controller; by the ids of nodes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._doubts: dict[str, _Doubt] = {}

    def blame(self, node: str, why: str) -> None:
        """Something went wrong there, and not because of what was started."""
        now = self._clock()
        before = self._doubts.pop(node, None)
        if before is not None and before.until > now:  # what was under way as it was found out
            seconds = before.seconds
        else:
            seconds = min(MOST_SECONDS, before.seconds * 2) if before else FIRST_SECONDS
        self._doubts[node] = _Doubt(why, now + seconds, seconds)
        if len(self._doubts) > MOST_NODES:
            del self._doubts[next(iter(self._doubts))]

    def clear(self, node: str) -> None:
        """A desktop came up there: its trouble, and the same elsewhere, is over."""
        if (cleared := self._doubts.pop(node, None)) is not None:
            self._doubts = {
                other: doubt for other, doubt in self._doubts.items() if doubt.why != cleared.why
            }

    def now(self) -> dict[str, str]:
        """Those to avoid now, and why."""
        now = self._clock()
        return {node: doubt.why for node, doubt in self._doubts.items() if doubt.until > now}
