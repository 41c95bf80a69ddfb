"""Volumes on their node: mounted, copied and removed through Ray, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ray_cluster import placement, volumes
from ray_cluster.cluster import Cluster
from tests.ray_cluster.conftest import NAMESPACE, Running, new_id
from tests.ray_cluster.test_nodes import run
from tests.waiting import until
from workspace.backends import runtime
from workspace.backends import volumes as folders
from workspace.backends.base import Endpoint, Mount
from workspace.desktop import connect
from workspace.errors import (
    BackendUnavailable,
    StartFailed,
    Unauthorized,
    Unsupported,
    VolumeInUse,
    VolumeNotFound,
    from_body,
)
from workspace.models import Node, Template

pytestmark = pytest.mark.anyio
HERE = socket.gethostname()
LIGHT = Template(name="light", session="openbox", memory_mib=512)


class Kept:
    """A cluster whose desktops are real, and whose volumes lie in a folder."""

    def __init__(self, ray: Running, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster(
            address=ray.address,
            namespace=NAMESPACE,
            backends={
                "bubblewrap": {
                    "run_dir": str(folder / "r"),
                    "disk_dir": str(folder / "d"),
                    "volume_dir": str(folder / "v"),
                }
            },
            strategy="spread",
        )

    async def say(self, volume: str, command: str, *, is_new: bool = False) -> str:
        """What a command says in a desktop with that volume."""
        workspace_id = await self.start(volume, is_new=is_new)
        try:
            return await self.says(workspace_id, command)
        finally:
            await self.cluster.stop(workspace_id)

    async def start(self, volume: str, *, is_new: bool = False, node: str = HERE) -> str:
        workspace_id = new_id()
        mount = Mount(id=volume, is_new=is_new)
        await self.cluster.start(workspace_id, LIGHT, ttl_seconds=300, node=node, volume=mount)
        return workspace_id

    async def says(self, workspace_id: str, command: str) -> str:
        located = await self.cluster.locate(workspace_id)
        assert located is not None
        desktop = connect(located.endpoint)
        try:
            done = await desktop.run(command)
        finally:
            await desktop.aclose()
        assert done.exit_code == 0, done
        return done.stdout.strip()

    async def names(self, volume: str) -> list[str]:
        async with self.cluster.volumes.export(volume, node=HERE) as endpoint:
            data = await got(endpoint)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return tar.getnames()


async def got(endpoint: Endpoint, token: str | None = None) -> bytes:
    headers = {"Authorization": f"Bearer {token or endpoint.token}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.get(endpoint.url, headers=headers)
    if answer.status_code != 200:
        raise from_body(answer.content, status=answer.status_code)
    return answer.content


@pytest.fixture
async def kept(local_ray: Running) -> AsyncIterator[Kept]:
    await asyncio.to_thread(runtime.build, runtime.default_dir())
    with tempfile.TemporaryDirectory(prefix="cv-", dir="/var/tmp") as name:
        os.chmod(name, 0o711)
        kept = Kept(local_ray, Path(name))
        yield kept
        for workspace_id in await kept.cluster.find():
            await kept.cluster.stop(workspace_id)
        await asyncio.to_thread(until, lambda: local_ray.actors() == [], 20)


async def test_a_killed_actor_keeps_the_files_and_frees_the_volume(
    kept: Kept, local_ray: Running
) -> None:
    volume = new_id()
    workspace_id = await kept.start(volume, is_new=True)
    await kept.says(workspace_id, "mkdir -p work && echo precious > work/file")
    with pytest.raises(VolumeInUse, match=workspace_id):
        await kept.names(volume)
    with pytest.raises(VolumeInUse, match=workspace_id):
        await kept.start(volume)
    await asyncio.to_thread(until, lambda: len(local_ray.actors()) == 1, 20)  # those that failed go
    local_ray.actors()[0].kill()
    assert (await kept.cluster.ended(workspace_id)).code == "node_lost"
    assert await kept.say(volume, "cat work/file && echo more >> work/file") == "precious"
    assert {"work", "work/file"} <= set(await kept.names(volume))
    assert await kept.say(volume, "cat work/file") == "precious\nmore"
    await kept.cluster.volumes.remove(volume, node=HERE)
    await kept.cluster.volumes.remove(volume, node=HERE)  # again is success
    assert list((kept.folder / "v").iterdir()) == []
    with pytest.raises(StartFailed, match="no volume"):
        await kept.start(volume)
    with pytest.raises(VolumeNotFound):
        await kept.names(volume)


async def test_a_copy_is_served_once_to_who_may_and_holds_the_volume(kept: Kept) -> None:
    volume = new_id()
    await asyncio.to_thread((kept.folder / "v").mkdir, 0o711)
    await asyncio.to_thread(folders.make, str(kept.folder / "v" / volume))
    async with kept.cluster.volumes.export(volume, node=HERE) as endpoint:
        with pytest.raises(Unauthorized):
            await got(endpoint, token="x" * 43)
        with pytest.raises(folders.Busy, match="an export"):
            with folders.held(str(kept.folder / "v" / volume), "a test"):
                pass
        assert len(await got(endpoint)) == 1024  # a tar of nothing
        with pytest.raises(httpx.ConnectError):
            await got(endpoint)
    with folders.held(str(kept.folder / "v" / volume), "a test", seconds=15):
        pass


async def test_a_copy_that_cannot_be_read_to_its_end_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(home: str) -> object:
        yield b"x" * volumes.BATCH_BYTES
        raise OSError("the disk is bad")

    monkeypatch.setattr(volumes.archive, "tar", broken)
    url = await volumes.serve(str(tmp_path), "token", "127.0.0.1")
    with pytest.raises(httpx.RemoteProtocolError):
        await got(Endpoint(url=url, token="token"))


def test_one_on_another_node_is_read_from_there() -> None:
    lines, errors = run("far_volumes")
    assert re.match(r"url http://127\.0\.0\.3:", lines[0]), errors
    assert lines[1:] == ["has ['note']", "left []"], errors


async def test_its_node_is_named_when_it_is_not_there(kept: Kept) -> None:
    with pytest.raises(BackendUnavailable, match="'elsewhere' is not in the cluster"):
        await kept.start(new_id(), is_new=True, node="elsewhere")
    with pytest.raises(BackendUnavailable, match="elsewhere"):
        await kept.cluster.volumes.remove(new_id(), node="elsewhere")


async def test_a_cluster_without_a_folder_for_them_says_so(cluster: Cluster) -> None:
    with pytest.raises(Unsupported):
        await cluster.volumes.remove(new_id(), node=HERE)


def test_the_emptiest_of_one_name_is_taken() -> None:
    nodes = [
        Node(id="1", name="a", desktops=2, slots=2),
        Node(id="2", name="a", desktops=3, slots=4),
        Node(id="3", name="a", alive=False, slots=9),
        Node(id="4", name="b", desktops=1, slots=1),
    ]
    assert placement.named(nodes, "a").id == "2"
    with pytest.raises(BackendUnavailable):
        placement.named(nodes, "c")
