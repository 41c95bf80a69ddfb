"""Waiting for a part of the screen to change, or to come to rest."""

from __future__ import annotations

import asyncio
from functools import reduce
from typing import TYPE_CHECKING

from workspace import waits as w
from workspace.actions import Region
from workspace.desktopd.x11.boxes import Box, join
from workspace.errors import TimedOut

if TYPE_CHECKING:  # X11 is loaded while the X server starts
    from workspace.desktopd.x11.watching import Watching


async def changes(watching: Watching, wanted: w.RegionChanges) -> w.Waited:
    """Return once it looks other than now, with where that is."""
    with watching.watch(wanted.region) as watch:
        changed = await watch.change(wanted.seconds)
        if changed is not None:
            return w.Waited(region=covered(changed))
        painted = (
            "It was not painted on at all."
            if watch.painted is None
            else f"It was painted on {_ago(watch.painted)}, and looks the same."
        )
        raise TimedOut(
            f"{_told(watch.region)} did not change within {wanted.seconds:g} s.",
            hint=f"{painted} Look at the screen: it may have changed before you waited.",
        )


async def is_stable(watching: Watching, wanted: w.RegionStable) -> w.Waited:
    """Return once it has looked the same for as long as is wanted."""
    clock = asyncio.get_running_loop().time
    with watching.watch(wanted.region) as watch:
        since = began = clock()
        last: Region | None = None
        while True:
            due = since + wanted.stable_ms / 1000
            deadline = began + wanted.seconds
            changed = await watch.change_but_carets(min(due, deadline) - clock())
            if changed is not None:
                since, last = clock(), covered(changed)
            elif clock() >= due:
                return w.Waited(region=last)
            if clock() >= deadline:
                break
        raise TimedOut(
            f"{_told(watch.region)} was not still for {wanted.stable_ms} ms within "
            f"{wanted.seconds:g} s.",
            hint="It did not change; allow more seconds."
            if last is None
            else f"Its last change was {_ago(since)}, in {_told(last, 'the part')}.",
        )


def covered(boxes: list[Box]) -> Region:
    """The smallest region with all of the boxes."""
    left, top, right, bottom = reduce(join, boxes)
    return Region(x=left, y=top, width=right - left, height=bottom - top)


def _told(region: Region, what: str = "The part") -> str:
    return f"{what} of {region.width}x{region.height} pixels at ({region.x}, {region.y})"


def _ago(when: float) -> str:
    return f"{(asyncio.get_running_loop().time() - when) * 1000:.0f} ms ago"
