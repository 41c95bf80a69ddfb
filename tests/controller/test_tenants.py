"""Tenants: what is one's is nobody else's, and is told to others as what never was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import add_template, bearer, claim, client, new_key, serving
from tests.controller.test_volumes import VolumeCluster

pytestmark = pytest.mark.anyio
NEVER = "abcdefghjk"


class Site:
    """One controller, and who asks it."""

    def __init__(self, admin: httpx.AsyncClient) -> None:
        self.admin = admin
        self.us: httpx.AsyncClient
        self.them: httpx.AsyncClient
        self.operator: httpx.AsyncClient


@pytest.fixture
async def site(app: FastAPI, http: httpx.AsyncClient) -> AsyncIterator[Site]:
    await add_template(http, "fake")
    found = Site(http)
    async with AsyncExitStack() as stack:
        for name, role in (("us", "user"), ("them", "user"), ("operator", "operator")):
            made = await new_key(http, "ci", role=role, tenant=name)
            opened = await stack.enter_async_context(client(app, headers=bearer(made["key"])))
            setattr(found, name, opened)
        yield found


def ids(answer: httpx.Response) -> set[str]:
    return {each["id"] for each in answer.json()["workspaces"]}


async def test_lists_and_events_have_one_s_own(site: Site) -> None:
    ours = await claim(site.us, template="fake")
    theirs = await claim(site.them, template="fake")
    mine = await claim(site.admin, template="fake")
    assert (ours["tenant"], theirs["tenant"], mine["tenant"]) == ("us", "them", "default")
    every = {str(each["id"]) for each in (ours, theirs, mine)}
    assert ids(await site.us.get("/v1/workspaces")) == {ours["id"]}
    assert ids(await site.them.get("/v1/workspaces?state=all")) == {theirs["id"]}
    for sees_all in (site.admin, site.operator):
        assert ids(await sees_all.get("/v1/workspaces")) == every
    # A page after somebody else's is as one after nothing.
    for after in (theirs["id"], NEVER):
        answer = await site.us.get(f"/v1/workspaces?after={after}")
        assert answer.json()["code"] == "invalid_request"

    async def told(http: httpx.AsyncClient) -> set[str | None]:
        events = (await http.get("/v1/events?limit=1000")).json()["events"]
        return {each["workspace_id"] for each in events}

    assert await told(site.us) == {ours["id"]}
    assert await told(site.operator) == {None}  # keys and templates, and nobody's desktops
    assert await told(site.admin) == {None, *every}


async def test_a_foreign_workspace_is_told_as_one_that_never_was(site: Site) -> None:
    theirs = str((await claim(site.them, template="fake"))["id"])
    for method, path, body in [
        ("GET", "", None),
        ("GET", "?wait_seconds=5", None),
        ("DELETE", "", None),
        ("GET", "/events", None),
        ("GET", "/screenshot", None),
        ("POST", "/actions", {"type": "click", "x": 1, "y": 1}),
        ("POST", "/actions", {"type": "nonsense"}),
        ("POST", "/extend", {"ttl_seconds": 5}),
        ("POST", "/shares", {}),
        ("GET", "/shares", None),
        ("GET", "/files?path=a", None),
    ]:
        found = [
            await site.us.request(method, f"/v1/workspaces/{which}{path}", json=body)
            for which in (theirs, NEVER)
        ]
        assert [each.status_code for each in found] == [404, 404], (method, path)
        assert found[0].json() == {
            **found[1].json(),
            "message": found[1].json()["message"].replace(NEVER, theirs),
        }
        assert found[0].json()["code"] == "workspace_not_found"
    assert (await site.them.get(f"/v1/workspaces/{theirs}")).json()["state"] == "ready"
    # An upload is read before it is refused, or its caller would see a broken connection.
    answer = await site.us.put(f"/v1/workspaces/{theirs}/files?path=a", content=b"x" * 100_000)
    assert answer.json()["code"] == "workspace_not_found"


async def test_one_that_has_ended_stays_its_tenant_s(site: Site) -> None:
    theirs = (await claim(site.them, template="fake"))["id"]
    assert (await site.them.delete(f"/v1/workspaces/{theirs}")).status_code == 204
    assert (await site.us.get(f"/v1/workspaces/{theirs}")).status_code == 404
    assert (await site.them.get(f"/v1/workspaces/{theirs}")).json()["state"] == "released"


async def test_an_operator_sees_and_releases_and_does_not_enter(site: Site) -> None:
    theirs = await claim(site.them, template="fake")
    path = f"/v1/workspaces/{theirs['id']}"
    seen = (await site.operator.get(path)).json()
    assert (seen["tenant"], seen["watch_url"]) == ("them", "")  # nor by a link
    assert theirs["watch_url"] != ""
    listed = (await site.operator.get("/v1/workspaces")).json()["workspaces"]
    assert [each["watch_url"] for each in listed] == [""]
    for method, inside in (("GET", "/screenshot"), ("POST", "/actions"), ("GET", "/events")):
        answer = await site.operator.request(method, path + inside)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "them" in answer.json()["message"]
    assert (await site.operator.delete(path)).status_code == 204


async def test_keys_of_claims_and_names_of_volumes_are_a_tenant_s_own(
    settings: Settings, short_dir: Path
) -> None:
    """Both tenants have a key called ci."""
    asked = {"template": "fake", "key": "k", "volume": "home"}
    app = create_app(settings, VolumeCluster(short_dir))
    async with serving(app) as admin:
        await add_template(admin, "fake")
        found = []
        for tenant in ("us", "them"):
            key = (await new_key(admin, "ci", tenant=tenant))["key"]
            async with client(app, headers=bearer(key)) as http:
                made = await claim(http, **asked)
                assert (await claim(http, **asked))["id"] == made["id"]
                (volume,) = (await http.get("/v1/volumes")).json()["volumes"]
                assert volume["used_by"] == made["id"]
                found.append(made["id"])
        assert len(set(found)) == 2
        assert (await admin.get("/v1/volumes")).json()["volumes"] == []
        assert (await admin.get("/v1/volumes/home")).json()["code"] == "volume_not_found"
