"""Desktops as containers for tests: by Podman's service, with a daemon that answers commands."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests import podman
from tests.workspace.backends.conftest import STAND_IN, a_template, new_id
from workspace.backends import remains
from workspace.backends.containers import specs
from workspace.backends.containers.api import Engine
from workspace.backends.docker import DockerBackend
from workspace.desktop import Desktop, connect
from workspace.models import ProcessResult

CLUSTER = "test"


class Contained:
    """A running container, from both sides."""

    def __init__(self, workspace_id: str, desktop: Desktop, pid: int, token: str) -> None:
        self.id = workspace_id
        self.desktop = desktop
        self.pid = pid  # of its first process, on the host
        self.token = token

    async def run(self, command: str, *, timeout_seconds: float = 30) -> ProcessResult:
        return await self.desktop.run(command, timeout_seconds=timeout_seconds)

    async def says(self, command: str) -> str:
        """What a command prints that must succeed."""
        done = await self.run(command)
        assert done.exit_code == 0, done
        return done.stdout.strip()

    async def refuses(self, command: str) -> str:
        """What a command complains of that must fail."""
        done = await self.run(command)
        assert done.exit_code != 0, done
        return done.stderr.strip()


class ContainedPlace:
    """A backend in folders of its own, that must be empty in the end."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.run_dir, self.disk_dir = folder / "r", folder / "d"
        self.volume_dir = folder / "v"
        self.backend = self.another()

    def another(self, **options: object) -> DockerBackend:
        """A backend as another process would make it for the same folders."""
        return DockerBackend(
            self.run_dir,
            self.disk_dir,
            {"host": f"unix://{self.engine.path}", "image": podman.IMAGE, "start_seconds": 40}
            | options,
            CLUSTER,
            self.volume_dir,
        )

    def container(self, workspace_id: str) -> Mapping[str, Any]:  # Any: JSON values
        """What the engine says of one; empty if there is none."""
        name = specs.name_of(CLUSTER, workspace_id)
        answer = self.engine.ask("GET", f"/containers/{name}/json")
        return answer.body if answer.status == 200 else {}

    @asynccontextmanager
    async def live(self, **template: object) -> AsyncIterator[Contained]:
        workspace_id = new_id()
        endpoint = await self.backend.start(workspace_id, a_template(**template))
        desktop = connect(endpoint)
        try:
            pid = int(self.container(workspace_id)["State"]["Pid"])
            yield Contained(workspace_id, desktop, pid, endpoint.token)
        finally:
            await desktop.aclose()
            await self.backend.stop(workspace_id)

    def left(self) -> list[str]:
        """What there still is of any."""
        query = {"all": "1"}
        found = [
            str(each["Names"])
            for each in self.engine.ask("GET", "/containers/json", query=query).body
        ]
        volumes = self.engine.ask("GET", "/volumes").body["Volumes"] or []
        found += [f"volume {each['Name']}" for each in volumes]
        for folder in (self.run_dir, self.disk_dir):
            found += [str(each) for each in folder.glob("*")]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(self.run_dir) in words or "containers/supervisor.py" in words:
                found.append(f"process {words}")
        return found


@contextmanager
def engine() -> Iterator[Engine]:
    """Podman's service with the small image."""
    with tempfile.TemporaryDirectory(prefix="cp-", dir="/var/tmp") as name:
        folder = Path(name)
        archive = podman.tiny_image(folder, podman.ENTRY + STAND_IN)
        with podman.serving(folder) as found:
            podman.load(found, archive)
            archive.unlink()
            yield found


@contextmanager
def place(engine: Engine) -> Iterator[ContainedPlace]:
    """A backend whose folders are gone in the end, and must be empty then."""
    folder = Path(tempfile.mkdtemp(prefix="cb-"))
    try:
        made = ContainedPlace(engine, folder)
        yield made
        assert made.left() == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def gone(pid: int, *, seconds: float = 15) -> float:
    """Seconds until a process is gone, from now on."""
    known = remains.process(pid)
    began = time.monotonic()
    while known is not None and remains.is_alive(known):
        assert time.monotonic() < began + seconds, f"{pid} is still there"
        await asyncio.sleep(0.002)
    return time.monotonic() - began


def is_able() -> str:
    """Why there can be no engine here, or nothing."""
    if os.geteuid() != 0:
        return "Podman's service is started as root"
    return "" if shutil.which("podman") and shutil.which("runc") else "podman and runc are missing"
