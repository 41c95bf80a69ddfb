from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.workspace.desktopd.x11.harness import Server
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.errors import DesktopLost, StartFailed


async def test_no_such_display(server: Server) -> None:
    with pytest.raises(StartFailed, match="cannot be reached"):
        await Screen.open(":4711")


async def test_wrong_cookie(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAUTHORITY", "/nonexistent")
    with pytest.raises(StartFailed, match="cannot be reached"):
        await Screen.open(server.display)


async def test_server_that_lacks_an_extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path, "-extension", "DAMAGE")
    try:
        monkeypatch.setenv("XAUTHORITY", str(server.authority))
        with pytest.raises(StartFailed, match="no DAMAGE"):
            await Screen.open(server.display)
    finally:
        server.stop()


async def test_server_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path)
    monkeypatch.setenv("XAUTHORITY", str(server.authority))
    screen = await Screen.open(server.display)
    try:
        batch = [a.KeyDown(chord="shift"), a.Wait(seconds=0.3), a.Click(x=1, y=1)]
        playing = asyncio.create_task(screen.act(batch))
        await asyncio.sleep(0.1)
        server.process.kill()
        await asyncio.wait_for(screen.closed.wait(), 5)
        with pytest.raises(DesktopLost):
            await playing
        for call in (screen.act([a.Move(x=1, y=1)]), screen.clipboard.contents()):
            with pytest.raises(DesktopLost):
                await call
        with pytest.raises(DesktopLost):
            screen.windows.listed()
        with pytest.raises(DesktopLost):
            await screen.wait_for_panel(5)
    finally:
        await screen.aclose()
        server.stop()


async def test_closing_releases_and_closes_once(server: Server) -> None:
    screen = await Screen.open(server.display)
    watcher = await Screen.open(server.display)
    try:
        await screen.act([a.KeyDown(chord="shift")])
        assert watcher._keymap.refresh() & 1
        await screen.aclose()
        await screen.aclose()
        assert screen.closed.is_set()
        assert not watcher._keymap.refresh() & 1
    finally:
        await watcher.aclose()
