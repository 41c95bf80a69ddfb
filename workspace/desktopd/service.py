"""What desktopd serves: the desk, and the HTTP server before it.

It takes longer to load than all that starts the desktop, so the daemon loads it while the X server
starts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from workspace.desktopd.app import create_app
from workspace.desktopd.config import Config
from workspace.desktopd.desk import Desk
from workspace.desktopd.files import Files
from workspace.desktopd.hands import Hands
from workspace.desktopd.recorder import Recorder
from workspace.desktopd.session import Session
from workspace.desktopd.shell import Shell
from workspace.desktopd.toolservers import ToolServers
from workspace.ide import IdeSettings
from workspace.protocols import HttpProtocol, WebSocketProtocol

if TYPE_CHECKING:
    from workspace.desktopd.browser.pages import Pages
    from workspace.desktopd.ide.ides import Ides

KEEP_ALIVE_SECONDS = 60
MAX_MESSAGE_BYTES = 16 << 20


class Service:
    """Serves a desktop on a listening socket from when it is made; end it with ``aclose``."""

    def __init__(
        self, session: Session, config: Config, home: str, listener: socket.socket
    ) -> None:
        limit = config.disk_mib << 20 if config.disk_mib is not None else None
        files = Files(home, limit_bytes=limit)
        self.desk = Desk(
            shell=Shell(session.programs),
            programs=session.programs,
            files=files,
            vnc_path=session.vnc_path,
            recorder=Recorder(session.programs, files),
            tools=ToolServers(session.programs, config.tools),
            open_pages=lambda hands: _pages(session, config, files, hands),
        )
        if config.ide is not None:
            self.desk.ide = _ide(session, config.ide, self.desk.hands)
        self._server = _Server(_config(self.desk, config.token))
        self.ended = asyncio.ensure_future(self._server.serve(sockets=[listener]))

    async def aclose(self) -> None:
        """Take no more requests, and end what they began; ``ended`` is when they are answered."""
        self._server.should_exit = True
        await self.desk.recorder.aclose()
        await self.desk.close_pages()
        if self.desk.ide is not None:
            await self.desk.ide.aclose()
        await self.desk.shell.aclose()
        await self.desk.tools.aclose()
        if self.desk.screen is not None:
            await self.desk.screen.aclose()
        self.desk.waiting.close()
        self.desk.hands.close()


def _pages(session: Session, config: Config, files: Files, hands: Hands) -> Pages:
    from workspace.desktopd.browser.pages import Pages

    return Pages(
        session.programs,
        files,
        hands,
        session.folder,
        config.browser,
        oom_score_adj=config.oom_score_adj,
    )


def _ide(session: Session, settings: IdeSettings, hands: Hands) -> Ides:
    from workspace.desktopd.ide.ides import Ides

    return Ides(session.programs, settings, hands, session.folder)


class _Server(uvicorn.Server):
    """Leaves the signals to the daemon, which has children to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(desk: Desk, token: str) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(desk, token=token),
        loop="asyncio",
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
