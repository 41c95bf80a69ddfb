"""Four nodes, each a host of its own, and what becomes of desktops there. Run in namespaces.

Each scenario prints one line of JSON: what it is called, and what came of it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from ray_cluster.cluster import Cluster
from ray_cluster.keeper import ACTOR_NAME
from ray_cluster.leases import Lease
from ray_cluster.placement import Strategy
from ray_cluster.starting import Located
from tests.ray_cluster import hosts
from tests.ray_cluster.hosts import HERE, PORT, TOKEN, Host
from workspace.desktop import connect
from workspace.errors import CarrelError
from workspace.models import Template

SLOTS = 6
LEASES = 8799
GRACE_SECONDS = 4.0
Facts = dict[str, Any]


def template(**environment: str) -> Template:
    return Template(name="fake", backend="fake", environment=environment)


class Lab:
    """The head, the nodes, and drivers of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head = Host("head", 2, folder)
        self.nodes = [Host(f"n{number}", 2 + number, folder) for number in range(1, 5)]
        self._made = 0

    @property
    def desktops(self) -> Path:
        return self.folder / "d"

    def host(self, name: str) -> Host:
        return next(each for each in self.nodes if each.name == name)

    def cluster(self, strategy: Strategy = "spread") -> Cluster:
        return Cluster(
            address=f"{self.head.address}:{PORT}",
            namespace="carrel",
            backends={"fake": {"folder": str(self.desktops)}},
            strategy=strategy,
            lease=Lease(
                [f"http://{HERE}:{LEASES}"],
                b"secret",
                grace_seconds=GRACE_SECONDS,
                renew_seconds=0.5,
            ),
        )

    async def start(self, cluster: Cluster, of: Template, **options: Any) -> Located:
        self._made += 1
        name = f"d{self._made:07d}"
        return await cluster.start(name, of, ttl_seconds=300, timeout_seconds=120, **options)

    async def starts(
        self, cluster: Cluster, many: int, of: Template, **options: Any
    ) -> list[Located | BaseException]:
        starting = [self.start(cluster, of, **options) for _ in range(many)]
        return await asyncio.gather(*starting, return_exceptions=True)


def where(found: Sequence[Located | BaseException]) -> Counter[str]:
    """How many came up on each node, and how many failed how."""
    return Counter(
        each.node_name if isinstance(each, Located) else type(each).__name__ for each in found
    )


async def empty(cluster: Cluster) -> None:
    await asyncio.gather(*(cluster.stop(name) for name in await cluster.names()))


async def until(done: Callable[[], Awaitable[bool]], seconds: float = 60) -> float:
    """How long it took."""
    began = time.monotonic()
    while not await done():
        assert time.monotonic() - began < seconds, "it does not come"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


# The scenarios.


async def even(lab: Lab) -> Facts:
    cluster = lab.cluster()
    found = await lab.starts(cluster, 4 * SLOTS, template())
    late = await lab.starts(cluster, 2, template())
    nodes = {node.name: node for node in await cluster.nodes() if node.slots}
    await empty(cluster)
    return {
        "where": where(found),
        "late": [str(each) for each in late],
        "labels": {name: node.labels for name, node in nodes.items()},
        "places": {name: node.slots for name, node in nodes.items()},
        "memory": all(node.desktops_mib for node in nodes.values()),
    }


async def two_controllers(lab: Lab) -> Facts:
    """They want two more than there are places, at the same moment."""
    one, other = lab.cluster(), lab.cluster()
    half = 2 * SLOTS + 1
    found = await asyncio.gather(
        lab.starts(one, half, template()), lab.starts(other, half, template())
    )
    both = [*found[0], *found[1]]
    await empty(one)
    return {"where": where(both)}


async def packed(lab: Lab) -> Facts:
    cluster = lab.cluster("pack")
    found = where(await lab.starts(cluster, SLOTS + 2, template()))
    await empty(cluster)
    return {"each": sorted(found.values())}


async def labelled(lab: Lab) -> Facts:
    cluster = lab.cluster()
    of = template().model_copy(update={"node_labels": {"zone": "in(b,c)"}})
    found = where(await lab.starts(cluster, 4, of))
    began = time.monotonic()
    of = template().model_copy(update={"node_labels": {"gpu": "a100"}})
    impossible = await lab.starts(cluster, 1, of)
    took = time.monotonic() - began
    drained = {node.id for node in await cluster.nodes() if node.name in ("n1", "n3")}
    of = template().model_copy(update={"node_labels": {"zone": "b"}})
    rest = where(await lab.starts(cluster, 2, of, avoid=drained))
    await empty(cluster)
    return {
        "where": found,
        "impossible": [type(each).__name__ for each in impossible],
        "at once": took < 5,
        "beside drained": rest,
    }


