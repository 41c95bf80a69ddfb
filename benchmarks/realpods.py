"""What a desktop takes on a real cluster, beside what its pod takes by itself.

``python -m benchmarks.realpods`` starts the Kubernetes that `make test-kubernetes` tests with: a
control plane, containerd, runc and a kubelet on this machine. No virtual machine is in these
numbers. "By hand" is the very same objects made by one script that watches that one pod and asks
its desktop all the time: what the backend adds to it is its overhead. Beside them a pod of a
program that does nothing, which is all that a kubelet takes for one.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.pods import ASKED_IDLE, ASKED_MS, ASKED_WRITES, Measured, tell
from tests.images.desktop import desktop_archive
from tests.kubernetes.audit import Audit
from tests.kubernetes.cluster import DESKTOPS, Cluster, path, running
from tests.kubernetes.conftest import IMAGE, PLACE
from tests.kubernetes.images import PAUSE
from tests.kubernetes.namespaces import own_network
from workspace.backends import manifests
from workspace.backends.kata import KataBackend
from workspace.backends.kube import reaching
from workspace.backends.kube.options import Options, Place
from workspace.desktopd.config import config_for
from workspace.models import Template

MANY, IDLE_SECONDS = 12, 30.0
ASKED_START = 3.0
TEMPLATE = Template(name="bench", backend="kata", session="openbox", memory_mib=1024)
OPTIONS: dict[str, Any] = {
    "image": IMAGE,
    "pull_policy": "Never",
    "seccomp": "Localhost:carrel-desktop.json",
}


async def measure(cluster: Cluster) -> list[Measured]:
    audit = Audit(cluster.control.audit_log)
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        backend = KataBackend(
            folder,
            OPTIONS | {"kubeconfig": cluster.kubeconfig("bench")},
            "bench",
            place=PLACE,
            agent_seconds=(0.5, 0.5),
        )
        await backend.list()  # its agent runs
        plain, hand, starts, stops = [], [], [], []
        await _one(backend)  # once for nothing
        mark = audit.mark()
        for _ in range(MANY):  # in turn: the machine is as busy for each
            plain.append(await asyncio.to_thread(_plain, cluster))
            hand.append(await asyncio.to_thread(_by_hand, cluster))
            start, stop = await _one(backend)
            starts.append(start)
            stops.append(stop)
        writes = len(audit.writes_since(mark)) / MANY
        workspace_id = secrets.token_hex(5)
        await backend.start(workspace_id, TEMPLATE)
        mark = audit.mark()
        await asyncio.sleep(IDLE_SECONDS)
        idle = len(audit.since(mark)) * 60 / IDLE_SECONDS
        await backend.stop(workspace_id)
        await backend.aclose()
        await asyncio.sleep(2)  # the agent ends
    ours, theirs = statistics.median(starts), statistics.median(hand)
    return [
        Measured("a pod that does nothing, to Ready", "s", statistics.median(plain)),
        Measured("a desktop's pod by hand, to settled", "s", theirs),
        Measured("a desktop, to settled", "s", ours, ASKED_START),
        Measured("the slowest of them", "s", max(starts)),
        Measured("of which the backend's own", "ms", (ours - theirs) * 1000, ASKED_MS),
        Measured("its end, until the pod is gone", "s", statistics.median(stops)),
        Measured("writes of a desktop", "requests", writes, ASKED_WRITES),
        Measured("a desktop that lives", "requests a minute", idle, ASKED_IDLE),
    ]


async def _one(backend: KataBackend) -> tuple[float, float]:
    workspace_id = secrets.token_hex(5)
    began = time.monotonic()
    await backend.start(workspace_id, TEMPLATE)
    started = time.monotonic()
    await backend.stop(workspace_id)
    return started - began, time.monotonic() - started


def _plain(cluster: Cluster) -> float:
    """One container of one program, as confined as a desktop."""
    name = f"plain-{secrets.token_hex(4)}"
    place = Place.model_validate(PLACE)
    spec = manifests.probe_pod(name, Options.model_validate(OPTIONS), place, "")
    [container] = spec["spec"]["containers"]
    container |= {"image": PAUSE, "command": ["/pause", "-P"]}
    began = time.monotonic()
    cluster.admin.post(path("v1", "Pod", DESKTOPS), json=spec).raise_for_status()
    _until(cluster, name, "Ready")
    took = time.monotonic() - began
    _delete(cluster, path("v1", "Pod", DESKTOPS, name))
    return took


def _by_hand(cluster: Cluster) -> float:
    options, place = Options.model_validate(OPTIONS), Place.model_validate(PLACE)
    wanted = manifests.Sandbox(secrets.token_hex(5), TEMPLATE, "by-hand", start="by-hand")
    token = secrets.token_urlsafe(32)
    config = config_for(TEMPLATE, token=token, defaults={}, start_seconds=60)
    out = manifests.WayOut()
    began = time.monotonic()
    policy = manifests.network_policy(wanted, options, place, out)
    where = path("networking.k8s.io/v1", "NetworkPolicy", DESKTOPS)
    made = cluster.admin.post(where, json=policy).raise_for_status().json()
    metadata = made["metadata"]
    owner = manifests.owner(made["apiVersion"], made["kind"], metadata["name"], metadata["uid"])
    secret = manifests.secret(wanted, options, place, config.model_dump_json(), out, owner)
    cluster.admin.post(path("v1", "Secret", DESKTOPS), json=secret).raise_for_status()
    pod = manifests.pod(wanted, options, place, out, owner)
    cluster.admin.post(path("v1", "Pod", DESKTOPS), json=pod).raise_for_status()
    name = manifests.name_of(wanted.id)
    address = _until(cluster, name, "Running")
    while True:
        try:
            if asyncio.run(reaching.health(address, options.port, token)) == 200:
                break
        except (OSError, ValueError):
            pass
    took = time.monotonic() - began
    _delete(cluster, path("v1", "Pod", DESKTOPS, name))
    _delete(cluster, f"{where}/{metadata['name']}")
    return took


def _until(cluster: Cluster, name: str, what: str) -> str:
    """The address of a pod once its desktop runs, or it is Ready."""
    while True:
        status = cluster.get("Pod", name)["status"]
        conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
        states = [each["state"] for each in status.get("containerStatuses") or ()]
        is_it = conditions.get(what) == "True" or (
            what == "Running" and any("running" in state for state in states)
        )
        if is_it and status.get("podIP"):
            return str(status["podIP"])
        time.sleep(0.005)


def _delete(cluster: Cluster, where: str) -> None:
    cluster.admin.request("DELETE", where, json=manifests.DELETE_OPTIONS).raise_for_status()
    while cluster.admin.get(where).status_code == 200:
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    archive: Path = desktop_archive()
    with own_network(), running() as cluster:
        cluster.node.import_image(archive)
        found = asyncio.run(measure(cluster))
    tell(found, as_json=arguments.json)


if __name__ == "__main__":
    main()
