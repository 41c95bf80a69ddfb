"""What is there beside what the cluster owns: found on its node and removed, and never more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ray_cluster import node
from ray_cluster.cluster import Cluster
from tests.ray_cluster.conftest import Running, new_id, template
from workspace.errors import CarrelError, Unavailable

pytestmark = pytest.mark.anyio


async def test_every_actor_is_named_from_before_its_sandbox_until_after(
    cluster: Cluster, local_ray: Running
) -> None:
    slow, hung = new_id(), new_id()
    starting = asyncio.ensure_future(
        cluster.start(slow, template(FAKE_START_SECONDS="2"), ttl_seconds=60)
    )
    await cluster.start(hung, template(), ttl_seconds=60)
    (actor, *_) = [each for each in local_ray.actors()]
    while not (local_ray.desktops / slow).exists():
        assert slow not in set().union(*(await cluster.left()).values())
        await asyncio.sleep(0.01)
    assert await cluster.names() == {slow, hung}
    assert await cluster.left() == {}
    await starting
    actor.suspend()
    try:
        assert await cluster.names() == {slow, hung}
    finally:
        actor.resume()
    for each in (slow, hung):
        await cluster.stop(each)
    assert await cluster.names() == set()


async def test_what_no_actor_owns_is_found_on_its_node_and_removed(
    cluster: Cluster, local_ray: Running
) -> None:
    mine, left = new_id(), new_id()
    located = await cluster.start(mine, template(), ttl_seconds=60)
    (local_ray.desktops / left).mkdir()
    assert await cluster.left() == {located.node: {left}}
    await cluster.clear(located.node, {left})
    await cluster.clear(located.node, {left})  # already gone is success
    assert await cluster.left() == {}
    assert (local_ray.desktops / mine).exists()
    with pytest.raises(Unavailable):
        await cluster.clear("f" * 56, {left})


async def test_another_namespaces_desktops_are_not_taken_for_strays(
    cluster: Cluster, local_ray: Running
) -> None:
    other = Cluster(
        address=local_ray.address,
        namespace="others",
        backends=local_ray.backends,
        strategy="spread",
    )
    theirs = new_id()
    await other.start(theirs, template(), ttl_seconds=60)
    try:
        assert theirs not in await cluster.names()
        assert await cluster.left() == {}
    finally:
        await other.stop(theirs)


async def test_a_node_tells_of_its_memory(cluster: Cluster) -> None:
    (own,) = await cluster.nodes()
    assert own.since is not None
    assert own.cpus
    assert 0 < (own.memory_free_mib or 0) <= (own.memory_mib or 0)


def test_a_limit_of_a_control_group_counts_as_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_limits", lambda: iter([(512 << 20, 200 << 20), (1 << 62, 5 << 20)]))
    told = node.machine()
    assert (told["memory_mib"], told["memory_free_mib"]) == (512, 312)


def test_what_cannot_be_ended_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workspace.backends.fake import FakeBackend

    async def stays(self: FakeBackend, sandbox: str) -> None:
        if sandbox == "stays":
            raise CarrelError("It does not die.")

    monkeypatch.setattr(FakeBackend, "stop", stays)
    told = node.ask({"fake": {"folder": str(tmp_path)}}, ["stays", "goes"])
    assert told["failed"] == {"stays": "It does not die."}


def test_a_backend_that_cannot_be_asked_hides_nothing_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    fake, pods = {"folder": str(tmp_path)}, {"run_dir": "/" + "x" * 200, "options": {"image": "x"}}
    broken = {**pods, "cluster": "x", "place": {}}  # its socket's path is too long
    told = node.ask({"kata": broken, "fake": fake}, [])
    assert told["sandboxes"] == ["left"]
    with pytest.raises(Unavailable, match="too long"):
        node.ask({"kata": broken}, [])
