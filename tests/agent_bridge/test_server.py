"""The bridge over real HTTP: both eras of the protocol, keys, hosts, restarts; and over stdio."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.abc import TaskStatus
from mcp import Client, MCPError, StdioServerParameters

from agent_bridge import tools
from tests.agent_bridge.conftest import connected, pictures_of, serving, text_of
from tests.agent_bridge.fake import KEY, FakeController
from tests.serving import listening
from tests.waiting import eventually

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@ERAS
async def test_the_main_job_in_every_era(controller: FakeController, mode: str) -> None:
    async with serving(controller) as port, connected(port, mode=mode) as client:
        assert len((await client.list_tools()).tools) == len(tools.TOOLS)
        created = await client.call_tool("desktop_create", {})
        id_ = json.loads(text_of(created))["desktop_id"]
        click = {"desktop_id": id_, "action": "click", "x": 10, "y": 20}
        result = await client.call_tool("computer", click)
        assert len(pictures_of(result)) == 1
        assert result.structured_content is None
        wrong = await client.call_tool("computer", click | {"x": 5000})
        assert wrong.is_error
        assert text_of(wrong).startswith("off_screen: ")
        await client.call_tool("desktop_destroy", {"desktop_id": id_})
    assert controller.live() == []


@ERAS
async def test_clients_survive_a_restart_of_the_server(
    controller: FakeController, mode: str
) -> None:
    async def serve(port: int, stop: anyio.Event, *, task_status: TaskStatus[int]) -> None:
        async with serving(controller, port) as port:
            task_status.started(port)
            await stop.wait()
        stopped.set()

    async with anyio.create_task_group() as group:
        stop, stopped = anyio.Event(), anyio.Event()
        port = await group.start(serve, 0, stop)
        async with connected(port, mode=mode) as client:
            created = await client.call_tool("desktop_create", {})
            id_ = json.loads(text_of(created))["desktop_id"]
            stop.set()
            await stopped.wait()
            stop = anyio.Event()
            await group.start(serve, port, stop)
            got = await client.call_tool("desktop_get", {"desktop_id": id_})
            assert json.loads(text_of(got))["state"] == "ready"
        stop.set()


@ERAS
async def test_long_calls_report_progress(
    controller: FakeController, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "BEAT_SECONDS", 0.1)
    told: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(done)

    async with serving(controller) as port, connected(port, mode=mode) as client:
        id_ = json.loads(text_of(await client.call_tool("desktop_create", {})))["desktop_id"]
        run = {"desktop_id": id_, "command": "sleep 0.5"}
        result = await client.call_tool("shell_run", run, progress_callback=progress)
    assert text_of(result) == "Exit code 0."
    assert len(told) >= 3


@pytest.mark.parametrize("key", ["wrong", "a b", None])
async def test_without_a_known_key_nothing_is_served(
    controller: FakeController, key: str | None
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    headers["Accept"] = "application/json, text/event-stream"
    async with serving(controller) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
            refused = await http.post(f"{url}/mcp", json=INITIALIZE)
            assert refused.status_code == 401
            challenge = refused.headers["www-authenticate"]
            metadata = "/.well-known/oauth-protected-resource/mcp"
            assert metadata in challenge
            assert (await http.get(url + metadata)).json()["resource"].endswith("/mcp")
            nothing = await http.get(f"{url}/nothing")
            assert nothing.status_code == 404
            assert nothing.json()["code"] == "not_found"
        async with connected(port, mode="2026-07-28", key=key or "none") as client:
            with pytest.raises(MCPError):
                await client.list_tools()


@pytest.mark.parametrize("key", [b"", b" ", b"\xff\xfe", b"two words", b"tab\tbed"])
async def test_odd_keys_are_refused_and_never_replaced_by_the_servers_own(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch, key: bytes
) -> None:
    monkeypatch.setenv("CARREL_API_KEY", KEY)
    body = json.dumps(INITIALIZE).encode()
    head = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/json\r\n"
    head += b"Accept: application/json, text/event-stream\r\nConnection: close\r\n"
    head += b"Content-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n" % (len(body), key)
    async with serving(controller) as port:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head + body)
            answer = await stream.receive()
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_key_that_is_withdrawn_stops_working(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(controller) as port, connected(port) as client:
        await client.list_tools(cache_mode="bypass")
        monkeypatch.setattr("tests.agent_bridge.fake.KEY", "another")
        with pytest.raises(MCPError):
            await client.list_tools(cache_mode="bypass")


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("Host", "evil.example", 421), ("Origin", "http://evil.example", 403)],
)
async def test_foreign_hosts_and_origins_are_refused(
    controller: FakeController, header: str, value: str, status: int
) -> None:
    headers = {
        "Authorization": f"Bearer {KEY}",
        "Accept": "application/json, text/event-stream",
    }
    async with serving(controller) as port, httpx2.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{port}/mcp"
        accepted = await http.post(url, json=INITIALIZE, headers=headers)
        assert accepted.status_code == 200
        refused = await http.post(url, json=INITIALIZE, headers=headers | {header: value})
        assert refused.status_code == status


@ERAS
async def test_a_client_that_goes_away_leaves_no_desktop_that_nobody_knows(
    controller: FakeController, mode: str
) -> None:
    controller.start_seconds = 30
    async with serving(controller) as port:
        async with connected(port, mode=mode) as client:
            with anyio.move_on_after(0.5):
                await client.call_tool("desktop_create", {})
        await eventually(lambda: not controller.live())
    assert len(controller.desktops) == 1


async def test_over_stdio(controller: FakeController, tmp_path: Path) -> None:
    async with listening(controller.app) as port:
        script = "import anyio, sys, agent_bridge.stdio as it; anyio.run(it.serve, *sys.argv[1:])"
        command = StdioServerParameters(
            command=sys.executable,
            args=["-c", script, f"http://127.0.0.1:{port}", KEY],
            env={"PATH": os.environ["PATH"]},
        )
        for mode in ("auto", "legacy"):
            async with Client(command, mode=mode) as client:
                created = await client.call_tool("desktop_create", {})
                assert json.loads(text_of(created))["state"] == "ready"
