"""Waiting for things: each kind of :mod:`workspace.waits`, one call each.

None of them holds the screen's turn, so any number of waits and actions go on side by side. Where
there are events (X11, inotify, process descriptors) nothing is polled; the rest is looked at a few
times a second. A wait that is cancelled leaves nothing behind.

On failure: ``TimedOut``, whose hint says what there was instead; ``NoCapacity`` when
:data:`MAX_WAITS` are going on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from workspace import waits as w
from workspace.desktopd.waiting import files, processes, regions, texts
from workspace.desktopd.waiting.files import Folders
from workspace.desktopd.waiting.ports import Ports
from workspace.errors import NoCapacity

if TYPE_CHECKING:  # it has one of these
    from workspace.desktopd.desk import Desk

MAX_WAITS = 64


class Waiting:
    """The waits of one desktop."""

    def __init__(self) -> None:
        self._count = 0
        self._folders = Folders()
        self._ports = Ports()

    def close(self) -> None:
        self._folders.close()

    async def wait(self, desk: Desk, wanted: w.Wait) -> w.Waited:
        """Return once it is so on that desk.

        Raises:
            TimedOut: it was not in ``wanted.seconds``.
            NoCapacity: too many wait. And what is wrong with ``wanted`` itself: OffScreen,
                ProcessNotFound, InvalidRequest.
        """
        if self._count >= MAX_WAITS:
            raise NoCapacity(f"{MAX_WAITS} waits are going on.", hint="Wait for one to end.")
        self._count += 1
        began = time.monotonic()
        try:
            found = await self._wait(desk, wanted)
        finally:
            self._count -= 1
        return found.model_copy(update={"elapsed_ms": round((time.monotonic() - began) * 1000, 1)})

    async def _wait(self, desk: Desk, wanted: w.Wait) -> w.Waited:
        match wanted:
            case w.TextAppears():
                return await texts.appears(desk.ready_screen().accessibility, wanted)
            case w.TextGone():
                return await texts.is_gone(desk.ready_screen().accessibility, wanted)
            case w.RegionChanges():
                return await regions.changes(desk.ready_screen().watching, wanted)
            case w.RegionStable():
                return await regions.is_stable(desk.ready_screen().watching, wanted)
            case w.WindowOpens(title=title, window_class=window_class, seconds=seconds):
                windows = desk.ready_screen().windows
                return w.Waited(window=await windows.wait_for(title, window_class, seconds))
            case w.WindowCloses(title=title, window_class=window_class, seconds=seconds):
                await desk.ready_screen().windows.wait_until_gone(title, window_class, seconds)
                return w.Waited()
            case w.FileExists(path=path):
                found = await files.exists(self._folders, desk.files.resolve(path), wanted)
                return w.Waited(file=found)
            case w.PortListens(port=port, seconds=seconds):
                return w.Waited(address=await self._ports.listens(port, seconds))
            case w.ProcessEnds():
                return await processes.end(desk.shell, wanted)
