"""Who has the keyboard: slow or broken accessibility costs an observation but a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.workspace.desktopd.x11.harness import Client
from workspace import actions as a
from workspace.desktopd.keyboard import Holder, Keyboard
from workspace.desktopd.screen import Screen
from workspace.errors import Unavailable

NAME = a.FocusedElement(id="e1", role="entry", name="Name", text="x")
OTHER = a.FocusedElement(id="e2", role="entry", name="Other", text="")
WINDOW = a.FocusedWindow(id=1, title="A form", window_class="Chromium")


class Told:
    """Accessibility that answers as it is told."""

    def __init__(self, answer: Callable[[], Awaitable[a.FocusedElement | None]]) -> None:
        self.focused = answer


async def told_at_once() -> a.FocusedElement | None:
    return NAME


async def never() -> a.FocusedElement | None:
    await asyncio.sleep(3600)
    return NAME


async def refused() -> a.FocusedElement | None:
    raise Unavailable("The bus is gone.")


@pytest.mark.parametrize(
    ("answer", "element"), [(told_at_once, NAME), (never, None), (refused, None)]
)
async def test_costs_no_more_than_its_time(
    screen: Screen,
    client: Client,
    answer: Callable[[], Awaitable[a.FocusedElement | None]],
    element: a.FocusedElement | None,
) -> None:
    screen._keyboard = Keyboard(screen._display, Told(answer))
    started = time.monotonic()
    seen = await screen.act([a.Move(x=5, y=6)], observe="frame")
    assert time.monotonic() - started < 0.5
    assert seen.focused_element == element
    assert seen.focused is None, "there is no window manager"
    assert not seen.focus_moved
    left = [task for task in asyncio.all_tasks() if "_holder" in repr(task)]
    assert left == []


@pytest.mark.parametrize(
    ("before", "after", "has_moved"),
    [
        (Holder(None, None), Holder(None, None), False),
        (Holder(None, None), Holder(WINDOW, None), True),
        (Holder(WINDOW, None), Holder(None, None), True),
        (Holder(WINDOW, NAME), Holder(WINDOW, NAME), False),
        (Holder(WINDOW, NAME), Holder(WINDOW, OTHER), True),
        (Holder(WINDOW, None), Holder(WINDOW, NAME), True),
        (Holder(WINDOW, None, is_element_known=False), Holder(WINDOW, NAME), False),
        (Holder(WINDOW, NAME), Holder(WINDOW, None), False),
        (Holder(WINDOW, NAME), Holder(WINDOW, None, is_element_known=False), False),
        (Holder(WINDOW, NAME), Holder(WINDOW.model_copy(update={"title": "x"}), NAME), False),
    ],
)
def test_has_moved(before: Holder, after: Holder, has_moved: bool) -> None:
    assert after.has_moved_from(before) is has_moved
