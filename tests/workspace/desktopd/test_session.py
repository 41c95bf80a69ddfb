"""The kinds of desktop, as they come up and as programs in them find them."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import AsyncIterator, Callable

import pytest
from PIL import Image

from tests.waiting import eventually
from tests.workspace.desktopd.conftest import Daemon
from tests.workspace.desktopd.test_daemon import greet, until_window
from workspace.desktop import Desktop
from workspace.desktopd import look
from workspace.errors import InvalidRequest
from workspace.models import Window

pytestmark = pytest.mark.anyio
_DESKTOP_SIZE = -223  # the pseudo-encoding by which a viewer follows (RFB 7.8.2)


@pytest.fixture(scope="module")
def light(start_daemon: Callable[..., Daemon]) -> Daemon:
    """A light desktop in German, and dark."""
    daemon = start_daemon(
        session="openbox",
        theme="dark",
        locale="de_DE.UTF-8",
        timezone="Europe/Berlin",
        keyboard="de",
        screen={"width": 1024, "height": 768, "dpi": 120},
    )
    assert daemon.wait_until_ready() == {"ready": True}
    return daemon


@pytest.fixture
async def light_desktop(light: Daemon) -> AsyncIterator[Desktop]:
    desktop = light.connect()
    yield desktop
    await desktop.aclose()


async def says(desktop: Desktop, command: str) -> str:
    done = await desktop.run(command)
    assert done.exit_code == 0, done
    return done.stdout.strip()


async def picture(desktop: Desktop) -> Image.Image:
    return Image.open(io.BytesIO(await desktop.screenshot(format="png"))).convert("RGB")


async def window_of(desktop: Desktop, window: int) -> Window:
    return next(each for each in await desktop.windows() if each.id == window)


async def test_a_light_desktop_is_a_window_manager_and_a_backdrop(
    light: Daemon, light_desktop: Desktop
) -> None:
    desktop = light_desktop
    assert await desktop.windows() == []
    seen = await picture(desktop)
    assert seen.size == (1024, 768)
    backdrop = look.BACKDROPS["dark"].to_bytes(3, "big")
    assert seen.getpixel((5, 5)) == seen.getpixel((1018, 762)) == tuple(backdrop)
    programs = {command.split()[0] for command, _ in light.programs()}
    assert {"Xtigervnc", "openbox", "dbus-daemon"} <= programs
    assert not any("xf" in program for program in programs)


async def test_its_menu_and_its_keys(light: Daemon, light_desktop: Desktop) -> None:
    desktop = light_desktop
    await desktop.click(900, 600, button="right")
    menu = (await picture(desktop)).crop((900, 600, 1024, 768))
    assert len(menu.getcolors(1 << 24) or []) > 5, "text on a menu, not the backdrop"
    await desktop.key("Escape")
    await desktop.start("xterm")
    window = await until_window(desktop, "XTerm")
    await desktop.key("alt+F10")
    await eventually(lambda: has_state(desktop, window, "maximised"))
    await desktop.key("alt+F10")
    placed = await desktop.move_window(window, 100, 100)
    assert (placed.x, placed.y) == (100, 100), "to the pixel"
    await desktop.key("alt+F4")
    await eventually(lambda: has_no_windows(desktop))


async def has_state(desktop: Desktop, window: int, state: str) -> bool:
    return state in (await window_of(desktop, window)).state


async def has_no_windows(desktop: Desktop) -> bool:
    return await desktop.windows() == []


async def test_programs_find_the_language_the_time_zone_and_the_keyboard(
    light: Daemon, light_desktop: Desktop
) -> None:
    desktop = light_desktop
    told = await says(desktop, "locale; locale decimal_point thousands_sep charmap")
    assert 'LC_TIME="de_DE.UTF-8"' in told
    assert told.splitlines()[-3:] == [",", ".", "UTF-8"]
    assert "Cannot set" not in (await desktop.run("locale")).stderr
    assert await says(desktop, "date -d @1753000000 '+%A %H:%M %Z'") == "Sonntag 10:26 CEST"
    layout = await says(desktop, "setxkbmap -query")
    assert re.search(r"layout: +de$", layout, re.MULTILINE)
    assert await says(desktop, "xrdb -query 2>/dev/null || xprop -root RESOURCE_MANAGER")


async def test_the_keyboard_has_the_keys_of_its_layout(
    light: Daemon, light_desktop: Desktop
) -> None:
    desktop = light_desktop
    keymap = "setxkbmap -print | xkbcomp -xkb - - 2>/dev/null"
    assert "udiaeresis" in await says(desktop, keymap)
    job = await desktop.start("xterm -e bash -c 'read x; printf %s \"$x\" >~/typed'")
    await until_window(desktop, "XTerm")
    await desktop.type("Grüße @ 10 €, {y} und ß\n")
    assert (await desktop.poll(job.id, wait_seconds=10)).exit_code == 0
    assert await desktop.read_file("typed") == "Grüße @ 10 €, {y} und ß".encode()
    await eventually(lambda: has_no_windows(desktop))


async def test_the_screen_changes_and_everything_follows(
    light: Daemon, light_desktop: Desktop
) -> None:
    desktop = light_desktop
    await desktop.start("xterm")
    window = await until_window(desktop, "XTerm")
    await desktop.set_window_state(window, "maximised")
    async with light.web_socket("/vnc") as socket:
        assert await greet(socket) == (1024, 768)
        await socket.send(struct.pack(">BBHii", 2, 0, 2, 0, _DESKTOP_SIZE))
        await socket.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 1024, 768))
        await socket.recv()
        found = await desktop.set_screen(1400, 900, dpi=96)
        assert (found.width, found.height, found.dpi) == (1400, 900, 96)
        await socket.send(struct.pack(">BBHHHH", 3, 1, 0, 0, 1024, 768))
        told = struct.pack(">HHHHi", 0, 0, 1400, 900, _DESKTOP_SIZE)
        received = b""
        while told not in received:
            message = await socket.recv()
            assert isinstance(message, bytes)
            received += message
    assert (await desktop.health()).screen == (1400, 900)
    assert (await picture(desktop)).size == (1400, 900)
    await eventually(lambda: fills(desktop, window, 1300))
    await desktop.set_screen(1024, 768, dpi=120)
    await eventually(lambda: fills(desktop, window, 900, most=1024))
    await desktop.close_window(window)
    await eventually(lambda: has_no_windows(desktop))
    backdrop = look.BACKDROPS["dark"].to_bytes(3, "big")
    assert (await picture(desktop)).getpixel((1018, 762)) == tuple(backdrop)


async def fills(desktop: Desktop, window: int, least: int, most: int = 10_000) -> bool:
    return least < (await window_of(desktop, window)).width <= most


@pytest.mark.parametrize("size", [(100, 100), (8000, 600)])
async def test_a_screen_too_small_or_too_large_is_refused(
    light_desktop: Desktop, size: tuple[int, int]
) -> None:
    with pytest.raises(InvalidRequest, match="width"):
        await light_desktop.set_screen(*size)
    assert (await light_desktop.health()).screen == (1024, 768)


async def test_the_panel_takes_the_first_click(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    assert daemon.wait_until_ready() == {"ready": True}
    desktop = daemon.connect()
    before = await picture(desktop)
    await desktop.click(50, 14)

    async def has_opened() -> bool:
        menu = (await picture(desktop)).crop((10, 90, 140, 300))
        return menu.tobytes() != before.crop((10, 90, 140, 300)).tobytes()

    await eventually(has_opened)
    await desktop.aclose()
    assert before.getpixel((1, 1)) != (0, 0, 0)


def test_the_desktops_own_programs_load_no_opengl(daemon: Daemon) -> None:
    own = ("xfwm4", "xfce4-panel", "xfdesktop")
    found = {command.split()[0]: process for command, process in daemon.programs()}
    loaded = {name: {each.path for each in found[name].memory_maps()} for name in own}
    assert [path for paths in loaded.values() for path in paths if "libLLVM" in path] == []


async def test_xfce_follows_too(daemon: Daemon, desktop: Desktop) -> None:
    job = await desktop.start("xterm")
    terminal = await until_window(desktop, "XTerm")
    await desktop.set_window_state(terminal, "maximised")
    await desktop.set_screen(1024, 700)
    await eventually(lambda: fills(desktop, terminal, 900, most=1024))

    async def has_followed() -> bool:
        sizes = {each.window_class: each.width for each in await desktop.windows()}
        return sizes["Xfce4-panel"] == sizes["Xfdesktop"] == 1024

    await eventually(has_followed)
    await desktop.close_window(terminal)
    await desktop.poll(job.id, wait_seconds=10)
    await desktop.set_screen(1280, 800)
    await eventually(lambda: backdrop_reaches(desktop, 1270, 790))


async def backdrop_reaches(desktop: Desktop, x: int, y: int) -> bool:
    return (await picture(desktop)).getpixel((x, y)) != (0, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"timezone": "Europe/Berln"}, "time zone 'Europe/Berln'", "Europe/Berlin"),
        ({"keyboard": "xq"}, "keyboard layout 'xq'", ""),
        ({"keyboard": "us(intel)"}, "variant of the keyboard layout us 'intel'", "intl"),
        ({"locale": "de_DD.UTF-8"}, "locale 'de_DD.UTF-8'", "de_DE.UTF-8"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_starts(
    start_daemon: Callable[..., Daemon], wrong: dict[str, str], message: str, hint: str
) -> None:
    daemon = start_daemon(**wrong)
    error = daemon.wait_until_ready()["error"]
    assert error["code"] == "invalid_request"
    assert message in error["message"]
    assert hint in error["hint"]
    assert daemon.wait_for_end() == 1
