from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from workspace.backends import remains, runtime
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.backends.containers.api import Engine
from workspace.desktop import Desktop, connect
from workspace.models import ProcessResult, Template

STAND_IN = Path(__file__).with_name("stand_in.py").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def runtime_dir() -> Path:
    folder = runtime.default_dir()
    runtime.build(folder)
    return folder


class Live:
    """A running sandbox, from both sides."""

    def __init__(self, workspace_id: str, desktop: Desktop, state: remains.State) -> None:
        self.id = workspace_id
        self.desktop = desktop
        self.state = state

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


class Place:
    """A backend in folders of its own, that must be empty in the end."""

    def __init__(self, run_dir: Path, disk_dir: Path, runtime_dir: Path) -> None:
        self.run_dir, self.disk_dir, self.runtime_dir = run_dir, disk_dir, runtime_dir
        self.backend = self.another()
        self.is_background = False  # how sandboxes are started

    def another(
        self, *daemon_arguments: str, code: str = STAND_IN, ready_seconds: float = 20
    ) -> BubblewrapBackend:
        """A backend as another process would make it for the same folders."""
        command = ("/usr/bin/python3", "-I", "-S", "-c", code, *daemon_arguments)
        return BubblewrapBackend(
            self.run_dir,
            self.disk_dir,
            self.runtime_dir,
            ready_seconds=ready_seconds,
            command=command,
        )

    def state(self, workspace_id: str) -> remains.State:
        state = remains.load(str(self.run_dir / workspace_id))
        assert state is not None
        return state

    @asynccontextmanager
    async def live(self, **template: object) -> AsyncIterator[Live]:
        workspace_id = new_id()
        endpoint = await self.backend.start(
            workspace_id, a_template(**template), background=self.is_background
        )
        desktop = connect(endpoint)
        try:
            yield Live(workspace_id, desktop, self.state(workspace_id))
        finally:
            await desktop.aclose()
            await self.backend.stop(workspace_id)


@contextmanager
def owner(place: Place, *ids: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns sandboxes."""
    command = json.dumps(["/usr/bin/python3", "-I", "-S", "-c", STAND_IN])
    folders = [str(path) for path in (place.run_dir, place.disk_dir, place.runtime_dir)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workspace.backends.owner", *folders, command, *ids],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def new_id() -> str:
    return uuid.uuid4().hex[:12]


def a_template(**settings: object) -> Template:
    return Template.model_validate({"name": "test", "memory_mib": 512, "pids": 256} | settings)


def processes_of(state: remains.State) -> list[str]:
    """Every process of a sandbox, its supervisor included, as the host sees it."""
    found = []
    known = [state["supervisor"], state["bwrap"], state["init"]]
    below = remains.descendants(state["init"])
    groups = [folder.split("/sys/fs/cgroup")[-1] for folder in state["group"]["folders"].values()]
    names = {Path(folder).name for folder in groups}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            lines = (entry / "cgroup").read_text().splitlines()
            in_group = any(name and line.endswith(f"/{name}") for line in lines for name in names)
            # Another sandbox may have been given its uid by now.
            is_free = not any("/carrel-" in line for line in lines)
            is_theirs = os.geteuid() == 0 and is_free and entry.stat().st_uid == state["uid"]
        except OSError:
            continue
        process = remains.process(int(entry.name))
        is_known = process in known or int(entry.name) in below
        if process and (is_theirs or in_group or is_known):
            found.append(entry.name)
    return found


def left_of(place: Place, workspace_id: str, state: remains.State) -> list[str]:
    """What there still is of a sandbox on the host."""
    left = [f"process {pid}" for pid in processes_of(state)]
    folders = [*state["group"]["folders"].values(), place.run_dir / workspace_id, state["disk"]]
    left += [f"folder {folder}" for folder in folders if os.path.lexists(folder)]
    mounts = Path("/proc/self/mountinfo").read_text()
    return left + (["a mount"] if workspace_id in mounts else [])


@pytest.fixture
def place(runtime_dir: Path) -> Iterator[Place]:
    """As root, homes lie where other uids can pass; pytest's own folders are closed to them."""
    run_dir = Path(tempfile.mkdtemp(prefix="cb-"))
    disk_dir = Path(tempfile.mkdtemp(prefix="carrel-disk-", dir="/var/tmp"))
    disk_dir.chmod(0o711)
    try:
        place = Place(run_dir, disk_dir, runtime_dir)
        yield place
        left = [*run_dir.iterdir(), *disk_dir.iterdir()]
        assert left == []
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.rmtree(disk_dir, ignore_errors=True)


@pytest.fixture
def volume_dir() -> Iterator[Path]:
    """Where volumes lie that other uids are to pass."""
    folder = Path(tempfile.mkdtemp(prefix="carrel-volumes-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Podman's service, with an image for containers whose daemon answers commands."""
    from tests.workspace.backends import contained

    if why := contained.is_able():
        pytest.skip(why)
    with contained.engine() as engine:
        yield engine
