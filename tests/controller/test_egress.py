"""The way out of workspaces at the controller: who may widen it, what is kept, what is told."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any  # JSON values

import httpx
import pytest
from fastapi import FastAPI

from controller.live import recipe, shape
from ray_cluster import leases
from tests.controller.conftest import LocalCluster, bearer, claim, client, keep, new_key
from tests.waiting import eventually
from workspace.models import Screen, Template, Workspace, WorkspaceRequest

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SECRET = {"name": "api", "host": "api.test", "value": "Bearer s3cret-Value"}


async def template(http: httpx.AsyncClient, name: str, **fields: object) -> None:
    answer = await http.post("/v1/templates", json={"name": name, "backend": "fake", **fields})
    assert answer.status_code == 201, answer.text


async def change(http: httpx.AsyncClient, workspace_id: object, **body: object) -> httpx.Response:
    return await http.post(f"/v1/workspaces/{workspace_id}/egress", json=body)


async def lines(http: httpx.AsyncClient, workspace_id: object) -> list[dict[str, Any]]:
    answer = await http.get(f"/v1/workspaces/{workspace_id}/events")
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_user_gets_what_the_template_permits(
    app: FastAPI, http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await template(http, "closed")
    await template(
        http, "open", egress=["pkg.example.net"], egress_max=["pkg.example.net", "*.example.org"]
    )
    key = await new_key(http, "a-user", role="user")
    async with client(app, headers=bearer(key["key"])) as user:
        assert (await claim(user, template="closed"))["egress"] == "none"
        refused = await user.post("/v1/workspaces", json={"template": "closed", "egress": ["a.b"]})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        made = await claim(user, template="open")
        assert made["egress"] == ["pkg.example.net"]
        assert cluster.egress_of[str(made["id"])] == ["pkg.example.net"]
        wider = await claim(user, template="open", egress=["a.example.org:443"])
        assert cluster.egress_of[str(wider["id"])] == ["a.example.org:443"]
        for too_much in ("internet", ["example.org"], ["pkg.example.net:*"], ["*.org"]):
            body = {"template": "open", "egress": too_much}
            assert (await user.post("/v1/workspaces", json=body)).status_code == 403
        assert (await claim(user, template="open", egress="none"))["egress"] == "none"
    # An operator goes past it, and then whoever has the desktop may narrow that, not widen it.
    given = await claim(http, template="closed", egress=["a.org", "b.org"])
    async with client(app, headers=bearer(key["key"])) as user:
        assert (await change(user, given["id"], deny=["b.org"])).json()["egress"] == ["a.org"]
        assert (await change(user, given["id"], allow=["b.org"])).status_code == 403
        assert (await change(user, given["id"], egress="none")).json()["egress"] == "none"


async def test_rules_change_while_it_runs_and_that_is_told(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    made = await claim(http, egress=["B\u00fccher.example", "a.org:22"])
    assert made["egress"] == ["xn--bcher-kva.example", "a.org:22"]
    state = (await change(http, made["id"], allow=["C.org"], deny=["a.org:22"])).json()
    assert state["egress"] == ["xn--bcher-kva.example", "c.org"]
    assert state["use"] == {
        "open": 0, "allowed": 0, "refused": 0, "bytes_up": 0, "bytes_down": 0
    }  # fmt: skip
    assert cluster.egress_of[str(made["id"])] == state["egress"]
    again = (await http.get(f"/v1/workspaces/{made['id']}")).json()
    assert again["egress"] == state["egress"]
    told = [
        line["data"] for line in await lines(http, made["id"]) if line["kind"] == "egress_rules"
    ]
    assert told == [{"egress": state["egress"]}]
    for wrong in (
        {"deny": ["never.org"]},
        {"egress": "none", "allow": ["a.org"]},
        {"egress": "all"},
        {"allow": ["http://a.org/"]},
        {"allow": ["0x7f.1"]},
    ):
        assert (await change(http, made["id"], **wrong)).status_code == 422, wrong
    await http.delete(f"/v1/workspaces/{made['id']}")
    assert (await change(http, made["id"], egress="none")).status_code in (409, 410)
    slow = {"name": "slow", "backend": "fake", "environment": {"FAKE_START_SECONDS": "30"}}
    assert (await http.post("/v1/templates", json=slow)).status_code == 201
    starting = await claim(http, template="slow", wait=False)
    assert (await change(http, starting["id"], egress="none")).json()["code"] == "not_ready"


async def test_rules_are_bounded_however_they_come_together(http: httpx.AsyncClient) -> None:
    made = await claim(http, egress=[f"h{number}.org" for number in range(150)])
    more = [f"m{number}.org" for number in range(51)]
    refused = await change(http, made["id"], allow=more)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "201 rules" in refused.json()["message"]
    assert len((await change(http, made["id"], allow=more[:50])).json()["egress"]) == 200
    listed = await http.get("/v1/workspaces")
    assert [it["id"] for it in listed.json()["workspaces"]] == [made["id"]]


async def test_a_row_that_cannot_be_read_keeps_no_other_back(
    app: FastAPI, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    store = app.state.parts.lifecycle.store
    kept = [
        Workspace(
            id=f"old{number:07}",
            sandbox=f"old{number:07}",
            state="released",
            template="desktop",
            screen=Screen(),
            created_at=NOW + timedelta(seconds=number),
            expires_at=NOW,
        )
        for number in range(5)
    ]
    for number in (3, 2, 0):  # as a release with other bounds might have written them
        rules = [f"h{each}.org" for each in range(201)]
        kept[number] = kept[number].model_copy(update={"egress": rules})
    await keep(store, *kept)
    page = (await http.get("/v1/workspaces?state=released&limit=2")).json()
    assert [it["id"] for it in page["workspaces"]] == [kept[4].id, kept[1].id]
    page = await http.get(f"/v1/workspaces?state=released&limit=2&after={page['after']}")
    assert page.json() == {"workspaces": [], "after": None}
    alone = await http.get(f"/v1/workspaces/{kept[2].id}")
    assert (alone.status_code, alone.json()["code"]) == (503, "unavailable")
    assert f"workspace {kept[2].id} cannot be read: egress" in alone.json()["message"]
    live = [
        each.model_copy(update={"state": "ready", "id": f"live{at:06}", "sandbox": f"live{at:06}"})
        for at, each in enumerate(kept)
    ]
    await keep(store, *live, keeper="dead")
    adopted = await store.replicas.adopt_all(keeper="me", of="dead")
    assert {each.id for each in adopted} == {live[1].id, live[4].id}
    assert "left out" in caplog.text


async def test_a_secret_is_kept_nowhere_and_told_to_nobody(
    app: FastAPI,
    http: httpx.AsyncClient,
    cluster: LocalCluster,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await claim(http, egress=["api.test"], secrets=[SECRET])
    (held,) = cluster.secrets_of[str(made["id"])]
    assert held.value.get_secret_value() == SECRET["value"]
    use = {"name": "api", "host": "api.test:443", "header": "Authorization"}
    assert made["secrets"] == [use]
    told = [made, await lines(http, made["id"])]
    told.append((await http.get(f"/v1/workspaces/{made['id']}/egress")).json())
    assert told[-1]["secrets"] == [use]
    for wrong in ({"value": "\u00fc s3cret-Value"}, {"host": "*.test"}, {"header": "Host"}):
        body = {"egress": ["api.test"], "secrets": [SECRET | wrong]}
        answer = await http.post("/v1/workspaces", json=body)
        assert answer.status_code == 422
        told.append(answer.json())
    answer = await http.post("/v1/workspaces", json={"egress": ["b.test"], "secrets": [SECRET]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    twice = {"egress": ["api.test"], "secrets": [SECRET, SECRET]}
    assert (await http.post("/v1/workspaces", json=twice)).status_code == 422
    assert "s3cret" not in repr(told) + caplog.text
    kept = contents(tmp_path)
    assert b"api.test:443" in kept
    assert b"s3cret" not in kept


async def test_a_warm_desktop_is_given_its_rules_at_the_claim(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await template(http, "warm", egress=["pkg.example.net"], pool={"warm": 1, "floor": 1})

    async def is_warm() -> bool:
        return bool((await http.get("/v1/pools/warm")).json()["warm"])

    await eventually(is_warm)
    (sandbox,) = cluster.live
    assert cluster.egress_of[sandbox] == ["pkg.example.net"]
    made = await claim(
        http, template="warm", egress=["a.org"], secrets=[SECRET | {"host": "a.org"}]
    )
    assert made["sandbox"] == sandbox
    assert cluster.egress_of[sandbox] == ["a.org"]
    assert cluster.secrets_of[sandbox]


def test_what_makes_another_shape() -> None:
    plain = Template(name="t")
    asked = recipe(plain, WorkspaceRequest(egress=["a.org"]))
    assert shape(asked) == shape(plain)
    assert shape(plain.model_copy(update={"egress_max": "internet"})) == shape(plain)
    assert shape(plain.model_copy(update={"egress": "internet"})) != shape(plain)
    with pytest.raises(ValueError, match="egress_max permits less"):
        Template(name="t", egress="internet", egress_max=["a.org"])


async def test_connections_are_lines_of_the_log(app: FastAPI, http: httpx.AsyncClient) -> None:
    made = await claim(http)
    path = f"/v1/leases/{made['sandbox']}/connections"
    line = {"host": "a.org", "port": 443, "verdict": "allowed", "count": 2, "bytes_up": 10}
    refused = {"host": "b.org", "port": 80, "verdict": "refused", "reason": "not among its rules"}
    body = {"connections": [line, refused]}
    secret = app.state.parts.auth.lease_secret
    headers = bearer(leases.token(secret, str(made["sandbox"])))
    async with client(app, headers=headers) as actor:
        answer = await actor.post(path, json=body)
        assert isinstance(leases.judge(answer.status_code, answer.content), leases.Renewed)
        for wrong in (
            {"connections": [line] * 21},
            {"connections": [line | {"port": 65536}]},
            {"connections": [line | {"host": "x" * 301}]},
            {},
        ):
            assert (await actor.post(path, json=wrong)).status_code == 422
        assert (await actor.post("/v1/leases/abcdefghjk/connections", json=body)).status_code == 401
    told = [it for it in await lines(http, made["id"]) if it["kind"] == "egress"]
    assert {it["actor"] for it in told} == {"desktop"}
    assert [it["data"]["host"] for it in told] == ["a.org", "b.org"]
    assert told[0]["data"]["count"] == 2
    assert told[1]["data"]["reason"] == "not among its rules"
