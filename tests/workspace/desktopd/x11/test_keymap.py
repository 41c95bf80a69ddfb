"""The keyboard's map: what is read from it, and what is put on spare keys."""

from __future__ import annotations

import pytest

from workspace.desktopd.x11.keymap import Stroke, index, runs

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
        (0x01000419, 1, Stroke(24, True)),  # as Unicode has it
        (0x71, 1, None),
        (0x31, 1, Stroke(10, False)),  # a key with one layout has it in all
        (0x31, 2, None),
        (0xFF61, 2, Stroke(107, False)),
    ],
)
def test_index(keysym: int, group: int, stroke: Stroke | None) -> None:
    assert index(ROWS, group).get(keysym) == stroke


def test_runs() -> None:
    assert list(runs({5, 9, 6, 7, 20})) == [[5, 6, 7], [9], [20]]
    assert list(runs([])) == []
