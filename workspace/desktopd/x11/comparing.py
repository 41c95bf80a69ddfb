"""Where the screen looks different from a moment before: by its pixels, not by its repaints.

Programs repaint what looks the same afterwards: a button that was pressed and let go, a text whose
selection is cleared though there was none. That is no effect of an action. And a browser repaints
one box around all that changed in a frame: here it falls apart into what did.

The pixels of before lie in a shared memory segment of their own, written by the server: keeping
them costs no copy. On failure (a screen that changes its size in between) all of it counts as
different.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import PIL.Image
import PIL.ImageChops

from workspace.desktopd.x11.boxes import Box, absorb, area
from workspace.desktopd.x11.capture import Capture, Pixels
from workspace.desktopd.x11.display import Display
from workspace.errors import Unavailable

_CELL = 64  # pixels: what changed is looked for in squares of that size
_APART = 16  # pixels between two changes that are told apart


class Comparing:
    """The screen at one moment, and what looks different since. End it with ``close``."""

    def __init__(self, display: Display, capture: Capture) -> None:
        self._capture = capture
        self._keeper = Capture(display)
        self._before: Pixels | None = None

    def close(self) -> None:
        self._before = None
        self._keeper.close()

    def remember(self) -> None:
        """This is the moment."""
        try:
            self._before = self._keeper.read(self._keeper.check(None), None)
        except Unavailable:
            self._before = None

    def different(self, boxes: Iterable[Box]) -> list[Box]:
        """The parts of the boxes that look different now; the whole screen if its size does."""
        screen, before = self._capture.check(None), self._before
        whole = (0, 0, screen.width, screen.height)
        if before is None or before.size != whole[2:]:
            return [whole]
        inside = [box for each in boxes if (box := _within(each, whole)) is not None]
        if not inside:
            return []
        try:
            now = self._capture.read(screen, None)
        except Unavailable:
            return [whole]
        return differing(_mapped(before), _mapped(now), inside)


def _within(box: Box, whole: Box) -> Box | None:
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], whole[2]), min(box[3], whole[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _mapped(pixels: Pixels) -> PIL.Image.Image:
    """The pixels where they lie. Red and blue are exchanged, which is all the same here."""
    data: Any = pixels.data  # Any: Pillow takes any buffer, and says so of few
    return PIL.Image.frombuffer("RGBX", pixels.size, data, "raw", "RGBX", 0, 1)


def differing(before: PIL.Image.Image, now: PIL.Image.Image, boxes: Iterable[Box]) -> list[Box]:
    """Where the pictures differ within the boxes, as few boxes with a gap between them."""
    found: list[Box] = []
    for box in boxes:
        # What the fourth byte of a pixel holds is no colour.
        parts = (picture.crop(box).convert("RGB") for picture in (before, now))
        difference = PIL.ImageChops.difference(*parts)
        for left, top, right, bottom in _cells(difference):
            part = (box[0] + left, box[1] + top, box[0] + right, box[1] + bottom)
            absorb(found, part, apart=_APART)
    return found


def _cells(difference: PIL.Image.Image) -> Iterator[Box]:
    """The boxes around what is not black, square by square."""
    around = difference.getbbox()
    if around is None:
        return
    if area(around) <= 4 * _CELL * _CELL:
        yield around
        return
    for top in range(around[1], around[3], _CELL):
        for left in range(around[0], around[2], _CELL):
            corner = (min(left + _CELL, around[2]), min(top + _CELL, around[3]))
            inside = difference.crop((left, top, *corner)).getbbox()
            if inside is not None:
                yield left + inside[0], top + inside[1], left + inside[2], top + inside[3]
