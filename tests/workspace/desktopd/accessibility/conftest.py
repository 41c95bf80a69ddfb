"""A session as desktopd makes it, on a bare X server: bus, accessibility and a window manager."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.waiting import eventually, until
from tests.workspace.desktopd.x11.harness import Server
from workspace.desktopd.screen import Screen
from workspace.elements import Element, ElementTree, Marks
from workspace.models import Window

Whole = TypeVar("Whole", ElementTree, Marks)


class Seat:
    """A session, and the programs started in it."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder)
        self.bus = f"unix:path={folder}/bus"
        self._environment = {
            "DBUS_SESSION_BUS_ADDRESS": self.bus,
            "GNOME_ACCESSIBILITY": "1",
            "QT_ACCESSIBILITY": "1",
            "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
        }
        self.start("dbus-daemon", "--session", "--nofork", f"--address={self.bus}")
        until((folder / "bus").exists)
        launcher = "/usr/libexec/at-spi-bus-launcher"
        self.start(launcher, "--launch-immediately", "--a11y=1")
        self.start("xfwm4", "--compositor=off", NO_AT_BRIDGE="1")

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        told = {"NO_AT_BRIDGE": "0", **self._environment, **environment}
        return self.server.start(*command, **told)

    def browse(self, page: str, **options: str) -> subprocess.Popen[bytes]:
        """Chromium as a user starts it, but for its sandbox, which root cannot use."""
        path = self.server.folder / "page.html"
        path.write_text(page)
        profile = tempfile.mkdtemp(dir=self.server.folder)
        return self.start(
            *("chromium", "--no-sandbox", "--no-first-run", f"--user-data-dir={profile}"),
            *("--window-position=0,0", "--window-size=1280,740", f"file://{path}"),
        )


@pytest.fixture(scope="package")
def seat() -> Iterator[Seat]:
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as folder:
        seat = Seat(Path(folder))
        yield seat
        seat.server.stop()


@pytest.fixture(scope="package")
async def screen(seat: Seat) -> AsyncIterator[Screen]:
    """One for all, as in a desktop: Chromium may crash when the last that asked it goes away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAUTHORITY", str(seat.server.authority))
        screen = await Screen.open(seat.server.display, seat.bus)
    await screen.wait_for_window_manager(20)
    yield screen
    await screen.aclose()


async def window_of(screen: Screen, title: str) -> Window:
    """The window with that in its title, in front of the others."""
    window = await screen.windows.wait_for(title, None, 60)
    screen.windows.focus(window.id)

    async def is_focused() -> bool:
        return any(each.id == window.id and each.is_focused for each in screen.windows.listed())

    await eventually(is_focused)
    return window


async def whole(ask: Callable[[], Awaitable[Whole]]) -> Whole:
    """What is answered once nothing of it is cut off for lack of time: a busy machine is slow."""
    told = await ask()

    async def is_whole() -> bool:
        nonlocal told
        if "seconds" in told.truncated:
            told = await ask()
        return "seconds" not in told.truncated

    await eventually(is_whole, 60)
    return told


async def the(
    screen: Screen,
    *,
    role: str | None = None,
    name: str | None = None,
    text: str | None = None,
    window: int | None = None,
) -> Element:
    """The one element that fits, once there is one."""
    found = ElementTree(elements=[])

    async def is_there() -> bool:
        nonlocal found
        found = await screen.accessibility.find(
            role=role, name=name, text=text, window=window, seconds=10
        )
        return bool(found.elements)

    await eventually(is_there, 60)
    assert len(found.elements) == 1, found.as_text()
    return found.elements[0]
