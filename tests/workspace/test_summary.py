"""What is said of an observation, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from workspace import actions as a
from workspace.summary import summary_of

BUTTON = a.Region(x=10, y=20, width=100, height=30)
SPINNER = a.Region(x=500, y=500, width=60, height=60)
CARET = a.Region(x=50, y=60, width=2, height=18)
MOST = a.Region(x=0, y=10, width=1270, height=780)
WINDOW = a.FocusedWindow(id=1, title="A form", window_class="Chromium")


def entry(text: str | None, name: str = "Name") -> a.FocusedElement:
    return a.FocusedElement(id="e1", role="entry", name=name, text=text)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"effect": "not_observed"}, None),
        ({}, "No visible change was seen."),
        ({"settled": True, "still_changing": [CARET]}, "No visible change was seen."),
        (
            {"settled": True, "still_changing": [SPINNER]},
            "No visible change was seen. Something keeps moving by itself at (500, 500) 60x60.",
        ),
        ({"changed": [BUTTON]}, "The screen changed at (10, 20) 100x30."),
        (
            {"changed": [BUTTON], "settled": True},
            "The screen changed at (10, 20) 100x30 and came to rest.",
        ),
        (
            {"changed": [CARET, BUTTON, SPINNER, SPINNER, SPINNER], "settled": True},
            "The screen changed at (500, 500) 60x60, (500, 500) 60x60, (500, 500) 60x60 and 2 more"
            " and came to rest.",
        ),
        (
            {"changed": [BUTTON], "settled": False, "still_changing": [SPINNER]},
            "The screen changed at (10, 20) 100x30 and is still changing at (500, 500) 60x60.",
        ),
        ({"changed": [MOST], "settled": True}, "Most of the screen changed and came to rest."),
        (
            {"focused": WINDOW},
            "No visible change was seen. The focus is on the window 'A form'.",
        ),
        (
            {"focused": WINDOW, "focus_moved": True},
            "No visible change was seen. The focus moved to the window 'A form'.",
        ),
        ({"focus_moved": True}, "No visible change was seen. No window has the focus now."),
        (
            {"focused": WINDOW, "focused_element": entry("Grüße"), "focus_moved": True},
            "No visible change was seen. The focus moved to entry 'Name' in the window 'A form'; "
            "its text is now 'Grüße'.",
        ),
        (
            {"focused_element": entry(None, name="")},
            "No visible change was seen. The focus is on entry ''.",
        ),
        (
            {"focused_element": entry("a\nb\u202ec" + "x" * 300, name="n" * 100)},
            f"No visible change was seen. The focus is on entry '{'n' * 80}' (and 20 more "
            f"characters); its text is now 'a\\nb\\u202ec{'x' * 195}' (and 105 more characters).",
        ),
    ],
)
def test_summary(seen: dict[str, Any], said: str | None) -> None:
    effect = "changed" if "changed" in seen else "no_visible_change"
    whole: dict[str, Any] = {"cursor": (0, 0), "screen": (1280, 800), "effect": effect} | seen
    assert summary_of(a.Observation(**whole)) == said


def test_places_are_told_in_other_coordinates() -> None:
    seen = a.Observation(cursor=(0, 0), screen=(1280, 800), effect="changed", changed=[BUTTON])

    def halved(region: a.Region) -> a.Region:
        return a.Region(x=region.x // 2, y=region.y // 2, width=50, height=15)

    assert summary_of(seen, halved) == "The screen changed at (5, 10) 50x15."
