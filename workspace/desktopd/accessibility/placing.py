"""Where elements are on the screen, and whether anything of them can be seen. Pure.

What programs say of their boxes is taken as it is, but for two things that are known to be wrong:
boxes without an area, or far off, are none (GTK says so of what is not laid out); and LibreOffice
leaves its menu bar out of the boxes of all that it draws itself (:func:`shifted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workspace.models import Window

_FARTHEST = 32_000  # pixels; what X has, and room to be moved
_ROOT_PANE_SLACK = 2


class Box(NamedTuple):
    """A rectangle in pixels of the screen."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def centre(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y + self.height // 2

    def moved(self, by: tuple[int, int]) -> Box:
        return Box(self.x + by[0], self.y + by[1], self.width, self.height)

    def within(self, other: Box) -> Box | None:
        """The part of it that is in ``other``."""
        left, top = max(self.x, other.x), max(self.y, other.y)
        width = min(self.right, other.right) - left
        height = min(self.bottom, other.bottom) - top
        return Box(left, top, width, height) if width > 0 and height > 0 else None

    def is_in(self, other: Box) -> bool:
        return self.within(other) == self


def as_box(value: object) -> Box | None:
    """A box as a program told it; None if that is none."""
    if not isinstance(value, tuple) or len(value) != 4:
        return None
    if not all(isinstance(each, int) and abs(each) <= _FARTHEST for each in value):
        return None
    box = Box(*value)
    return box if box.width > 0 and box.height > 0 else None


def of_window(window: Window) -> Box:
    return Box(window.x, window.y, window.width, window.height)


def shifted(parent: Box | None, shift: tuple[int, int], role: str, box: Box) -> tuple[int, int]:
    """How far the boxes of an element, and of what is in it, are from where they are said to be.

    ``parent`` is the box that its parent told and ``shift`` how far that is off. What LibreOffice
    draws itself is in a root pane as large as the panel around it, but told at another place:
    what it is off by is the same for all in it, down to the parts that GTK draws, which begin
    where their parent really is.
    """
    if parent is None:
        return shift
    x, y = parent.x - box.x, parent.y - box.y
    is_as_large = (
        abs(parent.width - box.width) <= _ROOT_PANE_SLACK
        and abs(parent.height - box.height) <= _ROOT_PANE_SLACK
    )
    if role == "root pane" and is_as_large:
        return x, y
    if shift != (0, 0) and is_as_large and (-x, -y) == shift:
        return 0, 0
    return shift


def is_covered(box: Box, covers: Sequence[Box]) -> bool:
    """Whether one of the windows above hides all of it."""
    return any(box.is_in(cover) for cover in covers)


def covers_of(window: Window, windows: Sequence[Window]) -> list[Box]:
    """The boxes of the windows above one of them."""
    above = (each for each in windows if each.layer > window.layer)
    return [of_window(each) for each in above if "minimised" not in each.state]


def window_of(
    name: str, box: Box | None, pid: int | None, windows: Sequence[Window]
) -> Window | None:
    """The X window that a program's frame is: one of that process, by its title, else its place.

    None where there is no such: a menu or a tooltip, or a frame that is not on the screen.
    """
    own = [each for each in windows if pid is not None and each.pid == pid]
    named = [each for each in own if name and each.title == name]
    candidates = named or own
    if box is None:
        return candidates[0] if len(candidates) == 1 else None
    near = [(_distance(box, of_window(each)), each.id, each) for each in candidates]
    if not near:
        return None
    distance, _, window = min(near)
    return window if named or distance <= _FRAME_SLACK else None


# Left, top, right and bottom of a frame with and without what the window manager draws around it.
_FRAME_SLACK = 120


def _distance(one: Box, other: Box) -> int:
    return (
        abs(one.x - other.x)
        + abs(one.y - other.y)
        + abs(one.right - other.right)
        + abs(one.bottom - other.bottom)
    )
