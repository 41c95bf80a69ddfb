"""Paused desktops on a real Ray: with real sandboxes, and with nobody left who knows of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from ray_cluster.cluster import Cluster
from tests.ray_cluster.conftest import NAMESPACE, Running, new_id, template
from tests.waiting import eventually
from tests.workspace.backends.conftest import STAND_IN
from workspace.backends import cgroups, remains, runtime
from workspace.desktop import connect
from workspace.errors import DesktopLost, WorkspaceEnded, WorkspaceNotFound
from workspace.models import Template

pytestmark = pytest.mark.anyio


async def test_a_paused_desktop_answers_once_it_is_resumed(cluster: Cluster) -> None:
    workspace_id = new_id()
    located = await cluster.start(workspace_id, template(), ttl_seconds=60, background=True)
    await cluster.claimed(workspace_id, 50)
    desktop = connect(located.endpoint)
    try:
        assert (await cluster.pause(workspace_id)).reclaimed_mib == 0
        acting = asyncio.ensure_future(desktop.click(10, 20))
        await asyncio.wait([acting], timeout=0.3)
        assert not acting.done()
        assert (found := await cluster.locate(workspace_id)) is not None
        assert found.endpoint == located.endpoint
        await cluster.pause(workspace_id)
        await cluster.resume(workspace_id)
        assert (await asyncio.wait_for(acting, 20)).cursor == (10, 20)
    finally:
        await desktop.aclose()


async def test_its_deadline_goes_on_while_it_is_paused(
    cluster: Cluster, local_ray: Running
) -> None:
    workspace_id = new_id()
    await cluster.start(workspace_id, template(), ttl_seconds=3)
    await cluster.pause(workspace_id)
    ended = await asyncio.wait_for(cluster.ended(workspace_id), 20)
    assert ended.code == "deadline_passed"
    assert not (local_ray.desktops / workspace_id).exists()


async def test_what_is_asked_of_one_that_went_says_so_and_is_asked_once(
    cluster: Cluster, local_ray: Running
) -> None:
    dead, ended, unknown = new_id(), new_id(), new_id()
    await cluster.start(dead, template(), ttl_seconds=60)
    (actor,) = local_ray.actors()
    actor.kill()
    await eventually(lambda: not actor.is_running())
    await cluster.start(ended, template(), ttl_seconds=60)
    await cluster.stop(ended)
    for gone in (dead, ended, unknown):

        async def is_unknown(gone: str = gone) -> bool:
            try:
                await cluster.claimed(gone, 60)
            except DesktopLost:  # for a moment Ray knows no more
                return False
            except WorkspaceNotFound:
                return True
            raise AssertionError("it is gone")

        await eventually(is_unknown)
        for ask in (cluster.pause, cluster.resume):
            with pytest.raises((WorkspaceNotFound, WorkspaceEnded)):
                await ask(gone)
        assert await cluster.locate(gone) is None


_CONTROLLER = """
import asyncio, json, sys
from ray_cluster.cluster import Cluster
from workspace.models import Template
backends, address, token, *ids = sys.argv[1:]
async def main(cluster):
    for workspace_id in ids:
        await cluster.start(workspace_id, Template(name="sandbox"), ttl_seconds=600)
    await cluster.pause(ids[-1])
    print("ready", flush=True)
    await asyncio.sleep(600)
asyncio.run(main(Cluster.connect(
    address=address, token=token, namespace="tests", backends=json.loads(backends))))
"""


@pytest.fixture
def sandboxes(local_ray: Running) -> Iterator[dict[str, object]]:
    """The settings of a backend whose sandboxes are real, and start at once."""
    runtime.build(runtime.default_dir())
    run_dir = Path(tempfile.mkdtemp(prefix="cb-"))
    disk_dir = Path(tempfile.mkdtemp(prefix="carrel-disk-", dir="/var/tmp"))
    disk_dir.chmod(0o711)
    command = ["/usr/bin/python3", "-I", "-S", "-c", STAND_IN]
    try:
        yield {"run_dir": str(run_dir), "disk_dir": str(disk_dir), "command": command}
        assert [*run_dir.iterdir(), *disk_dir.iterdir()] == []
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.rmtree(disk_dir, ignore_errors=True)


async def test_its_actor_and_the_controller_are_killed_and_nothing_of_it_is_left(
    cluster: Cluster, local_ray: Running, sandboxes: dict[str, object]
) -> None:
    assert NAMESPACE == "tests"
    if cgroups.find_parents()["kind"] == "none":
        pytest.skip("no control groups here")
    ids = [new_id(), new_id()]
    controller = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CONTROLLER, json.dumps({"bubblewrap": sandboxes})),
        *(local_ray.address, local_ray.token, *ids),
        stdout=subprocess.PIPE,
    )
    try:
        assert controller.stdout is not None
        assert await asyncio.wait_for(controller.stdout.readline(), 60) == b"ready\n"
        folders = [Path(str(sandboxes["run_dir"]), workspace_id) for workspace_id in ids]
        states = [remains.load(str(folder)) for folder in folders]
        running, paused = (cgroups.frozen(state["group"]) for state in states if state is not None)
        assert (running, paused) == ("no", "yes")
        for actor in local_ray.actors():
            actor.kill()
    finally:
        controller.kill()
        await controller.wait()
    for folder, state in zip(folders, states, strict=True):
        assert state is not None
        known = (state["supervisor"], state["bwrap"], state["init"])
        await eventually(lambda folder=folder: not folder.exists())
        await eventually(lambda known=known: not any(map(remains.is_alive, known)))
        for group in state["group"]["folders"].values():
            assert not await anyio.Path(group).exists()
        assert not await anyio.Path(state["disk"]).exists()


async def test_a_real_one_is_paused_and_back_at_once(
    local_ray: Running, cluster: Cluster, sandboxes: dict[str, object]
) -> None:
    if cgroups.find_parents()["kind"] == "none":
        pytest.skip("no control groups here")
    own = Cluster(
        address=local_ray.address,
        namespace=NAMESPACE,
        backends={"bubblewrap": sandboxes},
        strategy="spread",
    )
    workspace_id = new_id()
    located = await own.start(workspace_id, Template(name="sandbox"), ttl_seconds=60)
    desktop = connect(located.endpoint)
    try:
        await own.pause(workspace_id)
        before = (await own.stats(workspace_id)).cpu_seconds
        await asyncio.sleep(0.3)
        assert (await own.stats(workspace_id)).cpu_seconds == before
        began = time.monotonic()
        await own.resume(workspace_id)
        assert (await desktop.run("echo awake")).stdout == "awake\n"
        assert time.monotonic() - began < 15
        await own.pause(workspace_id)
    finally:
        await desktop.aclose()
        await own.stop(workspace_id)
