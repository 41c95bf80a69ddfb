"""The parts of the X11 room that decide: tables, without a server."""

from __future__ import annotations

import math

import pytest

from workspace.desktopd.x11.boxes import Box, merge
from workspace.desktopd.x11.input import interpolate


def test_interpolate() -> None:
    points = interpolate([(0, 0), (100, 50), (100, 50), (90, 50)], 8)
    assert points[-1] == (90, 50)
    assert (100, 50) in points
    steps = zip([(0, 0), *points], points, strict=False)
    assert all(math.dist(one, other) <= 10 for one, other in steps)


@pytest.mark.parametrize(
    ("boxes", "limit", "merged"),
    [
        ([], 3, set()),
        ([(0, 0, 5, 5), (5, 0, 9, 5)], 3, {(0, 0, 9, 5)}),
        ([(0, 0, 5, 5), (20, 0, 25, 5), (4, 0, 21, 5)], 3, {(0, 0, 25, 5)}),
        ([(0, 0, 1, 1), (9, 9, 10, 10)], 3, {(0, 0, 1, 1), (9, 9, 10, 10)}),
        (
            [(0, 0, 1, 1), (3, 0, 4, 1), (90, 90, 91, 91)],
            2,
            {(0, 0, 4, 1), (90, 90, 91, 91)},
        ),
    ],
)
def test_merge(boxes: list[Box], limit: int, merged: set[Box]) -> None:
    assert set(merge(boxes, limit)) == merged
