"""When the screen is at rest, as a table: repaints at their times in, what is decided out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from workspace.desktopd.x11.boxes import Box, regions
from workspace.desktopd.x11.settling import Background, Settling

Paint = tuple[float, Box]

LETTER = (100, 100, 112, 120)
BUTTON = (300, 300, 420, 340)
PAGE = (0, 80, 1200, 700)
CARET = (50, 50, 52, 70)
CLOCK = (1000, 10, 1060, 30)
ICON = (600, 10, 632, 42)
VIDEO = (600, 300, 920, 480)
NOTHING = 0.3
QUIET = 0.045


def every(seconds: float, box: Box, *, since: float = 0.0, until: float = 5.0) -> list[Paint]:
    count = int((until - since) / seconds)
    return [(round(since + n * seconds, 4), box) for n in range(count + 1)]


def spinner(*, since: float = 0.0, until: float = 5.0) -> list[Paint]:
    """A square that turns, as Chromium repaints it: its box breathes."""
    turning = []
    for n, (at, _) in enumerate(every(1 / 60, ICON, since=since, until=until)):
        out = (0, 4, 8, 12, 12, 8, 4)[n % 7]
        turning.append((at, (40 - out, 40 - out, 124 + out, 124 + out)))
    return turning


def settle(
    paints: Sequence[Paint], *, background: Background | None = None, cap: float = 3.0
) -> tuple[float, bool, list[Box], list[Box]]:
    """Play the paints; when it ended, whether settled, what changed, what was still changing."""
    watch = Settling(background or Background(), 0.0)
    watch.wait(0.0)
    for at, box in sorted(paints):
        if at >= min(watch.due(), cap):
            break
        watch.paint(box, at)
    end = min(watch.due(), cap)
    settled = watch.due() <= cap
    told = [
        [(each.x, each.y, each.x + each.width, each.y + each.height) for each in places]
        for places in (regions(watch.painted), watch.still_changing(end + 1e-6))
    ]
    return end, settled, sorted(told[0]), sorted(told[1])


@pytest.mark.parametrize(
    ("paints", "end", "changed", "still"),
    [
        pytest.param([], NOTHING, [], [], id="nothing"),
        pytest.param([(0.01, BUTTON)], 0.01 + QUIET, [BUTTON], [], id="at once"),
        pytest.param([(0.2, PAGE)], 0.2 + QUIET, [PAGE], [], id="after 200 ms"),
        pytest.param([(0.31, PAGE)], NOTHING, [], [], id="too late"),
        pytest.param(
            [(0.01, BUTTON), (0.02, BUTTON)], 0.02 + QUIET + 0.0025, [BUTTON], [], id="pressed"
        ),
        pytest.param(
            [(0.01, LETTER), *every(0.03, CARET, since=0.02)],
            0.02 + QUIET + 0.0025,
            sorted([LETTER, CARET]),
            [CARET],
            id="a caret that blinks fast",
        ),
        pytest.param(
            every(1 / 60, BUTTON, since=0.01, until=0.31), 0.41, [BUTTON], [], id="transition"
        ),
        pytest.param(
            every(1 / 60, ICON, since=0.01), 0.445, [ICON], [ICON], id="small and never ends"
        ),
        pytest.param(every(1 / 30, VIDEO, since=0.01), 0.68, [VIDEO], [VIDEO], id="starts a video"),
        pytest.param(
            [(at, (n * 37, 0, n * 37 + 30, 30)) for n, (at, _) in enumerate(every(0.04, ICON))],
            3.0,
            [],
            [],
            id="moves about",
        ),
    ],
)
def test_settles(paints: Sequence[Paint], end: float, changed: list[Box], still: list[Box]) -> None:
    ended, settled, *told = settle(paints)
    assert ended == pytest.approx(end, abs=0.02)
    assert settled is (end < 3.0)
    if settled:
        assert told == [changed, still]


def test_says_where_it_was_changing_at_the_cap() -> None:
    growing = [(n * 0.03, (0, 0, 300, 20 + n * 20)) for n in range(30)]
    end, settled, changed, still = settle([(0.0, LETTER), *growing], cap=0.4)
    assert (end, settled) == (0.4, False)
    assert still == [(0, 0, 300, 20 + 13 * 20)]
    assert changed == [(0, 0, 300, 20 + 13 * 20)]


def test_a_larger_effect_waits_longer() -> None:
    opening = [(0.03 * n, (0, 0, 900, 20 + n * 60)) for n in range(6)]
    assert settle(opening)[0] == pytest.approx(0.15 + QUIET + 0.15 / 4, abs=1e-3)
    watch = Settling(Background(), 0.0)
    watch.wait(0.0)
    watch.paint(PAGE, 0.01)
    assert watch.due() == pytest.approx(0.01 + QUIET)
    watch.stage()
    assert watch.due() == pytest.approx(0.01 + 0.12)


def known(*movements: list[Paint]) -> Background:
    """What is seen of movements before 0, in a look of 0.12 s every half of a second."""
    background = Background()
    happens: list[tuple[float, int, Box]] = [(at, 0, box) for m in movements for at, box in m]
    for n in range(10):
        began = -4.9 + 0.5 * n
        happens += [(began + 0.008 * turn, 1, LETTER) for turn in range(15)]
        happens.append((began + 0.12, 2, LETTER))
    armed = True
    for at, what, box in sorted(each for each in happens if each[0] < 0):
        if what == 1:
            background.arm(at)
            armed = True
        elif what == 2:
            background.look_away(at - 0.12, at)
        elif armed:
            background.see(box, at)
            armed = False
        else:  # a piece of what overlaps what has been reported
            background.see((box[0], box[1], box[2], box[1] + 5), at)
    return background


@pytest.mark.parametrize(
    ("movement", "still"),
    [
        pytest.param(every(0.6, CARET, since=-5), CARET, id="caret"),
        pytest.param(every(1.0, CLOCK, since=-4.99), CLOCK, id="clock"),
        pytest.param(every(1 / 30, VIDEO, since=-5), VIDEO, id="video"),
        pytest.param(spinner(since=-5), (28, 28, 136, 136), id="spinner"),
    ],
)
def test_what_moved_before_is_no_effect(movement: list[Paint], still: Box) -> None:
    after = [each for each in movement if each[0] >= 0] or [(0.1, movement[0][1])]
    end, settled, changed, told = settle(
        [(0.1, movement[-1][1]), *after], background=known(movement)
    )
    assert (end, settled, changed) == (NOTHING, True, [])
    assert told == [still]
    end, settled, changed, told = settle([(0.02, BUTTON), *after], background=known(movement))
    assert end == pytest.approx(0.065)
    assert (settled, changed) == (True, [BUTTON])


def test_frame_around_an_effect_and_a_spinner_is_an_effect() -> None:
    """A browser paints one box around all that its frame changed."""
    before, after = spinner(since=-5, until=0), spinner(since=0.004)
    both = (28, 28, 420, 340)
    end, settled, changed, _ = settle([(0.03, both), *after], background=known(before))
    assert end == pytest.approx(0.075)
    assert (settled, changed) == (True, [both])


def test_frame_around_two_that_move_is_none() -> None:
    turning = spinner(since=-5, until=0)
    background = known(turning, every(1.0, CLOCK, since=-4.99))
    end, _, changed, still = settle([(0.1, (36, 10, 1060, 128))], background=background)
    assert (end, changed) == (NOTHING, [])
    assert len(still) == 2


def test_spinner_and_video_in_one_browser() -> None:
    """Every second frame is of both."""
    turning = spinner(since=-5, until=0)
    both = [(at, (40, 40, 920, 480)) for at, _ in turning[::2]]
    mixed = sorted([*both, *turning[1::2]])
    after = [(at + 5.0, box) for at, box in mixed]
    end, _, changed, still = settle(after, background=known(mixed))
    assert (end, changed, still) == (NOTHING, [], [(28, 28, 920, 480)])


def test_what_has_stopped_is_an_effect_again() -> None:
    stopped = [each for each in every(1 / 30, VIDEO, since=-5) if each[0] < -2]
    _, _, changed, still = settle([(0.01, VIDEO)], background=known(stopped))
    assert (changed, still) == ([VIDEO], [])


def test_what_moved_until_now_and_stops_with_one_repaint_is_an_effect() -> None:
    background = known(every(1 / 30, PAGE, since=-5, until=0))
    watch = Settling(background, 0.0)
    watch.wait(0.0)
    watch.paint(PAGE, 0.02)
    assert not watch.is_restless, "it may go on"
    assert not watch.doubt(0.1)
    assert watch.doubt(NOTHING)
    assert (watch.due(), watch.painted) == (pytest.approx(0.02 + QUIET), [PAGE])
    assert watch.effect([PAGE]) == [PAGE]


def test_late_answers_are_not_taken_for_movement() -> None:
    background = Background()
    for n in range(6):
        background.see(BUTTON, n * 0.03, is_late=True)
    assert background.moving(0.2) == []


@pytest.mark.parametrize("delay", [0.01, 1.0], ids=["at once", "late"])
def test_what_answers_every_action_does_not_move_by_itself(delay: float) -> None:
    background = Background()
    for n in range(10):
        background.act()
        background.arm(n * 1.2)
        for frame in range(2):  # shown, and then shown as pressed
            background.see(PAGE, n * 1.2 + delay + frame * 0.05)
    _, _, changed, _ = settle([(0.02, PAGE)], background=background)
    assert changed == [PAGE]


def test_what_an_action_started_is_known_to_the_next() -> None:
    background = Background()
    watch = Settling(background, 0.0)
    watch.wait(0.0)
    for at, box in every(1 / 30, VIDEO, until=0.8):
        watch.paint(box, at)
    watch.end()
    background.arm(0.81)
    end, _, changed, _ = settle(every(1 / 30, VIDEO), background=background)
    assert (end, changed) == (NOTHING, [])


def test_a_new_action_is_waited_for_anew() -> None:
    watch = Settling(Background(), 0.0)
    watch.paint(BUTTON, 0.01)
    watch.expect(0.1)
    watch.wait(0.11)
    assert watch.due() == pytest.approx(0.11 + NOTHING)
    assert not watch.is_restless
    assert watch.painted == [BUTTON]


def test_what_looks_as_before_was_no_unrest() -> None:
    watch = Settling(Background(), 0.0)
    watch.wait(0.0)
    watch.paint(BUTTON, 0.02)
    watch.calm()
    assert watch.due() == NOTHING
    watch.paint(PAGE, 0.2)
    assert watch.due() == pytest.approx(0.2 + QUIET)


def test_effect_is_what_lies_outside_of_what_moves() -> None:
    watch = Settling(known(spinner(since=-5, until=0)), 0.0)
    assert watch.effect([(36, 36, 60, 60), BUTTON, (100, 100, 200, 200)]) == [
        BUTTON,
        (100, 100, 200, 200),
    ]


def test_is_bounded_and_covers_everything() -> None:
    background = Background()
    watch = Settling(background, 0.0)
    for n in range(2000):
        x, y = n * 37 % 1200, n * 91 % 760
        watch.paint((x, y, x + 3, y + 3), float(n))
        background.see((x, y, x + 3, y + 3), float(n))
        kept = (len(watch._painted), len(watch._tracks), len(background._tracks))
        assert max(kept) <= 65
    covering = regions(watch.painted)
    assert 1 <= len(covering) <= 10
    assert any(r.x <= 5 * 37 < r.x + r.width for r in covering)
