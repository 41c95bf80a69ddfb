"""One local Ray for this folder, and a driver in this process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from ray_cluster import connection
from ray_cluster.cluster import Cluster
from ray_cluster.keeper import ACTOR_NAME, RunDir
from ray_cluster.local import LocalRay
from tests.waiting import until
from workspace.models import Template

SLOTS = 6
NAMESPACE = "tests"


class Running(NamedTuple):
    run_dir: Path
    address: str
    token: str

    @property
    def desktops(self) -> Path:
        return self.run_dir / "desktops"

    @property
    def keeper(self) -> psutil.Process:
        return psutil.Process(int(RunDir(self.run_dir).keeper_lock.read_text()))

    @property
    def backends(self) -> dict[str, dict[str, str]]:
        return {"fake": {"folder": str(self.desktops)}}

    def actors(self) -> list[psutil.Process]:
        """The actors of this Ray only, by age."""
        below = self.keeper.children(recursive=True)
        return [process for process in below if named(process).startswith(ACTOR_NAME)]


def named(process: psutil.Process) -> str:
    """Its name; none if it ends meanwhile, as what Ray starts for a moment does."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def new_run_dir() -> Path:
    return Path(tempfile.mkdtemp(prefix="carrel-"))


def template(**environment: str) -> Template:
    """A template whose fake desktops misbehave as ``environment`` says."""
    return Template(name="fake", backend="fake", environment=environment)


def new_id() -> str:
    return secrets.token_hex(5)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Running]:
    run_dir = new_run_dir()
    ray = LocalRay(run_dir, desktops=SLOTS)
    lock = os.open(RunDir(run_dir).controller_lock, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        running = Running(run_dir, *ray.start_or_find())
        processes = [running.keeper, *running.keeper.children(recursive=True)]
        connection.connect(running.address, running.token, NAMESPACE)
        try:
            yield running
        finally:
            connection.disconnect()
    finally:
        ray.stop()
        RunDir(run_dir).controller_lock.unlink()
        os.close(lock)
    until(lambda: not any(process.is_running() for process in processes), 20)  # init reaps them
    if running.desktops.exists():  # a test made some
        assert list(running.desktops.iterdir()) == []
        running.desktops.rmdir()
    assert list(run_dir.iterdir()) == []
    run_dir.rmdir()


@pytest.fixture
async def cluster(local_ray: Running) -> AsyncIterator[Cluster]:
    """A cluster of this test's event loop, on the session's connection."""
    cluster = Cluster(
        address=local_ray.address,
        namespace=NAMESPACE,
        backends=local_ray.backends,
        strategy="spread",
    )
    yield cluster
    for workspace_id in await cluster.find():
        await cluster.stop(workspace_id)
    await asyncio.to_thread(until, lambda: local_ray.actors() == [], 20)
    assert list(local_ray.desktops.glob("*")) == []
