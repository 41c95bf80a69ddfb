"""Volumes through the controller: who gets one, what is told of it, and how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.app import create_app
from controller.settings import Settings
from controller.volumes import emptiest
from tests.controller.conftest import (
    LocalCluster,
    Located,
    add_template,
    both_databases,
    claim,
    serving,
)
from workspace.backends.base import Endpoint, Mount
from workspace.errors import BackendUnavailable, NoCapacity, VolumeInUse
from workspace.models import Node, Stats, Template

pytestmark = pytest.mark.anyio


class Hands:
    """The nodes' part, of a node that may be away."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.is_away = False
        self.export_url = ""

    async def remove(self, volume_id: str, *, node: str) -> None:
        if self.is_away:
            raise BackendUnavailable(f"Node {node!r} is not in the cluster.")
        self.removed.append(volume_id)

    @asynccontextmanager
    async def export(self, volume_id: str, *, node: str) -> AsyncIterator[Endpoint]:
        if self.is_away:
            raise BackendUnavailable(f"Node {node!r} is not in the cluster.")

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            body = f"tar of {volume_id}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield Endpoint(url=f"http://127.0.0.1:{port}", token="t")


class VolumeCluster(LocalCluster):
    """Desktops that do as if they had volumes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.volumes = Hands()
        self.mounts: list[tuple[str | None, Mount | None]] = []
        self.busy = False

    async def start(  # type: ignore[override]  # with what this one takes too
        self,
        workspace_id: str,
        template: Template,
        *,
        node: str | None = None,
        volume: Mount | None = None,
        **times: float,
    ) -> Located:
        self.mounts.append((node, volume))
        if self.busy:
            raise VolumeInUse("The desktop did not start: the volume is in use by an export.")
        return await super().start(workspace_id, template, **times)  # type: ignore[arg-type]

    async def stats(self, workspace_id: str) -> Stats:
        return Stats(disk_mib=1.5)


@pytest.fixture
def cluster(short_dir: Path) -> VolumeCluster:
    return VolumeCluster(short_dir)


@pytest.fixture
async def http(settings: Settings, cluster: VolumeCluster) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app(settings, cluster)) as http:
        await add_template(http, "t")
        yield http


async def told_of(http: httpx.AsyncClient) -> list[tuple[str, str | None]]:
    """What the log has of volumes: what was done, and how it failed."""
    events = (await http.get("/v1/events", params={"limit": 1000})).json()["events"]
    return [
        (event["kind"], event["data"].get("error"))
        for event in events
        if event["kind"].startswith("volume")
    ]


@both_databases
async def test_one_workspace_has_it_and_the_next_one_gets_it_on_its_node(
    http: httpx.AsyncClient, cluster: VolumeCluster
) -> None:
    first = await claim(http, template="t", volume="my-work")
    assert first["volume"] == "my-work"
    told = (await http.get("/v1/volumes/my-work")).json()
    assert (told["used_by"], told["node"], told["owner"]) == (first["id"], "here", "admin")
    refused = await http.post("/v1/workspaces", json={"template": "t", "volume": "my-work"})
    assert refused.status_code == 409
    assert refused.json()["code"] == "volume_in_use"
    assert str(first["id"]) in refused.json()["message"]
    assert (await http.get("/v1/workspaces")).json()["workspaces"][1:] == []
    for path in ("/v1/volumes/my-work", "/v1/volumes/my-work/export"):
        method = "GET" if path.endswith("export") else "DELETE"
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (409, "volume_in_use")
    await http.delete(f"/v1/workspaces/{first['id']}")
    told = (await http.get("/v1/volumes")).json()["volumes"][0]
    assert (told["used_by"], told["size_bytes"]) == (None, 3 << 19)
    second = await claim(http, template="t", volume="my-work")
    await http.delete(f"/v1/workspaces/{second['id']}")
    (node, new), (again, old) = cluster.mounts
    assert new is not None
    assert old is not None
    assert (node, again) == ("here", "here")
    assert (new.is_new, old.is_new) == (True, False)
    assert new.id == old.id
    exported = await http.get("/v1/volumes/my-work/export")
    assert exported.content == f"tar of {new.id}".encode()
    assert 'filename="my-work.tar"' in exported.headers["content-disposition"]
    assert (await http.delete("/v1/volumes/my-work")).status_code == 204
    assert cluster.volumes.removed == [new.id]
    assert (await http.get("/v1/volumes/my-work")).json()["code"] == "volume_not_found"
    assert (await http.delete("/v1/volumes/my-work")).status_code == 404
    assert await told_of(http) == [
        ("volume_created", None),
        ("volume_removed", "volume_in_use"),
        ("volume_exported", "volume_in_use"),
        ("volume_exported", None),
        ("volume_removed", None),
        ("volume_removed", "volume_not_found"),
    ]


async def test_of_two_claims_at_once_one_wins(http: httpx.AsyncClient) -> None:
    body = {"template": "t", "volume": "v"}
    answers = await asyncio.gather(*(http.post("/v1/workspaces", json=body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    assert {answer.json().get("code") for answer in answers} == {None, "volume_in_use"}
    live = (await http.get("/v1/workspaces")).json()["workspaces"]
    assert len(live) == 1


async def test_the_same_key_again_is_the_same_workspace_with_its_volume(
    http: httpx.AsyncClient,
) -> None:
    body = {"template": "t", "volume": "v", "key": "k"}
    first, again = [await http.post("/v1/workspaces", json=body) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]


async def test_one_that_dies_frees_it(http: httpx.AsyncClient, cluster: VolumeCluster) -> None:
    first = await claim(http, template="t", volume="v")
    cluster.die(str(first["id"]), code="node_lost")
    deadline = asyncio.get_running_loop().time() + 20
    while (await http.get("/v1/volumes/v")).json()["used_by"] is not None:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    await claim(http, template="t", volume="v")


async def test_what_the_node_still_holds_is_told(
    http: httpx.AsyncClient, cluster: VolumeCluster
) -> None:
    cluster.busy = True
    answer = await http.post("/v1/workspaces", json={"template": "t", "volume": "v"})
    assert (answer.status_code, answer.json()["code"]) == (409, "volume_in_use")
    assert "by an export" in answer.json()["message"]
    cluster.busy = False
    await claim(http, template="t", volume="v")


async def test_a_node_that_is_gone_keeps_it_unless_it_is_to_be_forgotten(
    http: httpx.AsyncClient, cluster: VolumeCluster
) -> None:
    made = await claim(http, template="t", volume="v")
    await http.delete(f"/v1/workspaces/{made['id']}")
    cluster.volumes.is_away = True
    for method, path in (("GET", "/v1/volumes/v/export"), ("DELETE", "/v1/volumes/v")):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
        assert "'here'" in answer.json()["message"]
    told = (await http.get("/v1/volumes/v")).json()
    assert told["is_being_removed"]
    answer = await http.post("/v1/workspaces", json={"template": "t", "volume": "v"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await http.delete("/v1/volumes/v?forget=true")).status_code == 204
    assert (await http.get("/v1/volumes")).json() == {"volumes": [], "after": None}


async def test_names_are_checked_and_listed_in_pages(http: httpx.AsyncClient) -> None:
    for name in ("", "Big", "a/b", "..", "x" * 64, "a b"):
        answer = await http.post("/v1/workspaces", json={"template": "t", "volume": name})
        assert answer.status_code == 422, name
    for name in ("b", "a", "c-1"):
        await claim(http, template="t", volume=name)
    page = (await http.get("/v1/volumes", params={"limit": 2})).json()
    assert [volume["name"] for volume in page["volumes"]] == ["a", "b"]
    page = (await http.get("/v1/volumes", params={"after": page["after"]})).json()
    assert [volume["name"] for volume in page["volumes"]] == ["c-1"]
    assert page["after"] is None


async def test_one_never_used_has_nothing_to_copy(
    http: httpx.AsyncClient, cluster: VolumeCluster
) -> None:
    cluster.busy = True
    await http.post("/v1/workspaces", json={"template": "t", "volume": "v"})
    answer = await http.get("/v1/volumes/v/export")
    assert (answer.status_code, answer.json()["code"]) == (501, "unsupported")
    cluster.volumes.is_away = True
    assert (await http.delete("/v1/volumes/v")).status_code == 204


def test_a_new_one_lies_on_the_emptiest_node_that_stays() -> None:
    nodes = [
        Node(id="1", name="gone", alive=False, slots=99),
        Node(id="2", name="leaving", draining=True, slots=99),
        Node(id="3", name="drained", slots=99),
        Node(id="4", name="full", desktops=2, slots=2),
        Node(id="5", name="some", desktops=2, slots=5),
        Node(id="6", name="more", desktops=1, slots=9),
    ]
    assert emptiest(nodes, avoid={"3"}) == "more"
    assert emptiest(nodes, avoid={"drained", "more"}) == "some"
    with pytest.raises(NoCapacity):
        emptiest(nodes[:4], avoid={"3"})


def test_a_new_one_lies_where_its_template_may_be_and_on_a_suspect_last_of_all() -> None:
    nodes = [
        Node(id="1", name="sick", slots=9, suspect="no bwrap", labels={"zone": "a"}),
        Node(id="2", name="well", slots=5, labels={"zone": "a"}),
        Node(id="3", name="other", slots=99),
    ]
    assert emptiest(nodes) == "other"
    assert emptiest(nodes, labels={"zone": "a"}) == "well"
    assert emptiest(nodes, labels={"zone": "a"}, avoid={"2"}) == "sick"
    with pytest.raises(BackendUnavailable, match="zone=b"):
        emptiest(nodes, labels={"zone": "b"})
