"""Workers that are forked: each one of its own, small, and whatever becomes of their parent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from ray_cluster import forkserver
from ray_cluster.cluster import Cluster
from tests.ray_cluster.conftest import Running, named, new_id, template
from tests.waiting import until
from workspace.desktop import connect

pytestmark = pytest.mark.anyio

PROGRAM = forkserver.__file__
# What the first worker's parent is to it: the raylet. It stays until it is told to go.
PARENT = """
import os, subprocess, sys
os.environ["RAY_RAYLET_PID"] = str(os.getpid())
print(subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode, flush=True)
sys.stdin.read()
"""

OTHER_JOB = """
import asyncio, sys
from ray_cluster.cluster import Cluster
from workspace.models import Template
folder, address, token, workspace_id = sys.argv[1:]
backends = {"fake": {"folder": folder}}
async def main():
    cluster = Cluster.connect(address=address, token=token, namespace="tests", backends=backends)
    await cluster.start(workspace_id, Template(name="fake", backend="fake"), ttl_seconds=60)
asyncio.run(main())
"""


async def the_only(folder: Path, pattern: str) -> anyio.Path:
    [found] = [each async for each in anyio.Path(folder).glob(pattern)]
    return found


async def test_each_is_a_worker_of_its_own(cluster: Cluster, local_ray: Running) -> None:
    found = await asyncio.gather(
        *(cluster.start(new_id(), template(), ttl_seconds=60) for _ in range(4))
    )
    assert len({each.endpoint.token for each in found}) == 4
    actors = local_ray.actors()
    assert [parent(actor) for actor in actors] == [forkserver.TITLE] * 4
    assert len({actor.ppid() for actor in actors}) == 1
    assert all(actor.memory_full_info().uss < 40e6 for actor in actors)
    desktop = connect(found[0].endpoint)
    try:
        assert (await desktop.click(10, 20)).cursor == (10, 20)
    finally:
        await desktop.aclose()


async def test_another_takes_the_place_of_one_that_was_killed(
    cluster: Cluster, local_ray: Running
) -> None:
    await cluster.start(new_id(), template(), ttl_seconds=60)
    [before] = local_ray.actors()
    kill_server(before)
    await cluster.start(new_id(), template(), ttl_seconds=60)
    assert before.is_running(), "a worker outlives whom it was forked from"
    [after] = (actor for actor in local_ray.actors() if actor != before)
    assert parent(after) == forkserver.TITLE


async def test_workers_start_as_rays_own_where_there_is_none(
    cluster: Cluster, local_ray: Running
) -> None:
    await cluster.start(new_id(), template(), ttl_seconds=60)
    [before] = local_ray.actors()
    kill_server(before)
    starts = await the_only(local_ray.run_dir, f"ray/session_2*/sockets/fork{job()}.starts")
    await starts.write_bytes(b"...")  # as if none had come up so often
    await cluster.start(new_id(), template(), ttl_seconds=60)
    [after] = (actor for actor in local_ray.actors() if actor != before)
    assert parent(after) == "raylet"
    await starts.write_bytes(b"")


def test_it_ends_with_its_raylet_and_a_worker_has_what_was_given_to_it(tmp_path: Path) -> None:
    others = servers()  # another test's Ray has one
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, sys.executable, PROGRAM, f"--raylet-name={tmp_path}/raylet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as raylet:
        assert raylet.stdout is not None
        assert raylet.stdin is not None
        assert raylet.stderr is not None
        assert raylet.stdout.readline() == "0\n", "another one is the worker"
        assert (tmp_path / "fork").stat().st_mode & 0o777 == 0o600
        [server] = servers() - others
        raylet.stdin.close()
        raylet.wait(10)
        until(lambda: not server.is_running(), 10)
        assert "default_worker.py: error: the following arguments" in raylet.stderr.read()


def test_it_needs_no_server_to_be_a_worker(tmp_path: Path) -> None:
    nowhere = f"--raylet-name={tmp_path}/no/such/folder/raylet"
    ran = subprocess.run(
        [sys.executable, PROGRAM, nowhere], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 2
    assert "default_worker.py: error: the following arguments are required" in ran.stderr


async def test_a_job_has_one_of_its_own(cluster: Cluster, local_ray: Running) -> None:
    """Ray's library reads its job as it is loaded; a worker of another job is not taken."""
    await cluster.start(new_id(), template(), ttl_seconds=60)
    command = [sys.executable, "-c", OTHER_JOB, str(local_ray.desktops)]
    ran = await anyio.run_process(
        [*command, local_ray.address, local_ray.token, new_id()], check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    actors = local_ray.actors()
    assert [parent(actor) for actor in actors] == [forkserver.TITLE] * 2
    assert len({actor.ppid() for actor in actors}) == 2


def job() -> str:
    import ray  # not before it was told how to connect

    return str(ray.get_runtime_context().get_job_id())


def parent(process: psutil.Process) -> str:
    above = process.parent()
    return named(above) if above is not None else ""


def kill_server(actor: psutil.Process) -> None:
    """The one that it was forked from: other jobs' are beside it."""
    server = actor.parent()
    assert server is not None
    assert named(server) == forkserver.TITLE
    server.kill()
    until(lambda: not server.is_running(), 10)


def servers() -> set[psutil.Process]:
    titled = (each for each in psutil.process_iter() if named(each) == forkserver.TITLE)
    return {each for each in titled if parent(each) != forkserver.TITLE}  # a fork, for a moment
