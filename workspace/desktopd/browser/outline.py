"""The text of a page's tree, and where its elements are on the screen. Pure.

Whatever a page says stands in quotes, on one line: it cannot pass for a line of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

_SHOWN_VALUE = 200


class Frame(NamedTuple):
    """Where a page's content is on the screen: its left top corner, and pixels per CSS pixel.

    ``width`` and ``height`` are of what can be seen of it, in CSS pixels.
    """

    x: float
    y: float
    scale: float
    width: float
    height: float

    def point(self, box: Sequence[float]) -> tuple[int, int] | None:
        """The centre of a box of the page on the screen; None if it cannot be seen."""
        x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
        if not (0 <= x < self.width and 0 <= y < self.height):
            return None
        return round(self.x + x * self.scale), round(self.y + y * self.scale)

    def within(self, box: Sequence[float]) -> Frame:
        """That of a frame that lies in this box."""
        return Frame(
            self.x + box[0] * self.scale, self.y + box[1] * self.scale, self.scale, box[2], box[3]
        )


def frame_of(window: tuple[int, int, int, int], view: Sequence[float]) -> Frame:
    """Where a page is in its window: below, between borders of the same width.

    Args:
        window: x, y, width and height in screen pixels, without what its manager draws.
        view: ``innerWidth``, ``innerHeight`` and ``devicePixelRatio``.
    """
    x, y, width, height = window
    scale = view[2] if view[2] > 0 else 1.0
    border = max(0.0, (width - view[0] * scale) / 2)
    return Frame(x + border, y + height - border - view[1] * scale, scale, view[0], view[1])


def lines_of(
    told: Sequence[Any], where: Frame | None, prefix: str = "", indent: int = 0
) -> list[str]:  # Any: what the page's walker told, checked here
    """The lines of a tree, one for each that was told; what is no line is left out."""
    return [line for each in told if (line := line_of(each, where, prefix, indent)) is not None]


def line_of(
    told: Any, where: Frame | None, prefix: str, indent: int
) -> str | None:  # Any: as above
    if not isinstance(told, list) or len(told) < 7:
        return None
    depth, ref, role, name, states, value, box = told[:7]
    if not (isinstance(depth, int) and isinstance(ref, int) and isinstance(role, str)):
        return None
    words = ["  " * min(depth + indent, 30) + (f"[{prefix}r{ref}] " if ref else "") + role[:40]]
    if name:
        words.append(quoted(str(name), 2000))
    if value:
        words.append(f"value={quoted(str(value), _SHOWN_VALUE)}")
    if len(told) > 7 and isinstance(told[7], list):
        options = [quoted(str(each), 60) for each in told[7]]
        words.append(f"options={', '.join(options)}")
    if states:
        words.append(f"({str(states)[:200]})")
    if ref and is_box(box) and where is not None:
        words.append(_place(box, where))
    return " ".join(word for word in words if word)


def is_box(box: object) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(each, int | float) for each in box)
    )


def _place(box: Sequence[float], where: Frame) -> str:
    point = where.point(box)
    if point is not None:
        return f"at {point[0]},{point[1]}"
    middle = box[1] + box[3] / 2
    return "below" if middle >= where.height else "above" if middle < 0 else "aside"


def quoted(text: str, longest: int) -> str:
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    escaped = short.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(each if each.isprintable() else " " for each in escaped) + '"'


def fitting(lines: Sequence[str], limit: int) -> int:
    """How many of the lines have room in so many characters; one at least."""
    size = 0
    for count, line in enumerate(lines):
        size += len(line) + 1
        if size > limit and count > 0:
            return count
    return len(lines)
