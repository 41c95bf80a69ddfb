"""The parts of the X11 room that decide: tables, without a server."""

from __future__ import annotations

import math

import pytest

from workspace.desktopd.x11.boxes import Box, merge
from workspace.desktopd.x11.input import interpolate
from workspace.desktopd.x11.keymap import Stroke, index, runs
from workspace.desktopd.x11.typing import keysyms_of, parts
from workspace.errors import UntypableText

ROWS = {
    10: [0x31, 0x21],  # 1 !
    24: [0x71, 0x51, 0x6CA, 0x6EA, 0x40],  # q Q, in a second layout Cyrillic; AltGr: @
    59: [0x2C, 0x3C],  # , <
    94: [0x3C, 0x3E],  # < >, a later key
    84: [0xFF9D, 0xFFB5],  # KP_Begin KP_5: Num Lock chooses, not Shift
    107: [0xFF61, 0xFF15],  # Print Sys_Req: Alt chooses
    122: [0x1008FF11, 0],
    247: [0, 0],
}


@pytest.mark.parametrize(
    ("keysym", "group", "stroke"),
    [
        (0x31, 0, Stroke(10, False)),
        (0x21, 0, Stroke(10, True)),
        (0x51, 0, Stroke(24, True)),
        (0x3C, 0, Stroke(59, True)),
        (0x3E, 0, Stroke(94, True)),
        (0x1008FF11, 0, Stroke(122, False)),
        (0xFF9D, 0, Stroke(84, False)),
        (0xFFB5, 0, None),
        (0xFF15, 0, None),
        (0x40, 0, None),
        (0, 0, None),
        (0x6CA, 0, None),
        (0x6EA, 1, Stroke(24, True)),
        (0x71, 1, None),
        (0x31, 1, Stroke(10, False)),  # a key with one layout has it in all
    ],
)
def test_index(keysym: int, group: int, stroke: Stroke | None) -> None:
    assert index(ROWS, group).get(keysym) == stroke


def test_runs() -> None:
    assert list(runs({5, 9, 6, 7, 20})) == [[5, 6, 7], [9], [20]]
    assert list(runs([])) == []


def test_text_is_split_by_what_spare_keys_hold() -> None:
    text = [ord(c) for c in "aXbYcXZaWX"]
    fixed = {ord(c) for c in "abc"}
    split = list(parts(text, fixed, 2))
    assert ["".join(map(chr, part)) for part in split] == ["aXbYcX", "ZaW", "X"]
    assert list(parts([], fixed, 2)) == []


def test_line_ends_are_return() -> None:
    assert keysyms_of("a\r\nb\rc\nd\t") == [
        *(0x61, 0xFF0D, 0x62, 0xFF0D, 0x63, 0xFF0D, 0x64, 0xFF09),
    ]


@pytest.mark.parametrize(("text", "named"), [("ab\x1b", "U+001B"), ("\0", "U+0000")])
def test_control_characters_are_untypable(text: str, named: str) -> None:
    with pytest.raises(UntypableText) as caught:
        keysyms_of(text)
    assert f"Character {len(text)} of the text is {named}" in str(caught.value)


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
