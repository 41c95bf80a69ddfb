"""The desk: what the routes serve, and how a route comes by it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from workspace.desktopd.files import Files
from workspace.desktopd.programs import Programs
from workspace.desktopd.shell import Shell
from workspace.desktopd.usage import Usage
from workspace.desktopd.waiting import Waiting
from workspace.errors import NotReady

if TYPE_CHECKING:
    from workspace.desktopd.recorder import Recorder
    from workspace.desktopd.screen import Screen


@dataclass
class Desk:
    """What the routes serve. ``screen`` is None until the desktop is up."""

    shell: Shell
    programs: Programs
    files: Files
    vnc_path: str
    recorder: Recorder
    screen: Screen | None = None
    waiting: Waiting = field(default_factory=Waiting)
    usage: Usage = field(default_factory=Usage)
    started_at: float = field(default_factory=time.monotonic)

    def ready_screen(self) -> Screen:
        if self.screen is None:
            raise NotReady("The desktop is still starting.")
        return self.screen


def desk_of(connection: Request | WebSocket) -> Desk:
    """The desk that ``connection`` came to."""
    desk = connection.app.state.desk
    assert isinstance(desk, Desk)
    return desk


def done() -> Response:
    """There is nothing to say but that it was done."""
    return Response(status_code=204)
