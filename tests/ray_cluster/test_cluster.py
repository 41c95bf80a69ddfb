"""Desktops on a real Ray, with the fake backend: every way a desktop can begin and end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import anyio
import psutil
import pytest

from ray_cluster.cluster import Cluster
from tests.ray_cluster.conftest import NAMESPACE, SLOTS, Running, new_id, template
from tests.waiting import until
from workspace.desktop import connect
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    DiskFull,
    NoCapacity,
    StartFailed,
    Unavailable,
    WorkspaceNotFound,
)
from workspace.models import Template

pytestmark = pytest.mark.anyio


def leaves_nothing(local_ray: Running, workspace_id: str) -> bool:
    return not (local_ray.desktops / workspace_id).exists()


async def test_it_is_ready_when_start_returns_and_gone_when_stop_does(
    cluster: Cluster, local_ray: Running
) -> None:
    workspace_id = new_id()
    placed = asyncio.Event()
    located = await cluster.start(workspace_id, template(), ttl_seconds=60, placed=placed.set)
    assert placed.is_set()
    assert located.workspace_id == workspace_id
    assert located.endpoint.url.startswith("unix:///")
    assert located.endpoint.token not in repr(located)
    desktop = connect(located.endpoint)
    try:
        assert (await desktop.health()).ready
        assert (await desktop.click(10, 20)).cursor == (10, 20)
    finally:
        await desktop.aclose()
    assert (await cluster.stats(workspace_id)).pids == 0
    (node,) = await cluster.nodes()
    assert node.id == located.node
    assert node.slots == SLOTS

    ended = asyncio.ensure_future(cluster.ended(workspace_id))
    await cluster.stop(workspace_id)
    assert (await ended).code == "released"
    assert leaves_nothing(local_ray, workspace_id)
    assert workspace_id not in await cluster.find()
    await cluster.stop(workspace_id)  # already gone is success


async def test_a_desktop_that_nobody_knows(cluster: Cluster) -> None:
    assert (await cluster.ended("nosuchdesktop")).code == "node_lost"
    with pytest.raises(WorkspaceNotFound):
        await cluster.extend("nosuchdesktop", 5)
    with pytest.raises(WorkspaceNotFound):
        await cluster.stats("nosuchdesktop")


async def test_the_actor_is_small_and_its_children_are_not_disfavoured(
    cluster: Cluster, local_ray: Running
) -> None:
    await cluster.start(new_id(), template(), ttl_seconds=60)
    (actor,) = local_ray.actors()
    assert actor.memory_full_info().uss < 65e6
    assert actor.nice() == 0
    assert await anyio.Path(f"/proc/{actor.pid}/oom_score_adj").read_text() == "0\n"
    assert not any(local_ray.token in value for value in actor.environ().values())


async def test_its_deadline_ends_it_and_can_be_moved(cluster: Cluster, local_ray: Running) -> None:
    workspace_id = new_id()
    began = time.monotonic()
    await cluster.start(workspace_id, template(), ttl_seconds=3)
    ended = asyncio.ensure_future(cluster.ended(workspace_id))
    await cluster.extend(workspace_id, 4)
    await asyncio.wait([ended], timeout=3 - (time.monotonic() - began))
    assert not ended.done()
    assert (await asyncio.wait_for(ended, 20)).code == "deadline_passed"
    assert leaves_nothing(local_ray, workspace_id)


async def test_it_ends_by_itself_when_nobody_watches(cluster: Cluster, local_ray: Running) -> None:
    await cluster.start(new_id(), template(), ttl_seconds=1)
    (actor,) = local_ray.actors()
    await asyncio.to_thread(until, lambda: not actor.is_running(), 15)


async def test_a_sandbox_that_dies_ends_its_desktop(cluster: Cluster, local_ray: Running) -> None:
    workspace_id = new_id()
    await cluster.start(workspace_id, template(FAKE_DIE_SECONDS="0.2"), ttl_seconds=60)
    ended = await asyncio.wait_for(cluster.ended(workspace_id), 20)
    assert ended.code == "desktop_lost"
    assert ended.message == "The fake sandbox ended by itself."
    assert leaves_nothing(local_ray, workspace_id)


async def test_an_actor_that_is_killed_is_told_of_and_leaves_nothing(
    cluster: Cluster, local_ray: Running
) -> None:
    workspace_id = new_id()
    await cluster.start(workspace_id, template(), ttl_seconds=60)
    ended = asyncio.ensure_future(cluster.ended(workspace_id))
    (actor,) = local_ray.actors()
    actor.kill()
    assert (await asyncio.wait_for(ended, 15)).code == "node_lost"
    await asyncio.to_thread(until, lambda: leaves_nothing(local_ray, workspace_id), 20)
    assert workspace_id not in await cluster.find()


async def test_an_actor_told_to_end_stops_its_sandbox_first(
    cluster: Cluster, local_ray: Running
) -> None:
    workspace_id = new_id()
    await cluster.start(workspace_id, template(FAKE_STOP_SECONDS="0.5"), ttl_seconds=60)
    (actor,) = local_ray.actors()
    (guard,) = actor.children()
    watching = asyncio.ensure_future(cluster.ended(workspace_id))
    await asyncio.to_thread(until, lambda: "DesktopActor.ended" in actor.cmdline()[0], 20)
    watching.cancel()  # and with it the call in the actor, which Ray would wait for
    await asyncio.wait([watching])
    await asyncio.to_thread(until, lambda: "DesktopActor.ended" not in actor.cmdline()[0], 20)
    actor.terminate()
    took = await asyncio.to_thread(until, lambda: not guard.is_running(), 20)
    assert took > 0.4  # not killed with its actor: stopped, as slowly as it does
    await asyncio.to_thread(until, lambda: not actor.is_running(), 20)
    assert leaves_nothing(local_ray, workspace_id)


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({"FAKE_START_ERROR": "no display"}, StartFailed),
        ({"FAKE_START_ERROR": "disk full", "FAKE_START_ERROR_CODE": "disk_full"}, DiskFull),
        (
            {"FAKE_START_ERROR": "no bwrap", "FAKE_START_ERROR_CODE": "backend_unavailable"},
            BackendUnavailable,
        ),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(
    cluster: Cluster, local_ray: Running, environment: dict[str, str], error: type[CarrelError]
) -> None:
    workspace_id = new_id()
    with pytest.raises(error, match=environment["FAKE_START_ERROR"]):
        await cluster.start(workspace_id, template(**environment), ttl_seconds=60)
    assert leaves_nothing(local_ray, workspace_id)
    await asyncio.to_thread(until, lambda: local_ray.actors() == [], 20)


async def test_a_start_that_takes_too_long_or_is_cancelled_leaves_nothing(
    cluster: Cluster, local_ray: Running
) -> None:
    slow = template(FAKE_START_SECONDS="30")
    with pytest.raises(StartFailed, match="2 seconds"):
        await cluster.start(new_id(), slow, ttl_seconds=60, timeout_seconds=2)
    await asyncio.to_thread(until, lambda: local_ray.actors() == [], 20)

    starting = asyncio.ensure_future(cluster.start(new_id(), slow, ttl_seconds=60))
    await asyncio.to_thread(until, lambda: bool(local_ray.actors()), 20)
    assert await cluster.find() == {}  # at once: it is not ready
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.to_thread(until, lambda: local_ray.actors() == [], 20)
    assert list(local_ray.desktops.glob("*")) == []


async def test_a_backend_that_the_cluster_lacks(cluster: Cluster) -> None:
    with pytest.raises(BackendUnavailable, match="kata"):
        await cluster.start(new_id(), Template(name="t", backend="kata"), ttl_seconds=60)


async def test_one_too_many_is_refused_at_once_and_no_place_is_given_twice(
    cluster: Cluster,
) -> None:
    starts = [
        asyncio.ensure_future(cluster.start(new_id(), template(), ttl_seconds=60))
        for _ in range(SLOTS + 2)
    ]
    done = await asyncio.gather(*starts, return_exceptions=True)
    refused = [answer for answer in done if isinstance(answer, NoCapacity)]
    assert len(refused) == 2
    assert len(await cluster.find()) == SLOTS
    began, placed = time.monotonic(), asyncio.Event()
    with pytest.raises(NoCapacity, match=f"All {SLOTS} places"):
        await cluster.start(new_id(), template(), ttl_seconds=60, placed=placed.set)
    assert not placed.is_set()
    assert time.monotonic() - began < 2


_DRIVER = """
import asyncio, sys
from ray_cluster.cluster import Cluster
from workspace.models import Template
folder, address, token, *ids = sys.argv[1:]
async def main(cluster):
    for workspace_id in ids:
        template = Template(name="fake", backend="fake")
        located = await cluster.start(workspace_id, template, ttl_seconds=60)
        print(located.endpoint.url, located.endpoint.token, flush=True)
    await asyncio.sleep(60)
