"""The desk: what the routes serve, and how a route comes by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from workspace.actions import Observation
from workspace.desktopd.files import Files
from workspace.desktopd.hands import Hands
from workspace.desktopd.programs import Programs
from workspace.desktopd.shell import Shell
from workspace.desktopd.toolservers import ToolServers
from workspace.desktopd.usage import Usage
from workspace.desktopd.waiting import Waiting
from workspace.errors import NoIde, NotReady
from workspace.summary import summary_of

if TYPE_CHECKING:
    from workspace.desktopd.browser.pages import Pages
    from workspace.desktopd.ide.ides import Ides
    from workspace.desktopd.recorder import Recorder
    from workspace.desktopd.screen import Screen


@dataclass
class Desk:
    """What the routes serve. ``screen`` is None until the desktop is up, and until it is again."""

    shell: Shell
    programs: Programs
    files: Files
    vnc_path: str
    recorder: Recorder
    tools: ToolServers
    _screen: Screen | None = None
    hands: Hands = field(default_factory=Hands)
    waiting: Waiting = field(default_factory=Waiting)
    usage: Usage = field(default_factory=Usage)
    started_at: float = field(default_factory=time.monotonic)
    restarts: int = 0  # how often the X server died, and all on the screen was started anew
    is_restart_told: bool = True
    open_pages: Callable[[Hands], Pages] | None = None
    _pages: Pages | None = None
    ide: Ides | None = None  # the template has none

    @property
    def screen(self) -> Screen | None:
        return self._screen

    @screen.setter
    def screen(self, screen: Screen | None) -> None:
        self._screen = self.hands.screen = screen
        if self.ide is not None:
            self.ide.on_screen(screen is not None)

    @property
    def pages(self) -> Pages:
        """The browser's, made when it is first asked for: it is a lot to load."""
        if self._pages is None:
            assert self.open_pages is not None
            self._pages = self.open_pages(self.hands)
        return self._pages

    async def close_pages(self) -> None:
        if self._pages is not None:
            await self._pages.aclose()

    def ready_ide(self) -> Ides:
        if self.ide is None:
            raise NoIde("This desktop has no IDE: its template names none.")
        return self.ide

    @property
    def idle_seconds(self) -> float:
        """Since the last use; one that a person holds, or is asked to look at, is used."""
        return self.usage.idle_seconds if self.hands.control.is_idle else 0.0

    async def lose_screen(self) -> None:
        """The X server is gone, and everything on the screen with it."""
        self.restarts += 1
        self.is_restart_told = False
        gone, self.screen = self.screen, None
        if gone is not None:
            await gone.aclose()

    def telling(self, seen: Observation) -> Observation:
        """``seen``; the first one after a restart says that there was one."""
        if self.is_restart_told:
            return seen
        self.is_restart_told = True
        seen = seen.model_copy(update={"restarted": True})
        return seen.model_copy(update={"summary": summary_of(seen)})

    def ready_screen(self) -> Screen:
        if self.screen is None:
            raise self.not_ready()
        return self.screen

    def not_ready(self) -> NotReady:
        """Why there is no screen now."""
        if self.restarts:
            return NotReady(
                "The desktop's X server died: the desktop is being started anew.",
                hint="Ask again in a moment. Every window is gone; files and jobs are not.",
            )
        return NotReady("The desktop is still starting.")


def desk_of(connection: Request | WebSocket) -> Desk:
    """The desk that ``connection`` came to."""
    desk = connection.app.state.desk
    assert isinstance(desk, Desk)
    return desk


def done() -> Response:
    """There is nothing to say but that it was done."""
    return Response(status_code=204)
