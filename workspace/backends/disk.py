"""The checked limit of a desktop's home folder.

It is a check, not a quota: the home is measured every few seconds, so a program can overrun the
limit by what it writes in between. Files that were removed but are still open count too; those
that are on their way through a socket at the moment are not seen. A home that takes long to
measure is measured less often, but soon when the disk has lost so much that it may be over its
limit. One file can never grow beyond the whole limit (RLIMIT_FSIZE). Who overruns it has the
programs of the desktop killed, so that the files can still be looked at and removed; who goes on
growing loses the desktop. Only the standard library: the supervisor runs it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from workspace.backends import trees

INTERVAL_SECONDS = 2.0
IDLE_SECONDS = 60.0
STRIKES = 3
Verdict = Literal["fine", "kill", "end"]


class Check:
    """Measures a home in slices, and says what to do when it is too large.

    ``pids`` names the processes that may hold removed files open. One that ``is_used`` may be too
    large from the start, which is no deed of this desktop's: it may not grow.
    """

    def __init__(
        self,
        home: str,
        limit_bytes: int,
        pids: Callable[[], Iterable[int]] = tuple,
        *,
        is_used: bool = False,
    ) -> None:
        self._home = home
        self._limit = limit_bytes
        self._pids = pids
        self._walk: Iterator[int] | None = None
        self._walked_at = float("-inf")
        self._free_then = 0
        self._sum = 0
        self._spent = 0.0
        self._is_urgent = False
        self._strikes = int(is_used)
        self.used = sys.maxsize if is_used else 0
        self.next_at = time.monotonic() + INTERVAL_SECONDS

    def step(self, slice_seconds: float = 0.01) -> Verdict | None:
        """Measure on for a moment; the verdict once a measurement is complete."""
        started = time.monotonic()
        if self._walk is None:
            if not self._is_due(started):
                self.next_at = started + INTERVAL_SECONDS
                return None
            self._walk, self._sum, self._spent = self._measure(), 0, 0.0
        used: int | None
        try:
            for size in self._walk:
                self._sum += size
                if time.monotonic() - started > slice_seconds:
                    self._spent += slice_seconds
                    # A sixth of one processor, or half of it: what it spends is the host's.
                    pause = (1 if self._is_urgent else 5) * slice_seconds
                    self.next_at = time.monotonic() + pause
                    return None
            used = self._sum
        except OSError:  # too deep, or closed to us
            used = None
        now = time.monotonic()
        self._walk, self._walked_at = None, now
        self._spent += now - started
        self.next_at = now + INTERVAL_SECONDS
        return self.judge(used)

    def judge(self, used: int | None) -> Verdict:
        """What to do about so many bytes; None is a tree that cannot be measured.

        Being over the limit is met once, and then again only if it has grown.
        """
        before, self.used = self.used, self._limit + 1 if used is None else used
        if self.used <= self._limit:
            self._strikes = 0
            return "fine"
        if self._strikes and used is not None and used <= before:
            return "fine"
        self._strikes += 1
        return "kill" if self._strikes <= STRIKES else "end"

    def _is_due(self, now: float) -> bool:
        """Whether the file system has lost enough since the last time to be worth a walk."""
        disk = os.statvfs(self._home)
        free = disk.f_bfree * disk.f_frsize
        lost = self._free_then - free
        least = min(16 << 20, self._limit // 50)
        is_idle = lost < least and now - self._walked_at < IDLE_SECONDS
        self._is_urgent = lost >= max(least, self._limit - self.used)
        rest = (1 if self._is_urgent else 20) * self._spent
        if is_idle or now - self._walked_at < rest:
            return False
        self._free_then = free
        return True

    def _measure(self) -> Iterator[int]:
        # The processes are named only when the first part is done.
        yield from trees.measure(self._home)
        yield from trees.measure_unnamed(self._home, self._pids())
