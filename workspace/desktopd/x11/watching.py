"""Watching parts of the screen: when they look different, and when they have come to rest.

Each watch has an XDamage object of its own that reports at most once between two looks, so any
number of them go on side by side, beside actions too, and cost nothing while nothing is painted.
Pixels are read only where something was painted in the watched part, and compared with those of
before: a repaint that alters nothing is no change. The mouse pointer is not looked at.

On failure: a region that is not on the screen is ``OffScreen``, more than :data:`MAX_WATCHES` at
once ``NoCapacity``, a broken connection ``DesktopLost``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import PIL.Image
import PIL.ImageChops
import xcffib.damage
import xcffib.xfixes

from workspace.actions import Region
from workspace.desktopd.x11.boxes import Box, merge
from workspace.desktopd.x11.capture import Capture
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.settling import is_caret
from workspace.errors import NoCapacity

MAX_WATCHES = 8  # each keeps a picture of what it watches
_TURN_SECONDS = 0.02  # at most so often is a part looked at,
_PAUSE_FACTOR = 4  # and not sooner than this many times what a look by each watch takes
_MAX_BOXES = 200
_MAX_CARETS = 64


class Watch:
    """One part of the screen; made by :meth:`Watching.watch`."""

    def __init__(
        self,
        display: Display,
        capture: Capture,
        region: Region,
        damage: int,
        others: Mapping[int, Watch],
    ) -> None:
        self._display = display
        self._capture = capture
        self._damage = damage
        self._others = others
        self._parts: int = display.connection.generate_id()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._seen = capture.grab(region, None)
        self._carets: set[Box] = set()
        self.region = region
        self.painted: float | None = None  # when it was last painted on, on the loop's clock
        self._ready_at = 0.0  # when the next look may be
        display.xfixes.CreateRegion(self._parts, 0, [])

    def close(self) -> None:
        self._display.xfixes.DestroyRegion(self._parts)

    def tell(self) -> None:
        """Something was painted, somewhere."""
        self._news.set()

    async def change(self, seconds: float) -> list[Box] | None:
        """Where it looks other than at the last look; None if it still does not after ``seconds``.

        Boxes are in the screen's pixels: left, top, right, bottom.
        """
        deadline = self._loop.time() + seconds
        while True:
            await asyncio.sleep(max(0.0, min(self._ready_at, deadline) - self._loop.time()))
            self._news.clear()
            began = self._loop.time()
            changed = [box for area in self._painted() if (box := self._compare(area)) is not None]
            pause = _PAUSE_FACTOR * len(self._others) * (self._loop.time() - began)
            self._ready_at = self._loop.time() + max(_TURN_SECONDS, pause)
            if changed:
                return changed
            left = deadline - self._loop.time()
            if left <= 0:
                return None
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except asyncio.TimeoutError:
                continue  # to a last look

    async def change_but_carets(self, seconds: float) -> list[Box] | None:
        """Like :meth:`change`, without carets that blink where they did before."""
        deadline = self._loop.time() + seconds
        while True:
            changed = await self.change(max(0.0, deadline - self._loop.time()))
            if changed is None or not self._carets.issuperset(changed):
                room = _MAX_CARETS - len(self._carets)
                self._carets |= set(list(filter(is_caret, changed or ()))[:room])
                return changed

    def _painted(self) -> list[Box]:
        """Where it was painted on since the last time."""
        with self._display.talking():
            self._display.damage.Subtract(self._damage, 0, self._parts)
            fetched = self._display.reply(self._display.xfixes.FetchRegion(self._parts))
        areas = [(r.x, r.y, r.x + r.width, r.y + r.height) for r in fetched.rectangles]
        if len(areas) > _MAX_BOXES:
            extents = fetched.extents
            areas = [(extents.x, extents.y, extents.x + extents.width, extents.y + extents.height)]
        inside = [box for area in areas if (box := _within(area, self.region)) is not None]
        if inside:
            self.painted = self._loop.time()
        return merge(inside)

    def _compare(self, area: Box) -> Box | None:
        """The part of ``area`` that looks different now; it is what was last seen from then on."""
        left, top, right, bottom = area
        part = Region(x=left, y=top, width=right - left, height=bottom - top)
        with self._display.talking():
            now = self._capture.grab(self._capture.check(part), None)
        corner = (left - self.region.x, top - self.region.y)
        place = (*corner, right - self.region.x, bottom - self.region.y)
        different = PIL.ImageChops.difference(now, self._seen.crop(place)).getbbox()
        if different is None:
            return None
        self._seen.paste(now, corner)
        return (
            left + different[0],
            top + different[1],
            left + different[2],
            top + different[3],
        )


class Watching:
    """The watches of one display."""

    def __init__(self, display: Display, capture: Capture) -> None:
        self._display = display
        self._capture = capture
        self._watches: dict[int, Watch] = {}
        display.subscribe(xcffib.damage.NotifyEvent, self._on_damage)

    @contextmanager
    def watch(self, region: Region | None) -> Iterator[Watch]:
        """Watch a part of the screen, all of it if none is named, from now on.

        Raises:
            OffScreen, NoCapacity.
        """
        if len(self._watches) >= MAX_WATCHES:
            raise NoCapacity(
                f"{MAX_WATCHES} parts of the screen are being watched.",
                hint="Wait for one of them to end.",
            )
        damage: int = self._display.connection.generate_id()
        watch: Watch | None = None
        with self._display.talking():
            whole = self._capture.check(region)
            level = xcffib.damage.ReportLevel.NonEmpty
            self._display.damage.Create(damage, self._display.root, level)
        try:
            with self._display.talking():
                # A new damage has all of the screen in it. Looked at after that, so that nothing
                # is missed in between.
                self._display.damage.Subtract(damage, 0, 0)
                watch = Watch(self._display, self._capture, whole, damage, self._watches)
                self._watches[damage] = watch
            yield watch
        finally:
            self._watches.pop(damage, None)
            if not self._display.closed.is_set():
                if watch is not None:
                    watch.close()
                self._display.damage.Destroy(damage)
                self._display.connection.flush()

    def _on_damage(self, event: Any) -> None:  # Any: xcffib carries no types
        watch = self._watches.get(event.damage)
        if watch is not None:
            watch.tell()


def _within(area: Box, region: Region) -> Box | None:
    left, top = max(area[0], region.x), max(area[1], region.y)
    right = min(area[2], region.x + region.width)
    bottom = min(area[3], region.y + region.height)
    return (left, top, right, bottom) if left < right and top < bottom else None
