"""Rectangles of the screen as X reports them: joined, compared, and made few. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workspace.actions import Region

MAX_REGIONS = 10
_TOLERANCE = 24  # pixels that an edge of "much the same box" may be off, at most

Box = tuple[int, int, int, int]  # left, top, right, bottom


def merge(boxes: Sequence[Box], limit: int = MAX_REGIONS) -> list[Box]:
    """Cover the boxes by at most ``limit``: those that touch are joined, then the nearest."""
    merged: list[Box] = []
    for box in boxes:
        absorb(merged, box)
    while len(merged) > limit:
        pairs = ((a, b) for n, a in enumerate(merged) for b in merged[n + 1 :])
        one, other = min(pairs, key=lambda pair: _waste(*pair))
        merged.remove(one)
        merged.remove(other)
        absorb(merged, join(one, other))
    return merged


def absorb(boxes: list[Box], box: Box, *, apart: int = 0) -> None:
    """Add ``box`` to the boxes, joined with those that are no more than ``apart`` away."""
    while touching := [other for other in boxes if do_touch(box, other, apart)]:
        for other in touching:
            boxes.remove(other)
            box = join(box, other)
    boxes.append(box)


def do_touch(a: Box, b: Box, apart: int = 0) -> bool:
    """Whether they overlap, lie side by side, or are no more than ``apart`` pixels away."""
    return (
        a[0] <= b[2] + apart
        and b[0] <= a[2] + apart
        and a[1] <= b[3] + apart
        and b[1] <= a[3] + apart
    )


def join(a: Box, b: Box) -> Box:
    """The smallest box around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def is_within(inner: Box, outer: Box) -> bool:
    """Whether ``inner`` lies in ``outer``."""
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def are_alike(a: Box, b: Box) -> bool:
    """Whether they are much the same: each edge off by no more than a quarter of the size.

    What turns (a spinner) is repainted by a box that breathes; what moves on (a caret after a
    letter) is somewhere else.
    """
    across = min(_TOLERANCE, max(2, (a[2] - a[0]) // 4))
    down = min(_TOLERANCE, max(2, (a[3] - a[1]) // 4))
    return all(
        abs(one - other) <= (down if side % 2 else across)
        for side, (one, other) in enumerate(zip(a, b, strict=True))
    )


def regions(boxes: Iterable[Box]) -> list[Region]:
    """The boxes as at most :data:`MAX_REGIONS` regions."""
    return [
        Region(x=left, y=top, width=right - left, height=bottom - top)
        for left, top, right, bottom in merge(list(boxes))
    ]


def _waste(a: Box, b: Box) -> int:
    return area(join(a, b)) - area(a) - area(b)
