"""Desktops on a real Ray whose backend is Kubernetes: an API in memory, and its pods."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from ray_cluster.cluster import Cluster
from tests.kubernetes_api import NODE, KubernetesApi, run_desktop
from tests.ray_cluster.conftest import NAMESPACE, Running, new_id
from workspace.backends.base import Mount
from workspace.desktop import connect
from workspace.errors import CarrelError, Unsupported
from workspace.models import Template

pytestmark = pytest.mark.anyio
MIB = 1 << 20
MOST_MIB = 75  # of memory that is an actor's own
PODS = Template(name="pods", backend="kata")


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApi]:
    api = KubernetesApi(run_desktop)
    await api.start()
    yield api
    await api.stop()
    assert api.errors == []


@pytest.fixture
async def cluster(local_ray: Running, api: KubernetesApi) -> AsyncIterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ck-"))
    settings = {
        "run_dir": str(folder),
        "options": {"image": "x", "kubeconfig": api.kubeconfig(folder)},
        "cluster": "test",
        "place": {"node": NODE, "pod_ip": "127.0.0.1"},
        "agent_seconds": (0.5, 0.5),
    }
    kinds = ("run", "disk", "volume")  # of a controller that has both backends
    folders = {f"{kind}_dir": str(folder / kind) for kind in kinds}
    cluster = Cluster(
        address=local_ray.address,
        namespace=NAMESPACE,
        backends={"kata": settings, "bubblewrap": folders},
        strategy="spread",
    )
    yield cluster
    for workspace_id in await cluster.find():
        await cluster.stop(workspace_id)
    await until(lambda: not list(folder.glob("*.sock*")))  # the agent has ended
    shutil.rmtree(folder)
    assert [name for kind, _, name in api.objects if kind in ("pods", "networkpolicies")] == []


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """On this loop, which serves the API."""
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come about")


async def test_a_desktop_is_a_pod_on_its_actors_node(
    cluster: Cluster, api: KubernetesApi, local_ray: Running
) -> None:
    workspace_id = new_id()
    located = await cluster.start(workspace_id, PODS, ttl_seconds=60)
    pod = api.get("pods", f"desktop-{workspace_id}")
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"][0]["values"] == [NODE]
    assert located.endpoint.url == f"http://{pod['status']['podIP']}:7000"
    desktop = connect(located.endpoint)
    assert (await desktop.click(10, 20)).cursor == (10, 20)
    await desktop.aclose()
    assert (await cluster.egress(workspace_id)).allowed == 0
    with pytest.raises(Unsupported):
        await cluster.pause(workspace_id)
    [actor] = local_ray.actors()
    assert actor.memory_full_info().uss < MOST_MIB * MIB

    ended = asyncio.ensure_future(cluster.ended(workspace_id))
    await cluster.stop(workspace_id)
    assert (await ended).code == "released"
    assert sum(api.writes().values()) == 5


async def test_a_pod_that_ends_is_told_of(cluster: Cluster, api: KubernetesApi) -> None:
    workspace_id = new_id()
    await cluster.start(workspace_id, PODS, ttl_seconds=60)
    ended = asyncio.ensure_future(cluster.ended(workspace_id))
    pod = api.get("pods", f"desktop-{workspace_id}")
    api.status(pod, phase="Failed", reason="Evicted", message="disk pressure")
    reason = await asyncio.wait_for(ended, 20)
    assert reason.code == "desktop_lost"
    assert "disk pressure" in reason.message
    await until(lambda: not api.names("pods"))


async def test_an_actor_that_is_killed_takes_its_pod_along(
    cluster: Cluster, api: KubernetesApi, local_ray: Running
) -> None:
    workspace_id = new_id()
    await cluster.start(workspace_id, PODS, ttl_seconds=60)
    [actor] = local_ray.actors()
    psutil.Process(actor.pid).kill()
    await until(lambda: not api.names("networkpolicies"))


async def test_strays_are_found_and_removed(cluster: Cluster, api: KubernetesApi) -> None:
    """What a controller and an actor that are gone have left: no pod, only what owns it."""
    labels = {"carrel.dev/sandbox": "strayed0", "carrel.dev/cluster": "test"}
    for name in ("pods", "networkpolicies"):
        made = {"metadata": {"name": "desktop-strayed0", "labels": labels}, "spec": {}}
        api.put(name, made, "carrel-desktops")
    left = await cluster.left()
    assert list(left.values()) == [{"strayed0"}]
    await cluster.clear(next(iter(left)), {"strayed0"})
    assert await cluster.left() == {}


async def test_a_volume_is_removed_with_its_claim(cluster: Cluster, api: KubernetesApi) -> None:
    workspace_id, volume = new_id(), new_id()
    located = await cluster.start(
        workspace_id, PODS, ttl_seconds=60, volume=Mount(id=volume, is_new=True)
    )
    with pytest.raises(CarrelError):
        await cluster.volumes.remove(volume, node=located.node_name)
    await cluster.stop(workspace_id)
    assert api.names("persistentvolumeclaims") == [f"volume-{volume}"]
    await cluster.volumes.remove(volume, node=located.node_name)
    assert api.names("persistentvolumeclaims") == []
