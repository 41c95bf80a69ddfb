"""A backend without a sandbox, for tests: desktops that answer, in the process of who starts them.

A desktop is a folder with a unix socket, and a guard process that removes both when its owner dies,
as the supervisor of a real sandbox does. It misbehaves when the template's environment says so:

- ``FAKE_START_SECONDS``: that long passes before it is ready;
- ``FAKE_START_ERROR``: the start fails (after those seconds) with this message;
- ``FAKE_START_ERROR_CODE``: ... and this code of :mod:`workspace.errors`, else ``start_failed``;
- ``FAKE_START_ERROR_NODE``: ... only on the node of that name;
- ``FAKE_DIE_SECONDS``: its sandbox ends by itself that long after it was ready;
- ``FAKE_STOP_SECONDS``: that long passes before it has ended.

While one is paused it takes no request: what comes is answered once it is resumed.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.egress import Egress, Secret
from workspace.errors import BY_CODE, StartFailed, Unsupported, WorkspaceNotFound
from workspace.models import Stats, Template
from workspace.proxy.tally import Tally
from workspace.testing import FakeDesktop, serving

# `read` ends with the pipe. The path is an argument: no shell ever parses it.
_GUARD = 'read -r _; rm -rf -- "$1"'


class FakeBackend:
    """``folder`` holds one folder per desktop; its path must be short (unix sockets)."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._running: dict[str, _Running] = {}

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        background: bool = False,
        volume: Mount | None = None,
    ) -> Endpoint:
        if volume is not None:
            raise Unsupported("A fake desktop has no volumes.")
        if workspace_id in self._running:
            raise StartFailed(f"There is a fake desktop {workspace_id} already.")
        running = _Running(self._folder / workspace_id, template)
        self._running[workspace_id] = running
        try:
            return await running.start()
        except BaseException:
            await self.stop(workspace_id)
            raise

    async def stop(self, workspace_id: str) -> None:
        running = self._running.pop(workspace_id, None)
        if running is not None:
            await running.stop()
        await asyncio.to_thread(shutil.rmtree, self._folder / workspace_id, ignore_errors=True)

    async def wait(self, workspace_id: str) -> str:
        running = self._running.get(workspace_id)
        if running is None:
            return "There is no such sandbox."
        await running.ended.wait()
        return "The fake sandbox ended by itself."

    def end(self, workspace_id: str) -> None:
        """Have it end by itself."""
        self._get(workspace_id).ended.set()

    async def list(self) -> Sequence[str]:
        return await asyncio.to_thread(lambda: sorted(path.name for path in self._folder.glob("*")))

    async def pause(self, workspace_id: str) -> PauseResult:
        self._get(workspace_id).awake.clear()
        return PauseResult(reclaimed_mib=0.0)

    async def resume(self, workspace_id: str) -> None:
        self._get(workspace_id).awake.set()

    async def foreground(
        self, workspace_id: str, *, whose: Mapping[str, str] | None = None
    ) -> None:
        pass

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None:
        self._get(workspace_id)  # it has no programs that could go out

    def tally(self, workspace_id: str) -> Tally | None:
        return None

    async def stats(self, workspace_id: str) -> Stats:
        self._get(workspace_id)
        return Stats(cpu_seconds=0.0, memory_mib=0.0, pids=0, disk_mib=0.0)

    def _get(self, workspace_id: str) -> _Running:
        if (running := self._running.get(workspace_id)) is None:
            raise WorkspaceNotFound(f"There is no fake desktop {workspace_id}.")
        return running


class _Running:
    def __init__(self, folder: Path, template: Template) -> None:
        self.ended = asyncio.Event()
        self.awake = asyncio.Event()
        self.awake.set()
        self._folder = folder
        self._template = template
        self._stack = AsyncExitStack()

    async def start(self) -> Endpoint:
        # Here, as a start that is cancelled leaves a thread to make it afterwards.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        guard = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _GUARD,
            "guard",
            str(self._folder),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ray ends a dead worker's process group
            env={"PATH": "/usr/bin:/bin"},
        )
        self._stack.push_async_callback(_end_guard, guard)
        await asyncio.sleep(self._seconds("FAKE_START_SECONDS"))
        environment, here = self._template.environment, socket.gethostname()
        message = environment.get("FAKE_START_ERROR")
        if message and environment.get("FAKE_START_ERROR_NODE", here) == here:
            code = environment.get("FAKE_START_ERROR_CODE", "")
            raise BY_CODE.get(code, StartFailed)(message)
        path = self._folder / "desktop.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stack.callback(listener.close)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        token = secrets.token_hex(16)
        desktop = FakeDesktop(token, self._template.screen)
        await self._stack.enter_async_context(serving(self._held(desktop.app), listener))
        self._stack.callback(desktop.hands.close)
        if seconds := self._seconds("FAKE_DIE_SECONDS"):
            asyncio.get_running_loop().call_later(seconds, self.ended.set)
        return Endpoint(url=f"unix://{path}", token=token)

    def _held(self, app: ASGIApp) -> ASGIApp:
        async def held(scope: Scope, receive: Receive, send: Send) -> None:
            await self.awake.wait()
            await app(scope, receive, send)

        return held

    async def stop(self) -> None:
        self.ended.set()
        self.awake.set()
        await asyncio.sleep(self._seconds("FAKE_STOP_SECONDS"))
        await self._stack.aclose()

    def _seconds(self, name: str) -> float:
        return float(self._template.environment.get(name, "0"))


async def _end_guard(guard: asyncio.subprocess.Process) -> None:
    assert guard.stdin is not None, "it was started with a pipe"
    guard.stdin.close()
    try:
        await asyncio.wait_for(guard.wait(), 5)
    except asyncio.TimeoutError:  # a machine that is too busy to run it
        guard.kill()
        await guard.wait()