asyncio.run(main(Cluster.connect(
    address=address, token=token, namespace="tests", backends={"fake": {"folder": folder}})))
"""


async def test_a_new_driver_finds_the_desktops_of_one_that_was_killed(
    cluster: Cluster, local_ray: Running
) -> None:
    assert NAMESPACE == "tests"
    ids = [new_id(), new_id()]
    command = [sys.executable, "-c", _DRIVER, str(local_ray.desktops)]
    driver = await asyncio.create_subprocess_exec(
        *command, local_ray.address, local_ray.token, *ids, stdout=subprocess.PIPE
    )
    assert driver.stdout is not None
    lines = [(await driver.stdout.readline()).decode() for _ in ids]
    driver.kill()
    await driver.wait()
    found = await cluster.find()
    assert set(found) == set(ids)
    for workspace_id, line in zip(ids, lines, strict=True):
        endpoint = found[workspace_id].endpoint
        assert f"{endpoint.url} {endpoint.token}\n" == line
        desktop = connect(endpoint)
        assert (await desktop.health()).ready
        await desktop.aclose()


def listens_on(process: psutil.Process) -> list[str]:
    """The addresses; none if it ends meanwhile, as what Ray starts for a moment does."""
    try:
        sockets = process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return []
    return [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]


async def test_everything_listens_on_loopback_only(cluster: Cluster, local_ray: Running) -> None:
    await cluster.start(new_id(), template(), ttl_seconds=60)
    ours = [psutil.Process(), local_ray.keeper, *local_ray.keeper.children(recursive=True)]
    listening = [address for process in ours for address in listens_on(process)]
    assert len(listening) >= 5  # the head, the raylet, the actor, this driver
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_ray_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        Cluster.connect(address="127.0.0.1:9", token="t", backends={})
