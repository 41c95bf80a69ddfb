"""A node dies, another one hangs: what becomes of their desktops. Run in namespaces of its own."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from pathlib import Path

import psutil

from ray_cluster.cluster import Cluster
from tests.ray_cluster.two_nodes import HEAD, NODE, OTHER, TOKEN, raise_loopback, start
from workspace.desktop import connect
from workspace.models import Template

TEMPLATE = Template(name="fake", backend="fake")
# What makes Ray notice a node that hangs in seconds; by default that takes a minute.
LOOKING = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    # Else it kills those who clean up behind an actor.
    "RAY_kill_child_processes_on_worker_exit": "false",
}


def raylet(address: str) -> psutil.Process:
    """The one of the node with that address."""
    for process in psutil.process_iter(["name", "cmdline"]):
        command = process.info["cmdline"] or []
        if process.info["name"] == "raylet" and f"--node_ip_address={address}" in command:
            return process
    raise AssertionError(f"no raylet of {address}")


async def told_ended(cluster: Cluster, workspace_id: str) -> None:
    began = time.monotonic()
    ended = await asyncio.wait_for(cluster.ended(workspace_id), 60)
    print("ended", ended.code, time.monotonic() - began < 30)


async def run(cluster: Cluster) -> None:
    nodes = {node.slots: node.id for node in await cluster.nodes()}
    dies, hangs = nodes[2], nodes[3]
    one = await cluster.start("a2345678", TEMPLATE, ttl_seconds=120, avoid={hangs})
    two = await cluster.start("b2345678", TEMPLATE, ttl_seconds=120, avoid={dies})
    print("placed", one.node == dies, two.node == hangs)

    raylet(NODE).kill()
    await told_ended(cluster, "a2345678")
    three = await cluster.start("c2345678", TEMPLATE, ttl_seconds=120)
    print("the next is elsewhere", three.node == hangs)

    hung = raylet(OTHER)
    hung.send_signal(signal.SIGSTOP)
    desktop = connect(two.endpoint)
    print("answers all the same", (await desktop.health()).ready)
    await desktop.aclose()
    await told_ended(cluster, "b2345678")
    try:
        await cluster.start("d2345678", TEMPLATE, ttl_seconds=120, timeout_seconds=20)
    except Exception as error:  # which one, is printed
        print("with no node left", type(error).__name__)
    hung.send_signal(signal.SIGCONT)


def main() -> None:
    raise_loopback()
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        head = ["--head", "--port=6400", f"--node-ip-address={HEAD}"]
        start(folder, "h", *head, **LOOKING)
        for name, address, slots in (("n", NODE, 2), ("o", OTHER, 3)):
            joining = [f"--address={HEAD}:6400", f"--node-ip-address={address}"]
            start(folder, name, *joining, f'--resources={{"desktop": {slots}}}', **LOOKING)
        desktops = folder / "desktops"
        cluster = Cluster.connect(
            address=f"{HEAD}:6400", token=TOKEN, backends={"fake": {"folder": str(desktops)}}
        )
        asyncio.run(run(cluster))
        deadline = time.monotonic() + 30
        while (left := list(desktops.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.05)
        print("left", [each.name for each in left])
        cluster.close()


if __name__ == "__main__":
    main()
