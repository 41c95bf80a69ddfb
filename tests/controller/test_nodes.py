"""Nodes that are taken out of service and back; and what a person sees of all at a glance."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from controller.app import create_app
from controller.cli.nodes import find
from controller.settings import Settings
from controller.store import Store
from tests.controller.conftest import (
    LocalCluster,
    add_template,
    both_databases,
    claim,
    on_postgres,
    serving,
)
from tests.controller.test_cli_live import CommandLine, carrel, environment
from tests.waiting import eventually
from workspace.errors import InvalidRequest, NotFound, Unavailable
from workspace.models import Node

__all__ = ["carrel", "environment"]  # fixtures
pytestmark = pytest.mark.anyio


async def kinds(http: httpx.AsyncClient) -> list[str]:
    events = (await http.get("/v1/events")).json()["events"]
    return [event["kind"] for event in events if event["data"].get("node_id") == "n1"]


@both_databases
async def test_a_node_that_drains_gets_nothing_new_until_it_is_taken_back(
    settings: Settings, cluster: LocalCluster
) -> None:
    async with serving(create_app(settings, cluster)) as http:
        await add_template(http, "quick")
        mine = await claim(http, template="quick")
        await http.patch("/v1/pools/quick", json={"warm": 1})
        await eventually(lambda: len(cluster.live) == 2)

        async def warm() -> bool:
            return [node["warm"] for node in (await http.get("/v1/nodes")).json()] == [1]

        await eventually(warm)
        for _ in range(2):
            drained = await http.patch("/v1/nodes/n1", json={"draining": True})
            assert drained.json()["draining"] is True
        await eventually(lambda: set(cluster.live) == {mine["id"]})
        refused = await http.post("/v1/workspaces", json={"template": "quick", "queue_seconds": 0})
        assert (refused.status_code, refused.json()["code"]) == (503, "no_capacity")
        shot = await http.get(f"/v1/workspaces/{mine['id']}/screenshot")
        assert shot.status_code == 200, "what is claimed lives on"
        await http.patch("/v1/pools/quick", json={"warm": 0})
    async with serving(create_app(settings, cluster)) as http:
        assert [node["draining"] for node in (await http.get("/v1/nodes")).json()] == [True]
        back = await http.patch("/v1/nodes/n1", json={"draining": False})
        assert back.json()["draining"] is False
        assert (await claim(http, template="quick"))["state"] == "ready"
        assert await kinds(http) == ["drain", "undrain"]


async def test_a_claim_that_waits_goes_on_when_a_node_is_taken_back(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await http.patch("/v1/nodes/n1", json={"draining": True})
    made = await claim(http, queue_seconds=60, wait=False)
    url = f"/v1/workspaces/{made['id']}"

    async def is_queued() -> bool:
        return bool((await http.get(url)).json()["state"] == "queued")

    await eventually(is_queued)
    assert (await http.get("/v1/status")).json()["waiting"] == 1
    await http.patch("/v1/nodes/n1", json={"draining": False})
    assert (await http.get(url + "?wait_seconds=15")).json()["state"] == "ready"


async def test_what_is_no_node_or_no_change_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.patch("/v1/nodes/nope", json={"draining": True})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    for wrong in ({}, {"draining": "perhaps"}, {"draining": True, "slots": 3}):
        answer = await http.patch("/v1/nodes/n1", json=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_the_status_tells_what_does_not_answer(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await claim(http)
    seen = (await http.get("/v1/status")).json()
    assert [each["leads"] for each in seen["controllers"]] == [True]
    assert [node["desktops"] for node in seen["nodes"]] == [1]
    assert (seen["workspaces"], seen["waiting"], seen["strays"]) == ({"ready": 1}, 0, 0)
    assert (seen["pools"] != [], seen["troubles"]) == (True, [])

    async def broken() -> list[Node]:
        raise Unavailable("Ray does not answer.")

    monkeypatch.setattr(cluster, "nodes", broken)
    seen = (await http.get("/v1/status")).json()
    assert (seen["nodes"], seen["troubles"]) == ([], ["Ray does not answer."])
    assert seen["workspaces"] == {"ready": 1}, mine


@on_postgres
async def test_of_two_controllers_it_is_known_which_leads(database_url: str) -> None:
    one, other = Store(database_url), Store(database_url)
    long = "a-host-with-a-very-long-name" * 6
    one.leadership.name, other.leadership.name = long, "b"
    async with one.run(), other.run():
        assert await one.leadership.leader(["b", long]) is None
        assert await one.leadership.is_ours()
        assert not await other.leadership.is_ours()
        for each in (one, other):
            assert await each.leadership.leader(["b", long]) == long
        await one.leadership.resign()
        assert await other.leadership.is_ours()
        assert await one.leadership.leader(["b", long]) == "b"


def test_a_node_is_named_by_name_or_by_how_its_id_begins() -> None:
    nodes = [
        Node(id="aa1", name="one"),
        Node(id="ab1", name="two"),
        Node(id="ac1", name="two", alive=False),
        Node(id="ad1", name="twins"),
        Node(id="ad2", name="twins"),
    ]
    wanted = {"aa1": "aa1", "one": "aa1", "two": "ab1", "ac": "ac1", "ad2": "ad2"}
    assert {name: find(nodes, name).id for name in wanted} == wanted
    for ambiguous in ("a", "twins"):
        with pytest.raises(InvalidRequest, match="nodes could be meant"):
            find(nodes, ambiguous)
    with pytest.raises(NotFound):
        find(nodes, "three")


def test_the_command_line_drains_and_shows_it(
    carrel: CommandLine, app: FastAPI, tmp_path: Path
) -> None:
    assert carrel("nodes").stdout.split("\t")[:3] == ["here", "ready", "0 of 8"]
    drained = carrel("nodes", "drain", "here", "--wait")
    assert drained.stdout == "here gets no new desktops; it is empty.\n"
    status = carrel("status").stdout.splitlines()
    assert "node        here (0 of 8 desktops, draining)" in status
    assert "strays      none" in status
    assert [each["draining"] for each in json.loads(carrel("nodes", "--json").stdout)] == [True]
    back = json.loads(carrel("nodes", "undrain", "n1", "--json").stdout)
    assert (back["id"], back["draining"]) == ("n1", False)
    template = {"name": "faked", "backend": "fake"}
    carrel("templates", "add", "-", stdin=json.dumps(template))
    assert carrel("new", "faked").returncode == 0
    late = carrel("nodes", "drain", "here", "--wait", "--seconds", "0.5")
    assert late.returncode == 1
    assert "1 desktop is left on here" in late.stderr
    assert carrel("nodes", "drain", "nowhere").returncode == 1
