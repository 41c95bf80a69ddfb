"""A volume on another Ray node than its reader: run in namespaces of its own (see two_nodes.py)."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
import tempfile
from pathlib import Path

import httpx

from ray_cluster.cluster import Cluster
from tests.ray_cluster.two_nodes import HEAD, NODE, TOKEN, raise_loopback, start
from workspace.backends import volumes

VOLUME = "abcdefgh"


async def use(cluster: Cluster, folder: Path) -> None:
    here = socket.gethostname()
    async with cluster.volumes.export(VOLUME, node=here) as endpoint:
        print("url", endpoint.url)
        headers = {"Authorization": f"Bearer {endpoint.token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            tar = (await http.get(endpoint.url, headers=headers)).content
    print("has", tarfile.open(fileobj=io.BytesIO(tar)).getnames())
    await cluster.volumes.remove(VOLUME, node=here)
    print("left", os.listdir(folder))


def main() -> None:
    raise_loopback()
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        start(folder, "h", "--head", "--port=6400", f"--node-ip-address={HEAD}")
        start(
            folder,
            "n",
            f"--address={HEAD}:6400",
            f"--node-ip-address={NODE}",
            '--resources={"desktop": 2}',
        )
        kept = folder / "volumes"
        kept.mkdir()
        volumes.make(str(kept / VOLUME))
        (kept / VOLUME / "home" / "note").write_text("far")
        cluster = Cluster.connect(
            address=f"{HEAD}:6400",
            token=TOKEN,
            backends={"bubblewrap": {"run_dir": name, "disk_dir": name, "volume_dir": str(kept)}},
        )
        asyncio.run(use(cluster, kept))
        cluster.close()


if __name__ == "__main__":
    main()
