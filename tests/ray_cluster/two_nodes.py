"""A driver on one Ray node, desktops on two others: run in a network namespace of its own.

With other addresses than 127.0.0.1 Ray listens on all of them, which it must not do outside.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ray_cluster.cluster import Cluster
from workspace.desktop import connect
from workspace.errors import NoCapacity
from workspace.models import Template

TOKEN = "0123456789abcdef" * 4
HEAD, NODE, OTHER = "127.0.0.2", "127.0.0.3", "127.0.0.4"


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(control, 0x8914, flags)  # SIOCSIFFLAGS


def start(folder: Path, name: str, *arguments: str, **settings: str) -> Path:
    """`ray start` until it serves; its temporary folder."""
    temp = folder / name
    environment = {
        "PATH": os.environ["PATH"],
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        **settings,
    }
    common = ["--block", f"--temp-dir={temp}", "--num-cpus=0", "--object-store-memory=83886080"]
    with open(folder / f"{name}.log", "wb") as log:
        subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), "start", *common, *arguments],
            env=environment,
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 40
    while not (temp / "ray_current_cluster").exists():
        assert time.monotonic() < deadline, (folder / f"{name}.log").read_text()
        time.sleep(0.05)
    return temp


async def use(cluster: Cluster) -> None:
    template = Template(name="fake", backend="fake")
    located = await cluster.start("abcdefgh", template, ttl_seconds=60)
    print("url", located.endpoint.url)
    desktop = connect(located.endpoint)
    print("ready", (await desktop.health()).ready)
    await desktop.aclose()
    found = await cluster.find()
    print("same", found["abcdefgh"].endpoint == located.endpoint)
    await cluster.stop("abcdefgh")
    print("left", await cluster.find())


async def avoid(cluster: Cluster) -> None:
    """With one node taken out of service, all are on the other one, or nowhere."""
    template = Template(name="fake", backend="fake")
    _, drained, other = sorted(await cluster.nodes(), key=lambda node: node.slots)
    print("slots", drained.slots, other.slots)
    for name in ("a2345678", "b2345678", "c2345678"):
        located = await cluster.start(name, template, ttl_seconds=60, avoid={drained.id})
        print("on the other", located.node == other.id)
    try:
        await cluster.start("d2345678", template, ttl_seconds=60, avoid={drained.id})
    except NoCapacity as error:
        print(error.message)
    located = await cluster.start("e2345678", template, ttl_seconds=60)
    print("on the drained", located.node == drained.id)
    for name in await cluster.names():
        await cluster.stop(name)


async def sweep(cluster: Cluster, desktops: Path) -> None:
    """What is left on a node is found and removed by a task there."""
    (desktops / "left2345").mkdir()
    found = await cluster.left()
    print("found", *sorted({each for left in found.values() for each in left}), len(found))
    told = [node.memory_mib for node in await cluster.nodes() if node.slots]
    print("tell of their memory", all(told))
    await cluster.clear(next(iter(found)), {"left2345"})
    print("removed", await cluster.left(), os.listdir(desktops))


async def run(cluster: Cluster, desktops: Path) -> None:
    await use(cluster)
    await avoid(cluster)
    await sweep(cluster, desktops)


def main() -> None:
    raise_loopback()
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        start(folder, "h", "--head", "--port=6400", f"--node-ip-address={HEAD}")
        for name, address, slots in (("n", NODE, 2), ("o", OTHER, 3)):
            start(
                folder,
                name,
                f"--address={HEAD}:6400",
                f"--node-ip-address={address}",
                f'--resources={{"desktop": {slots}}}',
            )
        cluster = Cluster.connect(
            address=f"{HEAD}:6400",
            token=TOKEN,
            backends={"fake": {"folder": str(folder / "desktops")}},
        )
        asyncio.run(run(cluster, folder / "desktops"))
        cluster.close()


if __name__ == "__main__":
    main()
