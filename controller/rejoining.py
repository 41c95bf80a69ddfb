"""Ray's death, and how a controller goes on: as a new process in its own place.

A process is the driver of one Ray as long as it lives: of a Ray that is gone it cannot take leave
(that waits for ever), and one that took its place aborts it. So whoever finds that Ray is gone says
so once (:meth:`Ray.lost`), everything that is served ends in order, with the desktops' fate
written, and :func:`restart` runs the same program anew with the same process id. It starts or joins
the next Ray, and finds what lives.

A head that comes back with all that it knew (its tables outlive it: ``CARREL_HEAD_STORAGE``) is the
same Ray: nodes and drivers join it again by themselves, and nothing is to be done.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import anyio

_log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
LOOKS = 3  # at another's Ray, which a network or a busy machine may hide for a moment


class Ray:
    """The Ray that a controller has joined, as far as it can be looked at from outside."""

    def __init__(
        self,
        is_there: Callable[[], bool],
        *,
        is_own: bool,
        is_same: Callable[[], bool] = lambda: False,
    ) -> None:
        """``is_same``: whether what is there now is what was joined."""
        self._is_there = is_there
        self._is_same = is_same
        self.is_own = is_own  # this machine's: its keeper says when it is gone

    async def lost(self) -> None:
        """Return once it is gone; if it is another's, once another one has taken its place."""
        await self._until(False)
        if self.is_own:
            return
        await self._until(True)
        while await anyio.to_thread.run_sync(self._is_same, abandon_on_cancel=True):
            _log.warning("Ray's head is back, with all that it knew")
            await self._until(False)
            await self._until(True)

    async def _until(self, wanted: bool) -> None:
        seen = 0
        while seen < (1 if self.is_own else LOOKS):
            await anyio.sleep(LOOK_SECONDS)
            is_there = await anyio.to_thread.run_sync(self._is_there, abandon_on_cancel=True)
            seen = seen + 1 if is_there == wanted else 0


def restart(arguments: Sequence[str]) -> None:
    """Become ``carrel`` with these arguments; nothing of this process goes on."""
    for entry in Path("/proc/self/fd").iterdir():
        if (fd := int(entry.name)) > 2:
            with suppress(OSError):  # the one that they were listed by
                os.set_inheritable(fd, False)
    stdout = select.poll()
    stdout.register(1, 0)
    if stdout.poll(0):  # who started it heard that it serves, and listens no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(sys.executable, [sys.executable, "-m", "controller.cli", *arguments])
