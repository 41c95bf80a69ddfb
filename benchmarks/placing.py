"""A hundred desktops over four nodes, beside actors that Ray spreads by itself.

``python -m benchmarks.placing`` starts a head and four nodes, each a host of its own in network
namespaces on this machine, and places on them in turn: actors of plain Ray (``SPREAD``, empty
classes), and desktops of the fake backend through Carrel. What is measured is placing and the
starts of the actors; no sandbox is in it. Then nodes are killed, stopped and cut off, and it is
told after how long that was seen. Root.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.report import tell
from benchmarks.rows import Measured
from ray_cluster.cluster import Cluster
from ray_cluster.keeper import ACTOR_NAME
from tests.ray_cluster import hosts
from tests.ray_cluster.hosts import PORT, TOKEN, Host
from workspace.models import Template

MANY, NODES, SLOTS = 100, 4, 30
OURS, PLAIN = "Carrel", "Ray alone, SPREAD"
TEMPLATE = Template(name="fake", backend="fake")


class Empty:
    """What plain Ray starts."""

    def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())


async def ours(cluster: Cluster, many: int, took: list[float]) -> list[str]:
    """The node of each; when each was ready, in ``took``."""
    began = time.monotonic()

    async def one(name: str) -> str:
        found = await cluster.start(name, TEMPLATE, ttl_seconds=900, timeout_seconds=300)
        took.append(time.monotonic() - began)
        return found.node

    return await asyncio.gather(*(one(f"d{number:07d}") for number in range(many)))


async def plain(many: int, took: list[float]) -> list[str]:
    import ray

    began = time.monotonic()
    cls: Any = ray.remote(num_cpus=0, resources={"desktop": 1})(Empty)  # Any: Ray's own
    made = [cls.options(scheduling_strategy="SPREAD").remote() for _ in range(many)]

    async def one(handle: Any) -> str:  # Any: as above
        node = str(await handle.node.remote())
        took.append(time.monotonic() - began)
        return node

    found = await asyncio.gather(*map(one, made))
    for handle in made:
        ray.kill(handle)
    return found


async def measure(address: str, desktops: Path, nodes: list[Host], many: int, rounds: int) -> Any:
    cluster = Cluster(
        address=address,
        namespace="carrel",
        backends={"fake": {"folder": str(desktops)}},
        strategy="spread",
    )
    found: list[Measured] = []
    whole: dict[str, list[float]] = {OURS: [], PLAIN: []}
    spread: dict[str, list[float]] = {OURS: [], PLAIN: []}
    uss: list[float] = []
    await ours(cluster, 4, [])  # whatever is loaded for the first time
    await _empty(cluster)
    for turn in range(rounds):
        for who in (PLAIN, OURS) if turn % 2 == 0 else (OURS, PLAIN):
            took: list[float] = []
            where = await (plain(many, took) if who == PLAIN else ours(cluster, many, took))
            whole[who].append(max(took))
            each = Counter(where).values()
            spread[who].append(float(max(each) - min(each) if len(each) == NODES else max(each)))
            if who == OURS:
                uss += _uss(nodes)
                await _empty(cluster)
            print(f"{who}: {max(took):.1f} s, {sorted(each)}", file=sys.stderr)
    for who in (OURS, PLAIN):
        task = f"{many} over {NODES} nodes, until the last is ready"
        found.append(Measured(task, who, "s", tuple(whole[who])))
    for who in (OURS, PLAIN):
        task = "the fullest node has more than the emptiest"
        found.append(Measured(task, who, "desktops", tuple(spread[who])))
    found.append(Measured("memory of an actor (USS), fake backend", OURS, "MB", tuple(uss)))
    for host, how in zip(nodes, ("killed", "stopped", "cut off"), strict=False):
        seconds = await _until_dead(cluster, host, how)
        found.append(Measured(f"a node is {how}, until it is dead", OURS, "s", (seconds,)))
    return found


async def _until_dead(cluster: Cluster, host: Host, how: str) -> float:
    began = time.monotonic()
    if how == "cut off":
        host.cut()
    else:
        host.tell("raylet", signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    is_alive = True
    while is_alive:
        nodes = await cluster.nodes()
        is_alive = any(node.alive and node.name == host.name for node in nodes)
    return time.monotonic() - began


async def _empty(cluster: Cluster) -> None:
    await asyncio.gather(*(cluster.stop(name) for name in await cluster.names()))


def _uss(nodes: list[Host]) -> list[float]:
    return [
        process.memory_full_info().uss / 1e6 for host in nodes for process in host.named(ACTOR_NAME)
    ]


def run(many: int, rounds: int, *, as_json: bool) -> None:
    with (
        hosts.bridge(),
        tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as name,
    ):
        folder = Path(name)
        head = Host("head", 2, folder)
        nodes = [Host(f"n{number}", 3 + number, folder) for number in range(NODES)]
        hosts.head(head)
        head.until_up()
        for host in nodes:
            hosts.node(host, head, f"--desktops={SLOTS}")
        with hosts.own_node(folder, head):
            for host in nodes:
                host.until_up()
            hosts.until_joined(folder)
            address = f"{head.address}:{PORT}"
            Cluster.connect(address=address, token=TOKEN, backends={})
            found = asyncio.run(measure(address, folder / "d", nodes, many, rounds))
        for host in (head, *nodes):
            host.off()
    tell(found, as_json=as_json)


def main() -> None:
    parser = argparse.ArgumentParser(prog="placing", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return run(given.many, given.rounds, as_json=given.json)
    namespaces = ["-n", "-p", "-f", "--mount-proc", "--kill-child"]
    command = [sys.executable, "-m", "benchmarks.placing", "--inside", *sys.argv[1:]]
    raise SystemExit(subprocess.run(["unshare", *namespaces, *command], check=False).returncode)


if __name__ == "__main__":
    main()
