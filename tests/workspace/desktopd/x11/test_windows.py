from __future__ import annotations

import asyncio

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Server, painted, titles
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.errors import TimedOut, WindowNotFound


async def start_window_manager(server: Server, screen: Screen) -> None:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)


def rename(server: Server, window: int, title: str) -> None:
    with painted(server.display, (0, 0, 1, 1)) as client:
        name, kind = (
            client.core.InternAtom(False, len(atom), atom).reply().atom
            for atom in ("_NET_WM_NAME", "UTF8_STRING")
        )
        data = title.encode()
        client.core.ChangeProperty(0, window, name, kind, 8, len(data), data, True).check()


async def test_list_focus_close(server: Server, screen: Screen) -> None:
    await start_window_manager(server, screen)
    for title, place in (("one", "40x10+100+120"), ("two", "30x10+500+300")):
        server.start("xterm", "-geometry", place, "-T", title)
        await eventually(lambda title=title: title in titles(screen.windows.listed()), 20)
    rename(server, next(w.id for w in screen.windows.listed() if w.title == "one"), "Grüße 世界")
    await eventually(lambda: [w.title for w in screen.windows.listed() if w.is_focused] == ["two"])
    first = next(w for w in screen.windows.listed() if w.title == "Grüße 世界")
    assert first.window_class == "XTerm"
    assert first.pid is not None
    assert 100 <= first.x < 130
    assert 120 <= first.y < 160
    assert first.width > 200
    assert not first.is_focused

    screen.windows.focus(first.id)
    await eventually(lambda: screen.windows.listed()[-1].title == "Grüße 世界")  # on top
    await eventually(lambda: screen.windows.listed()[-1].is_focused)
    await screen.act([a.Click(x=first.x + 5, y=first.y + 5)])

    screen.windows.close(first.id)
    await eventually(lambda: titles(screen.windows.listed()) == ["two"])
    for action in (screen.windows.focus, screen.windows.close):
        with pytest.raises(WindowNotFound):
            action(first.id)
    with pytest.raises(WindowNotFound):
        screen.windows.close(1 << 40)


async def test_waiting_for_the_desktop(server: Server, screen: Screen) -> None:
    with pytest.raises(TimedOut, match="panel did not appear"):
        await screen.wait_for_panel(0.1)
    waiting = asyncio.create_task(screen.wait_for_panel(30))
    await start_window_manager(server, screen)
    server.start_on_bus("xfce4-panel", "--disable-wm-check")
    await waiting
    image = await screen.screenshot(a.Screenshot())
    assert image.data


async def test_no_window_manager_in_time(screen: Screen) -> None:
    with pytest.raises(TimedOut, match="window manager did not start within"):
        await screen.wait_for_window_manager(0.05)