async def suspects(lab: Lab) -> Facts:
    """One node cannot run sandboxes, and the scheduler of another knows of no room."""
    cluster = lab.cluster()
    broken = template(
        FAKE_START_ERROR="no bwrap here",
        FAKE_START_ERROR_CODE="backend_unavailable",
        FAKE_START_ERROR_NODE="n1",
    )
    first = where(await lab.starts(cluster, 4, broken))
    told = {node.name: node.suspect for node in await cluster.nodes() if node.suspect}
    second = where(await lab.starts(cluster, 4, template()))
    full = template(
        FAKE_START_ERROR="no place",
        FAKE_START_ERROR_CODE="no_capacity",
        FAKE_START_ERROR_NODE="n2",
    )
    third = where(await lab.starts(cluster, 3, full))
    bad = template(FAKE_START_ERROR="no such image")
    fourth = where(await lab.starts(cluster, 1, bad))
    everywhere = template(
        FAKE_START_ERROR="no bwrap at all", FAKE_START_ERROR_CODE="backend_unavailable"
    )
    fifth = [str(each) for each in await lab.starts(lab.cluster(), 1, everywhere)]
    left = await cluster.left()
    again = {node.name for node in await cluster.nodes() if node.suspect}
    await empty(cluster)
    return {
        "first": first,
        "told": told,
        "second": second,
        "full": third,
        "bad": fourth,
        "everywhere": fifth,
        "suspects": sorted(again),
        "left": left,
    }


async def lost(lab: Lab, name: str, how: str) -> Facts:
    """A node is gone, and nobody knows yet as desktops are placed there."""
    cluster, host = lab.cluster(), lab.host(name)
    ids = {node.name: node.id for node in await cluster.nodes()}
    others = {ids[each.name] for each in lab.nodes if each.name != name and each.name in ids}
    there = await lab.start(cluster, template(), avoid=others)
    watching = asyncio.ensure_future(cluster.ended(there.workspace_id))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    if how == "cut":
        host.cut()
    else:
        host.tell("raylet", signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    answers = None
    if how == "stop":
        desktop = connect(there.endpoint)
        answers = (await desktop.health()).ready
        await desktop.aclose()
    meanwhile = asyncio.ensure_future(lab.starts(cluster, 4, template()))

    async def is_dead() -> bool:
        return not any(node.alive and node.name == name for node in await cluster.nodes())

    await until(is_dead)
    seen = time.monotonic() - began
    ended = await asyncio.wait_for(watching, 60)
    told = time.monotonic() - began
    started = await meanwhile

    async def is_over() -> bool:
        return not host.named(ACTOR_NAME)

    if how == "stop":  # it goes on, and is told that it was given up
        host.tell("raylet", signal.SIGCONT)
    over = await until(is_over)
    names = await cluster.names()
    await empty(cluster)
    return {
        "code": ended.code,
        "answers": answers,
        "meanwhile": where(started),
        "names": len(names),
        "seconds": {"seen": round(seen, 2), "told": round(told, 2), "over": round(over, 2)},
    }


async def serve_leases() -> asyncio.AbstractServer:
    """A controller that wants every desktop."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"ttl_seconds": 300}'
        with_length = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d"
        try:
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            writer.write(with_length % len(body) + b"\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(answer, HERE, LEASES)


async def scenarios(lab: Lab) -> None:
    async with await serve_leases():
        for name, work in (
            ("even", even(lab)),
            ("two controllers", two_controllers(lab)),
            ("packed", packed(lab)),
            ("labelled", labelled(lab)),
            ("suspects", suspects(lab)),
            ("kill", lost(lab, "n1", "kill")),
            ("stop", lost(lab, "n2", "stop")),
            ("cut", lost(lab, "n3", "cut")),
        ):
            try:
                facts = await work
            except (CarrelError, AssertionError) as error:
                facts = {"error": repr(error)}
            print(json.dumps({"name": name, **facts}), flush=True)
        left = [each for each in lab.desktops.iterdir()]
        print(json.dumps({"name": "left", "folders": [each.name for each in left]}), flush=True)


def main() -> None:
    with (
        hosts.bridge(),
        tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as name,
    ):
        lab = Lab(Path(name))
        hosts.head(lab.head)
        lab.head.until_up()
        for node in lab.nodes:
            zone = "a" if node.number % 2 else "b"
            options = [f"--desktops={SLOTS}", "--memory-mib=9000", f"--label=zone={zone}"]
            hosts.node(node, lab.head, *options)
        with hosts.own_node(lab.folder, lab.head):
            for node in lab.nodes:
                node.until_up()
            hosts.until_joined(lab.folder)
            address = f"{lab.head.address}:{PORT}"
            Cluster.connect(address=address, token=TOKEN, backends={})
            asyncio.run(scenarios(lab))
        for host in (lab.head, *lab.nodes):
            host.off()


if __name__ == "__main__":
    main()
