"""A hundred desktops over four nodes, beside actors that Ray spreads by itself.

``python -m benchmarks.placing`` starts a head and four nodes, each a host of its own in network
namespaces on this machine, and places on them: actors of plain Ray (``SPREAD``, empty classes), on
nodes as ``ray start`` makes them and on Carrel's, whose workers are forked; and desktops of the
fake backend through Carrel. What is measured is placing and the starts of the actors; no sandbox is
in it. Then nodes are killed, stopped and cut off, and it is told after how long that was seen.
Root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.report import tell
from benchmarks.rows import Measured
from ray_cluster import joining
from ray_cluster.cluster import Cluster
from ray_cluster.keeper import ACTOR_NAME
from tests.ray_cluster import hosts
from tests.ray_cluster.hosts import PORT, TOKEN, Host
from workspace.models import Template

MANY, NODES, SLOTS = 100, 4, 30
OURS, PLAIN, FORKED = "Carrel", "Ray alone, SPREAD", "Ray alone, SPREAD, on Carrel's nodes"
LAST, UNEVEN = "until the last is ready", "the fullest node has more than the emptiest"
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


async def measure_plain(many: int) -> list[Measured]:
    """On nodes as `ray start` makes them."""
    return _placed(PLAIN, *await _timed_plain(many))


async def measure(address: str, desktops: Path, nodes: list[Host], many: int) -> list[Measured]:
    """On nodes as `carrel ray node` makes them; of the last one there is no more afterwards."""
    cluster = Cluster(
        address=address,
        namespace="carrel",
        backends={"fake": {"folder": str(desktops)}},
        strategy="spread",
    )
    await ours(cluster, 4, [])  # whatever is loaded for the first time
    await _empty(cluster)
    took: list[float] = []
    found = _placed(OURS, await ours(cluster, many, took), took)
    uss = tuple(_uss(nodes))
    found.append(Measured("memory of an actor (USS), fake backend", OURS, "MB", uss))
    await _empty(cluster)
    found += _placed(FORKED, *await _timed_plain(many))
    for host, how in zip(nodes, ("killed", "stopped", "cut off"), strict=False):
        seconds = await _until_dead(cluster, host, how)
        found.append(Measured(f"a node is {how}, until it is dead", OURS, "s", (seconds,)))
    return found


async def _timed_plain(many: int) -> tuple[list[str], list[float]]:
    took: list[float] = []
    return await plain(many, took), took


def _placed(who: str, where: list[str], took: list[float]) -> list[Measured]:
    each = Counter(where).values()
    uneven = max(each) - (min(each) if len(each) == NODES else 0)
    print(f"{who}: {max(took):.1f} s, {sorted(each)}", file=sys.stderr)
    task = f"{len(where)} over {NODES} nodes, {LAST}"
    return [
        Measured(task, who, "s", (max(took),)),
        Measured(UNEVEN, who, "desktops", (float(uneven),)),
    ]


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


def inside(who: str, many: int) -> list[Measured]:
    """In namespaces of our own, with nodes of that kind."""
    with (
        hosts.bridge(),
        tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as name,
    ):
        folder = Path(name)
        head = Host("head", 2, folder)
        nodes = [Host(f"n{number}", 3 + number, folder) for number in range(NODES)]
        # Nodes that start 25 interpreters at once are too slow for a head that asks that soon.
        hosts.head(head, **(joining.PATIENT if who == PLAIN else {}))
        head.until_up()
        for host in nodes:
            if who == PLAIN:
                hosts.plain_node(host, head, SLOTS)
            else:
                hosts.node(host, head, f"--desktops={SLOTS}")
        with hosts.own_node(folder, head):
            for host in nodes:
                host.until_up()
            hosts.until_joined(folder)
            address = f"{head.address}:{PORT}"
            Cluster.connect(address=address, token=TOKEN, backends={})
            measuring = (
                measure_plain(many) if who == PLAIN else measure(address, folder / "d", nodes, many)
            )
            found = asyncio.run(measuring)
        for host in (head, *nodes):
            host.off()
    return found


def run(many: int, rounds: int) -> list[Measured]:
    """Both kinds of nodes in turn, none beside the other."""
    namespaces = ["-n", "-p", "-f", "--mount-proc", "--kill-child"]
    command = [sys.executable, "-m", "benchmarks.placing", f"--many={many}", "--inside"]
    found: dict[tuple[str, str], Measured] = {}
    for turn in range(rounds):
        for who in (PLAIN, OURS) if turn % 2 == 0 else (OURS, PLAIN):
            # Ray's library ends with an error, as the node it was joined by is gone by then.
            ran = subprocess.run(
                ["unshare", *namespaces, *command, who], stdout=subprocess.PIPE, check=False
            )
            for row in json.loads(ran.stdout):
                one = Measured(**row)
                before = found.get((one.task, one.who))
                samples = (*(before.samples if before else ()), *one.samples)
                found[one.task, one.who] = replace(one, samples=samples)
    return sorted(found.values(), key=lambda each: each.task)


def main() -> None:
    parser = argparse.ArgumentParser(prog="placing", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps([asdict(each) for each in inside(given.inside, given.many)]))
    else:
        tell(run(given.many, given.rounds), as_json=given.json)


if __name__ == "__main__":
    main()
