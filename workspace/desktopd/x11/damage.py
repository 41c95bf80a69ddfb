"""Whether the screen changes, where, and when it has come to rest (XDamage on the root window).

The server is asked for delta rectangles: what is damaged and has not been subtracted yet is not
reported again. So it costs nothing while nobody watches, whatever a video does; and while someone
waits, one subtraction per :data:`_TURN_SECONDS` bounds how many reports a busy screen makes.

On failure: a broken connection ends the wait with ``DesktopLost``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import xcffib.damage
import xcffib.xproto

from workspace.actions import Region
from workspace.desktopd.x11.display import Display

FIRST_CHANGE_SECONDS = 0.25
QUIET_SECONDS = 0.08
MAX_REGIONS = 10
_TURN_SECONDS = 0.01
_CARET = (10, 48)  # the largest a blinking text caret gets, in pixels
_MAX_KEPT = 64

Box = tuple[int, int, int, int]  # left, top, right, bottom


def merge(boxes: Sequence[Box], limit: int = MAX_REGIONS) -> list[Box]:
    """Cover the boxes by at most ``limit``: those that touch are joined, then the nearest."""
    merged: list[Box] = []
    for box in boxes:
        _absorb(merged, box)
    while len(merged) > limit:
        pairs = ((a, b) for n, a in enumerate(merged) for b in merged[n + 1 :])
        one, other = min(pairs, key=lambda pair: _waste(*pair))
        merged.remove(one)
        merged.remove(other)
        _absorb(merged, _join(one, other))
    return merged


def _absorb(boxes: list[Box], box: Box) -> None:
    while touching := [other for other in boxes if _touch(box, other)]:
        for other in touching:
            boxes.remove(other)
            box = _join(box, other)
    boxes.append(box)


def _touch(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _join(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _waste(a: Box, b: Box) -> int:
    return _area(_join(a, b)) - _area(a) - _area(b)


class Mark:
    """What has changed since a moment; made by :meth:`Damage.mark`."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.boxes: list[Box] = []
        self.last: float | None = None  # when it last changed, on the loop's clock
        self._carets: set[Box] = set()

    def add(self, box: Box, now: float) -> None:
        """Note a change. A caret that blinks again where it did is no unrest."""
        is_caret = box[2] - box[0] <= _CARET[0] and box[3] - box[1] <= _CARET[1]
        if not is_caret or box not in self._carets:
            self.last = now
        if is_caret and len(self._carets) < _MAX_KEPT:
            self._carets.add(box)
        _absorb(self.boxes, box)
        if len(self.boxes) > _MAX_KEPT:
            self.boxes = merge(self.boxes)

    def regions(self) -> list[Region]:
        """What changed, as at most :data:`MAX_REGIONS` rectangles."""
        return [
            Region(x=left, y=top, width=right - left, height=bottom - top)
            for left, top, right, bottom in merge(self.boxes)
        ]


class Paints:
    """Whether the screen was painted on at all, at the cost of one report per :meth:`version`."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._version = 0
        self._is_painted = True
        self._damage: int = display.connection.generate_id()
        level = xcffib.damage.ReportLevel.NonEmpty
        display.damage.Create(self._damage, display.root, level, is_checked=True).check()
        display.subscribe(xcffib.damage.NotifyEvent, self._on_damage)
        display.subscribe(xcffib.xproto.ConfigureNotifyEvent, self._on_configure)

    def version(self) -> int:
        """A number that stays the same while nothing is painted.

        It is that of what the server had done at the last round trip before. Pixels read after
        this call are of that version or of a later one, never of an earlier.
        """
        self._display.pump()
        if self._is_painted:
            self._is_painted = False  # before the subtraction: a late report counts once more
            self._version += 1
            self._display.damage.Subtract(self._damage, 0, 0)
        return self._version

    def _on_damage(self, event: Any) -> None:  # Any: xcffib carries no types
        if event.damage == self._damage:
            self._is_painted = True

    def _on_configure(self, event: Any) -> None:  # Any: as above
        self._is_painted = True


class Damage:
    """The changes of one display's screen; one mark is live at a time."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._loop = asyncio.get_running_loop()
        self._mark: Mark | None = None
        self._news = asyncio.Event()
        self.frames = 0  # reports seen: has anything changed since it was looked at last?
        self.last: float | None = None  # when the last of them came, on the loop's clock
        self._damage: int = display.connection.generate_id()
        level = xcffib.damage.ReportLevel.DeltaRectangles
        display.damage.Create(self._damage, display.root, level, is_checked=True).check()
        display.subscribe(xcffib.damage.NotifyEvent, self._on_damage)

    def mark(self) -> Mark:
        """Collect changes from now on; the mark before ends."""
        cookie = self._display.damage.Subtract(self._damage, 0, 0)
        self._mark = Mark(cookie.sequence & 0xFFFF)
        self._news.clear()
        return self._mark

    def expect(self, mark: Mark) -> None:
        """Wait for a change anew: what came before this moment is no answer to the next action."""
        self._display.sync()
        self._display.pump()
        self._display.damage.Subtract(self._damage, 0, 0)  # so that the same place reports again
        mark.last = None

    def _on_damage(self, event: Any) -> None:  # Any: xcffib carries no types
        if event.damage != self._damage:
            return
        self.frames += 1
        self.last = self._loop.time()
        mark = self._mark
        # Reports from before the mark are older than its request (16 bits that wrap around).
        if mark is None or (event.sequence - mark.sequence) & 0xFFFF >= 0x8000:
            return
        area = event.area
        box = (area.x, area.y, area.x + area.width, area.y + area.height)
        mark.add(box, self.last)
        self._news.set()

    def end(self, mark: Mark) -> None:
        """Stop collecting for ``mark``."""
        if self._mark is mark:
            self._mark = None

    async def settle(self, mark: Mark, cap: float) -> bool:
        """Wait until the screen has changed since ``mark`` and is quiet again.

        It has settled (True) after :data:`QUIET_SECONDS` without a change, or when nothing has
        changed :data:`FIRST_CHANGE_SECONDS` from now; False if ``cap`` seconds pass first.
        """
        started = self._loop.time()
        if mark.last is not None:
            mark.last = started  # what was damaged already may have changed again, unreported
        while True:
            self._news.clear()
            with self._display.talking():
                self._display.damage.Subtract(self._damage, 0, 0)
                self._display.sync()
                self._display.pump()
            now = self._loop.time()
            first = started + FIRST_CHANGE_SECONDS
            due = first if mark.last is None else mark.last + QUIET_SECONDS
            if now >= due:
                return True
            if now >= started + cap:
                return mark.last is None
            try:
                await asyncio.wait_for(self._news.wait(), min(due, started + cap) - now)
            except asyncio.TimeoutError:
                continue
            await asyncio.sleep(_TURN_SECONDS)
