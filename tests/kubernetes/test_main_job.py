"""The main job through a whole cluster: MCP, controller, Ray's actor, pod, desktopd, Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from ray_cluster.keeper import ACTOR_NAME
from tests.e2e.conftest import Service, start, stop
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.conftest import GONE_SECONDS, IMAGE
from tests.kubernetes.node import KATA, NODE, ToldOf
from tests.kubernetes.rays import TOKEN, ray
from tests.waiting import eventually, until

pytestmark = pytest.mark.anyio
OTHER = "node2"  # one that is only told of
MOST_ACTOR_MIB = 75  # of memory that is its own


@pytest.fixture(scope="module")
def ray_address(cluster: Cluster) -> Iterator[str]:
    with ray({NODE: 4, OTHER: 1}) as address:
        yield address


@pytest.fixture(scope="module")
def settings(cluster: Cluster, ray_address: str) -> dict[str, str]:
    """As the manifests' ConfigMap has them."""
    return {
        "CARREL_RAY_ADDRESS": ray_address,
        "CARREL_RAY_TOKEN": TOKEN,
        "CARREL_CLUSTER": "tests",
        "CARREL_BACKEND": "kata",
        "CARREL_KATA_IMAGE": IMAGE,
        "CARREL_KATA_PULL_POLICY": "Never",
        "CARREL_KATA_KUBECONFIG": cluster.kubeconfig("service"),
        "CARREL_KATA_SECCOMP": "Localhost:carrel-desktop.json",
        "CARREL_KATA_START_SECONDS": "60",
        "CARREL_KATA_CPU_REQUEST": "0.05",
    }


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="c-home-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def service(home: Path, cluster: Cluster, settings: dict[str, str]) -> Iterator[Service]:
    running = start(home, **settings)
    try:
        yield running
    finally:
        stop(running)
    until(lambda: cluster.names("Pod") == [], GONE_SECONDS)


def ask(service: Service, method: str, path: str, **more: Any) -> Any:
    key = {"Authorization": f"Bearer {service.key}"}
    answer = httpx.request(method, service.url + path, headers=key, timeout=90, **more)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def force(cluster: Cluster) -> None:
    """Delete what no kubelet ends."""
    for pod in cluster.objects("Pod"):
        if pod["spec"].get("nodeName") == OTHER:
            where = f"/api/v1/namespaces/carrel-desktops/pods/{pod['metadata']['name']}"
            cluster.admin.delete(where, params={"gracePeriodSeconds": "0"})


def actors() -> list[psutil.Process]:
    return [
        each
        for each in psutil.process_iter(["name"])
        if (each.info["name"] or "").startswith(ACTOR_NAME)
    ]


def test_the_demo_does_the_main_job_over_mcp(service: Service, tmp_path: Path) -> None:
    """A form is filled in and sent in Chromium: the bytes that its server wrote are compared."""
    done = service.carrel("demo", "--json", "--out", str(tmp_path), timeout=150)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["text"] == "Grüße, 世界 🚀"
    assert result["screenshots"], result
    for path in result["screenshots"]:
        with Image.open(path) as picture:
            assert picture.size == (1280, 800)
    assert json.loads(service.carrel("ls", "--json").stdout) == []


def test_where_actors_are_there_are_their_pods(service: Service, cluster: Cluster) -> None:
    """Ray places, and Kubernetes obeys: on each of two nodes, of which one is only told of."""
    told = ToldOf(cluster.admin, OTHER, KATA)
    try:
        wanted = {"template": "light", "wait": False}
        made = [ask(service, "POST", "/v1/workspaces", json=wanted)["id"] for _ in range(5)]

        def where() -> dict[str, str]:
            return {
                pod["metadata"]["labels"]["carrel.dev/node"]: pod["spec"]["nodeName"]
                for pod in cluster.objects("Pod")
                if "nodeName" in pod["spec"]
            }

        # Five places, five claims: each node has some, whichever was told first.
        until(lambda: where() == {NODE: NODE, OTHER: OTHER}, 60)
        until(lambda: len(cluster.objects("Pod")) == 5, 60)
        of_node = [pod["spec"]["nodeName"] for pod in cluster.objects("Pod")]
        assert sorted(of_node) == [NODE] * 4 + [OTHER]
        assert max(each.memory_full_info().uss for each in actors()) < MOST_ACTOR_MIB << 20
        for each in made:
            ask(service, "DELETE", f"/v1/workspaces/{each}")
    finally:
        told.remove()
        force(cluster)


async def test_a_controller_that_is_killed_while_a_pod_starts(
    home: Path, cluster: Cluster, settings: dict[str, str]
) -> None:
    """Between the pod's being made and its being noted as ready: what there is, is what is told."""
    service = start(home, **settings)
    try:
        async with httpx.AsyncClient(timeout=90) as http:
            key = {"Authorization": f"Bearer {service.key}"}
            asking = asyncio.ensure_future(
                http.post(f"{service.url}/v1/workspaces", headers=key, json={"template": "light"})
            )
            await eventually(lambda: cluster.names("Pod"), 60)
            os.kill(service.process.pid, signal.SIGKILL)
            service.process.wait(10)
            with pytest.raises(httpx.TransportError):
                await asking
    finally:
        stop(service)
    service = await asyncio.to_thread(start, home, **settings)
    try:

        def is_settled() -> bool:
            told = ask(service, "GET", "/v1/workspaces")["workspaces"]
            ready = [f"desktop-{each['sandbox']}" for each in told if each["state"] == "ready"]
            return len(ready) == len(told) and cluster.names("Pod") == sorted(ready)

        await eventually(is_settled, 60)
        for each in ask(service, "GET", "/v1/workspaces")["workspaces"]:
            ask(service, "DELETE", f"/v1/workspaces/{each['id']}")
        await eventually(lambda: cluster.names("Pod") == [], GONE_SECONDS)
    finally:
        stop(service)


def test_an_actor_that_is_killed(service: Service, cluster: Cluster) -> None:
    """It is told of, and its pod is deleted."""
    made = ask(service, "POST", "/v1/workspaces", json={"template": "light"})
    assert made["state"] == "ready"
    [actor] = actors()
    actor.kill()
    until(lambda: cluster.names("Pod") == [], GONE_SECONDS)
    until(lambda: ask(service, "GET", f"/v1/workspaces/{made['id']}")["state"] == "failed", 40)


def test_a_pod_that_is_deleted_is_told_of(service: Service, cluster: Cluster) -> None:
    made = ask(service, "POST", "/v1/workspaces", json={"template": "light"})
    cluster.admin.delete(
        f"/api/v1/namespaces/carrel-desktops/pods/desktop-{made['sandbox']}"
    ).raise_for_status()
    until(lambda: ask(service, "GET", f"/v1/workspaces/{made['id']}")["state"] == "failed", 40)
    told = ask(service, "GET", f"/v1/workspaces/{made['id']}")
    assert "Its pod" in json.dumps(told)
