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

from workspace.desktopd.x11.boxes import Box, absorb
from workspace.desktopd.x11.capture import Capture, Pixels
from workspace.desktopd.x11.display import Display
from workspace.errors import Unavailable

_SQUARE = 128  # pixels: what changed is looked for in squares of that size
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
        return compared(before, now, inside)


def compared(before: Pixels, now: Pixels, boxes: Iterable[Box]) -> list[Box]:
    """Where two pictures of a size differ within the boxes, joined where they nearly touch."""
    found: list[Box] = []
    for left, top, right, bottom in boxes:
        # Band by band: small pictures, whose memory is used again.
        for upper in range(top, bottom, _SQUARE):
            band = (left, upper, right, min(upper + _SQUARE, bottom))
            for part in _differing(_rows(before, band), _rows(now, band), band):
                absorb(found, part, apart=_APART)
    return found


def _within(box: Box, whole: Box) -> Box | None:
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], whole[2]), min(box[3], whole[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _rows(pixels: Pixels, box: Box) -> PIL.Image.Image:
    """The rows of the box, where they lie. Red and blue are exchanged, which is all the same."""
    width = pixels.size[0]
    data: Any = pixels.data[box[1] * width * 4 : box[3] * width * 4]  # Any: Pillow takes buffers
    return PIL.Image.frombuffer("RGBX", (width, box[3] - box[1]), data, "raw", "RGBX", 0, 1)


def _differing(before: PIL.Image.Image, now: PIL.Image.Image, box: Box) -> Iterator[Box]:
    """The parts of the band ``box`` in which the pictures, of its rows, differ."""
    left, top, right, bottom = box
    if right - left < before.width:
        columns = (left, 0, right, bottom - top)
        before, now = before.crop(columns), now.crop(columns)
    difference = PIL.ImageChops.difference(before, now)
    if difference.getbbox() is None:
        return
    for at in range(0, right - left, _SQUARE):
        square = difference.crop((at, 0, min(at + _SQUARE, right - left), bottom - top))
        # In RGB: what the fourth byte of a pixel holds is no colour.
        inside = square.convert("RGB").getbbox()
        if inside is not None:
            first, last = left + at + inside[0], left + at + inside[2]
            yield first, top + inside[1], last, top + inside[3]
