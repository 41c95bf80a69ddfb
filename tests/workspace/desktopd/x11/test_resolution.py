"""The screen changes its size while it is shown: RandR on a real server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.workspace.desktopd.x11.harness import Server
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11.resolution import Resolution
from workspace.errors import InvalidRequest, OffScreen, Unsupported
from workspace.models import ScreenChange

pytestmark = pytest.mark.anyio


async def picture_size(screen: Screen) -> tuple[int, int]:
    taken = await screen.screenshot(a.Screenshot(format="png"))
    return Image.open(io.BytesIO(taken.data)).size


@pytest.mark.parametrize("size", [(1024, 768), (1333, 777), (320, 240), (3840, 2160)])
async def test_any_size_up_and_down(screen: Screen, size: tuple[int, int]) -> None:
    before = screen.size
    found = await screen.change(ScreenChange(width=size[0], height=size[1]))
    assert (found.width, found.height) == size
    assert screen.size == size
    assert await picture_size(screen) == size
    await screen.act([a.Move(x=size[0] - 1, y=size[1] - 1)])
    with pytest.raises(OffScreen):
        await screen.act([a.Move(x=size[0], y=0)])
    back = await screen.change(ScreenChange(width=before[0], height=before[1]))
    assert (back.width, back.height) == before == await picture_size(screen)


async def test_one_side_alone_and_nothing_at_all(screen: Screen) -> None:
    assert (await screen.change(ScreenChange(width=1000))).height == 800
    assert screen.size == (1000, 800)
    assert (await screen.change(ScreenChange())).width == 1000
    await screen.change(ScreenChange(width=1280))


async def test_a_size_that_the_server_refuses_changes_nothing(screen: Screen) -> None:
    with pytest.raises(InvalidRequest, match="32x32 to 32768x32768 pixels, not 40000x800"):
        await Resolution(screen._display).set((40_000, 800), 96)
    assert await picture_size(screen) == (1280, 800)


async def test_the_modes_that_were_made_do_not_pile_up(server: Server, screen: Screen) -> None:
    import xcffib.randr

    display = screen._display
    randr = display.connection(xcffib.randr.key)

    def count() -> int:
        return int(randr.GetScreenResourcesCurrent(display.root).reply().num_modes)

    before = count()
    for width in range(700, 710):
        await screen.change(ScreenChange(width=width, height=555))
    assert count() == before + 1
    await screen.change(ScreenChange(width=1280, height=800))
    assert count() == before


async def test_toolkits_hear_of_the_dots_per_inch(server: Server, screen: Screen) -> None:
    screen.appearance.dress("dark", 96)
    assert (await screen.change(ScreenChange(dpi=144))).dpi == 144
    display = screen._display
    owner = display.reply(display.core.GetSelectionOwner(display.atom("_XSETTINGS_S0"))).owner
    told = display.property(owner, "_XSETTINGS_SETTINGS")
    assert told is not None
    assert (144 * 1024).to_bytes(4, "little") in told[1]
    resources = display.property(display.root, "RESOURCE_MANAGER")
    assert resources is not None
    assert b"Xft.dpi:\t144\n" in resources[1]


@pytest.fixture
def rigid_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, "-extension", "RANDR")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAUTHORITY", str(server.authority))
        yield server
    server.stop()


async def test_a_server_without_randr_says_so(rigid_server: Server) -> None:
    screen = await Screen.open(rigid_server.display)
    try:
        with pytest.raises(Unsupported, match="RandR"):
            await screen.change(ScreenChange(width=1000))
        assert screen.size == (1280, 800)
    finally:
        await screen.aclose()
