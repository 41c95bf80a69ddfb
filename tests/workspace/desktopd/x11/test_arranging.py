"""Windows on a real window manager: what is asked for is what the list then says, or it says so."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Server
from tests.workspace.desktopd.x11.test_windows import rename, start_window_manager
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import windows
from workspace.errors import TimedOut, WindowNotFound
from workspace.models import Window, WindowChange

GONE = 1 << 30


def box(window: Window) -> tuple[int, int, int, int]:
    return window.x, window.y, window.width, window.height


@pytest.mark.parametrize(
    ("flags", "is_iconic", "state"),
    [
        ((), False, []),
        ((), True, ["minimised"]),
        (("HIDDEN",), False, ["minimised"]),
        (("HIDDEN", "SHADED"), False, []),
        (("MAXIMIZED_VERT",), False, []),
        (("MAXIMIZED_VERT", "MAXIMIZED_HORZ"), True, ["minimised", "maximised"]),
        (("FULLSCREEN",), False, ["fullscreen"]),
    ],
)
def test_states(flags: tuple[str, ...], is_iconic: bool, state: list[str]) -> None:
    assert windows.conditions(flags, is_iconic=is_iconic) == state


@pytest.mark.parametrize(
    ("types", "is_transient", "kind"),
    [
        ([], False, "normal"),
        ([], True, "dialog"),
        (["DOCK"], False, "panel"),
        (["", "DIALOG"], False, "dialog"),
        (["DESKTOP", "NORMAL"], True, "desktop"),
        ([""], False, "other"),
    ],
)
def test_kinds(types: list[str], is_transient: bool, kind: str) -> None:
    assert windows.kind(types, is_transient=is_transient) == kind


async def start_editor(server: Server, screen: Screen) -> Window:
    await start_window_manager(server, screen)
    server.start_on_bus("mousepad", "--disable-server")
    return await screen.windows.wait_for(None, "mousepad", 30)


async def test_arranged_as_asked(server: Server, screen: Screen) -> None:
    editor = await start_editor(server, screen)
    assert (editor.kind, editor.state) == ("normal", [])
    for asked in ((100, 120, 500, 300), (0, 40, 533, 357), (-50, 200, 640, 480)):
        began = time.monotonic()
        moved = await screen.windows.move(editor.id, *asked[:2])
        assert box(moved)[:2] == asked[:2]
        assert box(await screen.windows.resize(editor.id, *asked[2:])) == asked
        assert time.monotonic() - began < 1
        listed = screen.windows.listed()
        assert [box(each) for each in listed if each.id == editor.id] == [asked]
        assert [each.layer for each in listed] == list(range(len(listed)))

    # One that cannot be so small: what comes back is what it made of it, not the wish.
    began = time.monotonic()
    constrained = await screen.windows.resize(editor.id, 50, 40)
    assert 0.25 < time.monotonic() - began < 1.5
    assert constrained.width > 50
    assert box(next(w for w in screen.windows.listed() if w.id == editor.id)) == box(constrained)


async def test_states_come_and_go(server: Server, screen: Screen) -> None:
    editor = await start_editor(server, screen)
    placed = box(await screen.windows.move(editor.id, 100, 120))
    for state, told in (
        ("maximised", ["maximised"]),
        ("fullscreen", ["maximised", "fullscreen"]),
        ("minimised", ["minimised", "maximised", "fullscreen"]),
        ("maximised", ["maximised"]),
        ("normal", []),
        ("fullscreen", ["fullscreen"]),
        ("normal", []),
        ("minimised", ["minimised"]),
        ("normal", []),
        ("normal", []),
    ):
        window = await screen.windows.set_state(
            editor.id, WindowChange.model_validate({"state": state})
        )
        assert window.state == told
        if told[-1:] == ["fullscreen"] and "minimised" not in told:
            assert box(window) == (0, 0, 1280, 800)
        elif told == ["maximised"]:
            assert window.width == 1280
        elif not told:
            assert box(window) == placed


async def test_a_window_that_is_not_there(server: Server, screen: Screen) -> None:
    await start_window_manager(server, screen)
    with pytest.raises(WindowNotFound):
        await screen.windows.move(GONE, 1, 1)
    with pytest.raises(WindowNotFound):
        await screen.windows.resize(GONE, 1, 1)
    with pytest.raises(WindowNotFound):
        await screen.windows.set_state(GONE, WindowChange(state="normal"))


async def test_waiting_for_a_window(server: Server, screen: Screen) -> None:
    await start_window_manager(server, screen)
    began = time.monotonic()
    with pytest.raises(TimedOut, match="'Later' in its title") as caught:
        await screen.windows.wait_for("Later", None, 0.2)
    assert 0.15 < time.monotonic() - began < 1
    assert "none" in caught.value.hint

    waiting = asyncio.create_task(screen.windows.wait_for("LATER", "term", 20))
    server.start("xterm", "-T", "sooner")
    sooner = await screen.windows.wait_for("sooner", None, 20)
    assert not waiting.done()
    rename(server, sooner.id, "now it is later")
    assert (await waiting).id == sooner.id

    # One that is minimised is not on the screen.
    await screen.windows.set_state(sooner.id, WindowChange(state="minimised"))
    waiting = asyncio.create_task(screen.windows.wait_for("later", None, 20))
    await eventually(lambda: screen.windows.listed()[0].state == ["minimised"])
    with pytest.raises(TimedOut) as caught:
        await screen.windows.wait_for("later", None, 0.1)
    assert "now it is later" in caught.value.hint
    assert not waiting.done()
    screen.windows.focus(sooner.id)
    assert (await waiting).state == []
