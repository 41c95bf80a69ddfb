"""Proof of effect: an observation says what an action did to a real page, or that it did not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.accessibility.conftest import Seat, the, window_of
from workspace import actions as a
from workspace.desktopd import keyboard
from workspace.desktopd.screen import Screen
from workspace.elements import Element

_PAGE = """<!doctype html><meta charset=utf-8><title>A form</title>
<style>* { font: 20px sans-serif; user-select: none }
 body > * { position: fixed; left: 100px; height: 40px }</style>
<button style="top:40px;width:200px" onmousedown="this.style.background='#f80'">Paint</button>
<button style="top:120px;width:200px">Nothing</button>
<label style="top:220px">Name <input style="width:300px" id=name></label>
<label style="top:300px">Secret <input type=password style="width:300px"></label>"""
NOWHERE = a.Click(x=1000, y=650)


@pytest.fixture(scope="module")
def browsers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for browser in started:
        browser.terminate()
        browser.wait(20)


@pytest.fixture(autouse=True)
def page(seat: Seat, browsers: list[subprocess.Popen[bytes]]) -> None:
    """The page is there; a browser that crashed is started anew."""
    if not browsers or browsers[-1].poll() is not None:
        browsers.append(seat.browse(_PAGE))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than an observation waits for accessibility."""
    monkeypatch.setattr(keyboard, "ELEMENT_SECONDS", 2.0)


async def act(screen: Screen, *actions: a.Action) -> a.Observation:
    seen = await screen.act(actions, settle_ms=3000, observe="frame")
    assert seen.screenshot is not None
    assert seen.focused is not None
    return seen


async def at_rest(screen: Screen) -> None:
    """The page is shown, nothing of it is in the focus, and what was done before is over."""
    await window_of(screen, "A form")
    await the(screen, role="button", name="Paint")

    async def is_quiet() -> bool:
        return (await act(screen, NOWHERE)).effect == "no_visible_change"

    await eventually(is_quiet, 60)


def middle(element: Element) -> a.Click:
    box = element.box
    assert box is not None
    return a.Click(x=box.x + box.width // 2, y=box.y + box.height // 2)


async def test_click_on_nothing(screen: Screen) -> None:
    await at_rest(screen)
    seen = await act(screen, NOWHERE)
    assert (seen.effect, seen.settled, seen.changed) == ("no_visible_change", True, [])
    assert not seen.focus_moved
    assert seen.summary is not None
    assert seen.summary.startswith("No visible change was seen. The focus is on ")


async def test_click_that_changes_says_where(screen: Screen) -> None:
    await at_rest(screen)
    button = await the(screen, role="button", name="Paint")
    assert button.box is not None
    seen = await act(screen, middle(button))
    assert (seen.effect, seen.settled) == ("changed", True)
    (where,) = seen.changed
    assert abs(where.x - button.box.x) < 8
    assert abs(where.y - button.box.y) < 8
    assert abs(where.width - button.box.width) < 16
    place = f"({where.x}, {where.y}) {where.width}x{where.height}"
    assert f"The screen changed at {place} and came to rest." in str(seen.summary)


async def test_typing_says_the_text(screen: Screen) -> None:
    await at_rest(screen)
    entry = await the(screen, role="entry", name="Name")
    seen = await act(screen, middle(entry))
    assert seen.focus_moved
    assert seen.focused_element is not None
    assert (seen.focused_element.id, seen.focused_element.text) == (entry.id, "")
    assert f"The focus moved to {entry.role} 'Name' in the window 'A form" in str(seen.summary)
    seen = await act(screen, a.Type(text="Grüße, 世界"))
    assert not seen.focus_moved
    assert seen.focused_element == a.FocusedElement(
        id=entry.id, role=entry.role, name="Name", text="Grüße, 世界"
    )
    assert seen.effect == "changed"
    assert str(seen.summary).endswith("; its text is now 'Grüße, 世界'.")


async def test_the_text_is_told_in_the_time_there_is(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at_rest(screen)
    await act(screen, middle(await the(screen, role="entry", name="Name")))
    monkeypatch.undo()  # no more patience than it ships with

    async def is_told() -> bool:
        told = (await act(screen, a.Type(text="x"))).focused_element
        return told is not None and str(told.text).endswith("x")

    await eventually(is_told, 60)  # a busy machine may need several


async def test_password_is_not_told(screen: Screen) -> None:
    await at_rest(screen)
    entry = await the(screen, name="Secret", role="password text")
    seen = await act(screen, middle(entry), a.Type(text="open sesame"))
    assert seen.focused_element is not None
    assert seen.focused_element.text is None
    assert "sesame" not in seen.model_dump_json(exclude={"screenshot"})


async def test_another_window_takes_the_focus(screen: Screen, seat: Seat) -> None:
    await at_rest(screen)
    xterm = seat.start("xterm", "-T", "The terminal", "-geometry", "40x10+700+300")
    try:
        await window_of(screen, "The terminal")
        seen = await act(screen, a.Type(text="true"))
        assert (seen.effect, seen.focus_moved) == ("changed", False)
        assert seen.focused is not None
        assert (seen.focused.title, seen.focused.window_class) == ("The terminal", "XTerm")
        assert str(seen.summary).endswith("The focus is on the window 'The terminal'.")
        seen = await act(screen, a.Click(x=300, y=700))
        assert seen.focus_moved
        assert seen.focused is not None
        assert seen.focused.title.startswith("A form")
        assert "The focus moved to " in str(seen.summary)
    finally:
        xterm.terminate()
        xterm.wait(20)


async def test_nobody_looked(screen: Screen) -> None:
    await at_rest(screen)
    seen = await screen.act([NOWHERE], settle_ms=500)
    assert (seen.effect, seen.settled, seen.summary) == ("not_observed", None, None)
    assert (seen.focused, seen.focused_element, seen.still_changing) == (None, None, [])
