"""Artifacts over REST: listed, saved, handed out inertly, removed, after the desktop has ended."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from controller.app import create_app
from controller.artifacts.opening import by_settings
from controller.settings import Settings
from tests.controller.conftest import LocalCluster, add_template, claim, client, serving
from tests.s3 import Server, between
from workspace.client import Carrel
from workspace.errors import ArtifactNotFound, Conflict, InvalidRequest, WorkspaceNotFound

pytestmark = pytest.mark.anyio
ID = "aaaaaaaaaa"


@pytest.fixture
async def http(settings: Settings, cluster: LocalCluster) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app(settings, cluster)) as http:
        await add_template(http, "t")
        yield http


async def desktop(http: httpx.AsyncClient, **files: bytes) -> str:
    """A desktop with files; its id."""
    workspace_id = str((await claim(http, template="t"))["id"])
    for name, data in files.items():
        url = f"/v1/workspaces/{workspace_id}/files"
        (await http.put(url, params={"path": name}, content=data)).raise_for_status()
    return workspace_id


async def save(http: httpx.AsyncClient, workspace_id: str, path: str) -> dict[str, object]:
    answer = await http.post(f"/v1/workspaces/{workspace_id}/artifacts", json={"path": path})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert isinstance(made, dict)
    return made


async def listed(http: httpx.AsyncClient, workspace_id: str, **query: object) -> list[str]:
    url = f"/v1/workspaces/{workspace_id}/artifacts"
    answer = await http.get(url, params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["artifacts"]]


async def told(http: httpx.AsyncClient, workspace_id: str) -> dict[str, dict[str, object]]:
    answer = await http.get(f"/v1/workspaces/{workspace_id}/events")
    return {event["kind"]: event["data"] for event in answer.json()["events"]}


async def test_a_file_outlives_its_desktop(http: httpx.AsyncClient) -> None:
    workspace_id = await desktop(http, **{"report.html": b"<script>alert(1)</script>"})
    kept = await save(http, workspace_id, "report.html")
    assert (await http.delete(f"/v1/workspaces/{workspace_id}")).status_code == 204
    assert await listed(http, workspace_id) == [kept["id"]]
    assert (await http.get(f"/v1/artifacts/{kept['id']}/info")).json() == kept
    got = await http.get(f"/v1/artifacts/{kept['id']}")
    assert got.content == b"<script>alert(1)</script>"
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"].startswith('attachment; filename="report.html"')
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert got.headers["content-length"] == "25"
    answer = await http.post(f"/v1/workspaces/{workspace_id}/artifacts", json={"path": "a"})
    assert (answer.status_code, answer.json()["code"]) == (410, "workspace_ended")
    assert (await http.delete(f"/v1/artifacts/{kept['id']}")).status_code == 204
    gone = await http.get(f"/v1/artifacts/{kept['id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "artifact_not_found")
    events = await told(http, workspace_id)
    assert events["artifact_save"]["digest"] == kept["digest"]
    assert events["artifact_read"]["artifact"] == kept["id"]
    assert events["artifact_remove"]["artifact"] == kept["id"]


async def test_they_are_told_by_page(http: httpx.AsyncClient) -> None:
    workspace_id = await desktop(http, a=b"a")
    other = await desktop(http, a=b"a")
    all_ = [(await save(http, workspace_id, "a"))["id"] for _ in range(5)]
    strange = (await save(http, other, "a"))["id"]
    first = (await http.get(f"/v1/workspaces/{workspace_id}/artifacts?limit=3")).json()
    rest = await listed(http, workspace_id, limit=3, after=first["after"])
    assert [each["id"] for each in first["artifacts"]] + rest == all_
    assert await listed(http, workspace_id, kind="frame") == []
    assert await listed(http, workspace_id, kind="file") == all_
    url = f"/v1/workspaces/{workspace_id}/artifacts"
    for query in (f"after={strange}", "kind=secret", "limit=0", "limit=1001", "after=../x"):
        assert (await http.get(f"{url}?{query}")).status_code == 422, query
    assert (await http.get(f"/v1/workspaces/{ID}/artifacts")).status_code == 404


@pytest.mark.parametrize(
    "artifact",
    [
        "..%2f..%2fapi-key",
        "%2e%2e%2fapi-key",
        "../api-key",
        "A" * 10,
        "a" * 64,
        "a%00aaaaaaa",
        "é" * 9,
    ],
)
async def test_what_is_no_id_is_refused(http: httpx.AsyncClient, artifact: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await http.request(method, f"/v1/artifacts/{artifact}")
        assert answer.status_code in (404, 405, 422), answer.text
        assert set(answer.json()) >= {"code", "message", "hint"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": ""},
        {"path": "a", "name": "../b"},
        {"path": "a", "name": "a\nb"},
        {"path": 1},
        [],
    ],
)
async def test_a_body_that_is_wrong_is_refused(http: httpx.AsyncClient, body: object) -> None:
    workspace_id = await desktop(http)
    answer = await http.post(f"/v1/workspaces/{workspace_id}/artifacts", json=body)
    assert answer.status_code == 422


async def test_a_file_that_is_not_there_is_told(http: httpx.AsyncClient) -> None:
    workspace_id = await desktop(http)
    answer = await http.post(f"/v1/workspaces/{workspace_id}/artifacts", json={"path": "no"})
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    assert (await told(http, workspace_id))["artifact_save"]["error"] == "file_not_found"


async def test_nobody_gets_any_without_a_key(http: httpx.AsyncClient) -> None:
    workspace_id = await desktop(http, a=b"a")
    kept = await save(http, workspace_id, "a")
    app = http._transport.app  # type: ignore[attr-defined]
    token = (await http.get(f"/v1/workspaces/{workspace_id}")).json()["watch_url"].partition("#")[2]
    async with client(app) as stranger:
        for path in (f"/v1/artifacts/{kept['id']}", f"/v1/workspaces/{workspace_id}/artifacts"):
            assert (await stranger.get(path)).status_code == 401
        await stranger.post(f"/v1/workspaces/{workspace_id}/viewer", json={"token": token})
        for path in (f"/v1/artifacts/{kept['id']}", f"/v1/workspaces/{workspace_id}/artifacts"):
            assert (await stranger.get(path)).status_code in (401, 403)


async def test_a_damaged_one_is_told_and_not_served(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    workspace_id = await desktop(http, a=b"secret")
    kept = await save(http, workspace_id, "a")
    (path,) = settings.artifact_folder.rglob(str(kept["digest"]))
    path.write_bytes(b"sECRET")
    answer = await http.get(f"/v1/artifacts/{kept['id']}")
    assert (answer.status_code, answer.json()["code"]) == (500, "artifact_damaged")
    path.unlink()
    answer = await http.get(f"/v1/artifacts/{kept['id']}")
    assert (answer.status_code, answer.json()["code"]) == (500, "artifact_damaged")


async def test_a_quota_is_told_over_rest(settings: Settings, cluster: LocalCluster) -> None:
    settings = settings.model_copy(update={"artifact_workspace_mib": 1})
    async with serving(create_app(settings, cluster)) as http:
        await add_template(http, "t")
        workspace_id = await desktop(http, large=b"x" * (2 << 20), half=b"x" * (600 << 10))
        answer = await http.post(f"/v1/workspaces/{workspace_id}/artifacts", json={"path": "large"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        await save(http, workspace_id, "half")
        answer = await http.post(f"/v1/workspaces/{workspace_id}/artifacts", json={"path": "half"})
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
        assert "CARREL_ARTIFACT_WORKSPACE_MIB" in answer.json()["hint"]


async def test_with_s3_away_nothing_is_lost_and_all_goes_on(
    settings: Settings, cluster: LocalCluster, s3: Server, credentials: None
) -> None:
    bucket = s3.bucket()
    async with between(s3.url) as way:
        changes = {"artifacts": f"s3://{bucket}/a", "artifact_endpoint": way.url}
        async with serving(create_app(settings.model_copy(update=changes), cluster)) as http:
            await add_template(http, "t")
            workspace_id = await desktop(http, a=b"a", b=b"b")
            kept = await save(http, workspace_id, "a")
            way.cut()
            for answer in (
                await http.get(f"/v1/artifacts/{kept['id']}"),
                await http.post(f"/v1/workspaces/{workspace_id}/artifacts", json={"path": "b"}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert bucket in answer.json()["message"]
            assert await listed(http, workspace_id) == [kept["id"]]
            assert (await http.get("/readyz")).status_code == 200  # desktops are served
            way.is_away = False
            assert (await http.get(f"/v1/artifacts/{kept['id']}")).content == b"a"
            await save(http, workspace_id, "b")
        assert len(s3.keys(bucket)) == 2


async def test_a_controller_starts_while_s3_is_away(
    settings: Settings, cluster: LocalCluster, s3: Server, credentials: None, caplog: object
) -> None:
    bucket = s3.bucket()
    async with between(s3.url) as way:
        way.is_away = True
        changes = {"artifacts": f"s3://{bucket}", "artifact_endpoint": way.url}
        async with serving(create_app(settings.model_copy(update=changes), cluster)) as http:
            await add_template(http, "t")
            workspace_id = await desktop(http, a=b"a")
            way.is_away = False
            await save(http, workspace_id, "a")


def test_one_of_several_refuses_a_folder(settings: Settings, tmp_path: Path) -> None:
    shared = {"ray_address": "ray:1", "database_url": "postgresql://u:p@host/carrel"}
    for where in ("", str(tmp_path)):
        several = settings.model_copy(update={**shared, "artifacts": where})
        with pytest.raises(Conflict, match="one of several") as told:
            by_settings(several)
        assert "s3://bucket/prefix" in told.value.hint
    assert by_settings(settings.model_copy(update={**shared, "artifacts": "none"})) is None
    assert by_settings(settings.model_copy(update={**shared, "artifacts": "s3://bucket"}))
    assert by_settings(settings.model_copy(update={"ray_address": "ray:1"}))  # with its own SQLite


async def test_it_refuses_at_its_start(settings: Settings, cluster: LocalCluster) -> None:
    shared = {"ray_address": "ray:1", "database_url": "postgresql://u:p@nowhere/carrel"}
    app = create_app(settings.model_copy(update=shared), cluster)
    with pytest.raises(Conflict, match="one of several"):
        async with app.router.lifespan_context(app):
            pass


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="s3://bucket/prefix"):
        Settings(home=tmp_path, artifacts="gopher://x")
    with pytest.raises(InvalidRequest, match="names no bucket"):
        by_settings(Settings(home=tmp_path, artifacts="s3:/x"))


async def test_the_sdk(http: httpx.AsyncClient, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    workspace_id = await desktop(http, data=data)
    app = http._transport.app  # type: ignore[attr-defined]
    key = http.headers["authorization"].removeprefix("Bearer ")
    async with Carrel(str(http.base_url), key, transport=httpx.ASGITransport(app)) as carrel:
        kept = await carrel.keep_file(workspace_id, "data", name="result.bin")
        assert (kept.name, kept.kind, kept.size) == ("result.bin", "file", 300_000)
        assert await carrel.artifacts(workspace_id, kind="file") == [kept]
        assert await carrel.artifact(kept.id) == kept
        target = tmp_path / "here"
        assert await carrel.save_artifact(kept.id, target) == 300_000
        assert target.read_bytes() == data
        await carrel.remove_artifact(kept.id)
        with pytest.raises(ArtifactNotFound):
            await carrel.save_artifact(kept.id, tmp_path / "no")
        assert not [name for name in os.listdir(tmp_path) if name.startswith("no")]
        for wrong in ("../../api-key", "x"):
            with pytest.raises(ArtifactNotFound):
                await carrel.remove_artifact(wrong)
        with pytest.raises(WorkspaceNotFound):
            await carrel.artifacts("../x")
