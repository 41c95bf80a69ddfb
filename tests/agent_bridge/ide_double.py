"""An IDE in memory behind a real desktopd application: it answers what it is given, and notes what
it was asked. What an IDE really does is tested with real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.types import ASGIApp

from workspace import ide as i
from workspace.desktopd.app import create_app
from workspace.desktopd.children import Children
from workspace.desktopd.desk import Desk
from workspace.desktopd.files import Files
from workspace.desktopd.ide.adapter import Launched
from workspace.desktopd.ide.ides import Ides
from workspace.desktopd.programs import Programs
from workspace.desktopd.recorder import Recorder
from workspace.desktopd.shell import Shell
from workspace.desktopd.toolservers import ToolServers

FOLDER = "/home/user/project"


class Double:
    """``answer`` is what it answers (an error is raised); ``become`` says in what phase it is."""

    def __init__(self) -> None:
        self.asked: list[i.IdeAction] = []
        self.answer: i.IdeAnswer | Exception = i.IdeState(folder=FOLDER)
        self.phase: i.Phase = "ready"
        self._is_ready = asyncio.Event()
        self._is_ready.set()

    def become(self, phase: i.Phase) -> None:
        self.phase = phase
        if phase == "ready":
            self._is_ready.set()
        else:
            self._is_ready.clear()

    async def health(self) -> i.IdeHealth:
        return i.IdeHealth(ide="vscode", phase=self.phase, name="double", folder=FOLDER)

    async def until_ready(self) -> None:
        await self._is_ready.wait()

    async def do(self, action: i.IdeAction) -> i.IdeAnswer:
        self.asked.append(action)
        if isinstance(action, i.GetState):
            return i.IdeState(folder=FOLDER)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def aclose(self) -> None:
        pass


@asynccontextmanager
async def desktopd(folder: Path, double: Double | None, token: str) -> AsyncIterator[ASGIApp]:
    """desktopd's application without a screen, its home ``folder``, with that IDE or none."""
    children = Children(adopts=False)
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    programs = Programs(children, environment, oom_score_adj=0)
    files, shell = Files(str(folder)), Shell(programs)
    recorder, tools = Recorder(programs, files), ToolServers(programs, {})
    desk = Desk(shell, programs, files, "", recorder, tools)

    async def launch(
        programs: Programs,
        settings: i.IdeSettings,
        folder: str,
        shown: Callable[[], Awaitable[None]],
    ) -> Launched:
        assert double is not None
        return Launched(double, [programs.start(["sleep", "600"])])

    if double is not None:
        desk.ide = Ides(programs, i.IdeSettings(commands=["a.*"]), desk.hands, str(folder), launch)
    try:
        yield create_app(desk, token=token)
    finally:
        if desk.ide is not None:
            await desk.ide.aclose()
        await shell.aclose()
        await children.end_all()
