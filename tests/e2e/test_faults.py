"""What goes wrong says so: the same code over every door, in bounded time, and nothing stays."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import Service
from workspace.actions import Move
from workspace.client import Carrel, ClaimedDesktop
from workspace.errors import (
    CarrelError,
    CommandTimedOut,
    DesktopLost,
    DiskFull,
    NotReady,
    WorkspaceEnded,
)
from workspace.models import Workspace

pytestmark = pytest.mark.anyio
GIBIBYTE = 1 << 30


@pytest.fixture
async def carrel(service: Service) -> AsyncIterator[Carrel]:
    async with Carrel(service.url, service.key) as client:
        yield client


@pytest.fixture
async def desktop(carrel: Carrel) -> AsyncIterator[ClaimedDesktop]:
    async with await carrel.claim("desktop") as claimed:
        yield claimed


def headers(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.key}"}


async def rest(service: Service, method: str, path: str, body: object) -> str:
    async with httpx.AsyncClient(base_url=service.url, headers=headers(service)) as http:
        answer = await http.request(method, path, json=body)
    assert 400 <= answer.status_code < 500
    said: dict[str, str] = answer.json()
    assert said["message"]
    assert said["hint"], "it says what to do next"
    return said["code"]


async def mcp(service: Service, tool: str, arguments: dict[str, object]) -> str:
    async with httpx2.AsyncClient(headers=headers(service)) as http:
        async with Client(streamable_http_client(f"{service.url}/mcp", http_client=http)) as client:
            answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    code: str = answer.content[0].model_dump()["text"].partition(":")[0]
    return code


async def test_every_door_says_the_same_code(service: Service, desktop: ClaimedDesktop) -> None:
    mine = desktop.id
    actions = f"/v1/workspaces/{mine}/actions"
    doors: dict[str, list[object]] = {
        "off_screen": [
            rest(service, "POST", actions, {"type": "click", "x": 1280, "y": 0}),
            mcp(service, "computer", {"desktop_id": mine, "action": "click", "x": 1280, "y": 0}),
            desktop.click(1280, 0),
            ["click", mine, "1280", "0"],
        ],
        "unknown_key": [
            rest(service, "POST", actions, {"type": "key", "chord": "ctrl+Retrun"}),
            mcp(service, "computer", {"desktop_id": mine, "action": "key", "chord": "Retrun"}),
            desktop.key("Retrun"),
            ["key", mine, "Retrun"],
        ],
        "untypable_text": [
            rest(service, "POST", actions, {"type": "type", "text": "a\x07"}),
            mcp(service, "computer", {"desktop_id": mine, "action": "type", "text": "a\x07"}),
            desktop.type("a\x07"),
            ["type", mine, "a\x07"],
        ],
        "invalid_request": [
            rest(service, "POST", actions, {"type": "move", "x": True, "y": 0}),
            mcp(service, "computer", {"desktop_id": mine, "action": "move", "x": True, "y": 0}),
            desktop.click(10**20, 0),
            ["type", mine, "x" * 100_001],
        ],
        "file_not_found": [
            rest(service, "GET", f"/v1/workspaces/{mine}/files?path=missing", None),
            mcp(service, "file_read", {"desktop_id": mine, "path": "missing"}),
            desktop.read_file("missing"),
            ["cp", f"{mine}:missing", "-"],
        ],
        "workspace_not_found": [
            rest(service, "GET", "/v1/workspaces/deadbeef00/screenshot", None),
            mcp(service, "screenshot", {"desktop_id": "../x"}),
            desktop._carrel.get("../x"),
            ["shot", "x" * 500],
        ],
        "template_not_found": [
            rest(service, "POST", "/v1/workspaces", {"template": "nope"}),
            mcp(service, "desktop_create", {"template": "nope"}),
            desktop._carrel.claim("nope"),
            ["new", "nope"],
        ],
    }
    for code, (over_rest, over_mcp, over_sdk, command) in doors.items():
        assert await over_rest == code  # type: ignore[misc]  # a coroutine of its own kind each
        assert await over_mcp == code  # type: ignore[misc]  # as above
        with pytest.raises(CarrelError) as caught:
            await over_sdk  # type: ignore[misc]  # as above
        assert caught.value.code == code
        assert isinstance(command, list)
        done = await asyncio.to_thread(service.carrel, *command, "--json")
        assert json.loads(done.stdout)["code"] == code, done.stderr


async def test_odd_bodies_are_refused_with_a_reason(
    service: Service, desktop: ClaimedDesktop
) -> None:
    url = f"{service.url}/v1/workspaces/{desktop.id}/actions"
    as_json = headers(service) | {"Content-Type": "application/json"}
    odd = [b"", b"{", b"\xff", b"[" * 100_000, b'{"type":"move","x":' + b"9" * 5000 + b"}", b"3"]
    async with httpx.AsyncClient() as http:
        for body in odd:
            answer = await http.post(url, content=body, headers=as_json)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), body
        untold = await http.post(url, content=b'{"type":"wait"}', headers=headers(service))
        assert "application/json" in untold.json()["hint"]
        huge = await http.post(url, content=b" " * (33 << 20), headers=as_json)
        assert (huge.status_code, huge.json()["code"]) == (413, "too_large")


async def test_what_an_abandoned_call_held_is_released(
    service: Service, desktop: ClaimedDesktop
) -> None:
    await desktop.start(["xterm", "-e", "stty -icanon -echo; cat > typed"])
    deadline = time.monotonic() + 20
    while not any(w.is_focused and w.window_class == "XTerm" for w in await desktop.windows()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    for number, abandoned in enumerate(
        (
            {"type": "hold_key", "chord": "shift", "seconds": 30},
            [{"type": "key_down", "chord": "shift"}, {"type": "wait", "seconds": 30}],
            [{"type": "key_down", "chord": "shift"}, {"type": "type", "text": "Q" * 100_000}],
        )
    ):
        await asyncio.to_thread(_ask_and_leave, service, desktop.id, abandoned)
        began = time.monotonic()
        await desktop.type(f"next{number}")
        assert time.monotonic() - began < 5, "it had to wait for what nobody waits for"
    deadline = time.monotonic() + 10
    while not (typed := await desktop.read_file("typed")).endswith(b"next2"):
        assert time.monotonic() < deadline, typed[-100:]
        await asyncio.sleep(0.05)
    assert b"next0next1" in typed
    assert typed.count(b"Q") < 100_000


def _ask_and_leave(service: Service, workspace_id: str, actions: object) -> None:
    body = json.dumps(actions).encode()
    url = httpx.URL(service.url)
    head = (
        f"POST /v1/workspaces/{workspace_id}/actions HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n"
        f"Authorization: Bearer {service.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.5)  # in the middle of it


async def test_commands_that_flood_or_stay_end_in_time(desktop: ClaimedDesktop) -> None:
    with pytest.raises(CommandTimedOut) as flood:
        await desktop.run("yes", timeout_seconds=2)
    assert "bytes left out" in flood.value.details["stdout"]
    with pytest.raises(CommandTimedOut):
        await desktop.run("trap '' TERM INT HUP; while :; do sleep 1; done", timeout_seconds=1)
    began = time.monotonic()
    assert (await desktop.run("setsid sleep 300 & echo here")).stdout == "here\n"
    assert time.monotonic() - began < 5


async def test_five_gigabytes_do_not_fit(desktop: ClaimedDesktop) -> None:
    sent = 0

    async def zeros() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 5 * GIBIBYTE:
            sent += 1 << 20
            yield bytes(1 << 20)

    with pytest.raises(DiskFull):  # /tmp of a desktop is 1 GiB; its home would take longer to fill
        await desktop.write_file("/tmp/large", zeros())
    left = [each.name for each in (await desktop.list_files("/tmp")).entries]
    assert not [name for name in left if name == "large" or name.startswith(".upload")]


async def test_sockets_are_refused_or_closed_with_a_reason(
    service: Service, desktop: ClaimedDesktop
) -> None:
    base = service.url.replace("http", "ws")
    mine = f"{base}/v1/workspaces/{desktop.id}"
    refused = {
        f"{mine}/vnc?role=nonsense": (422, "invalid_request"),
        f"{mine}/processes/nope/stream": (404, "process_not_found"),
        f"{base}/v1/workspaces/zzzzzzzzzz/vnc": (404, "workspace_not_found"),
        f"{base}/nowhere": (404, "not_found"),
    }
    for url, (status, code) in refused.items():
        with pytest.raises(InvalidStatus) as caught:
            await connect(url, additional_headers=headers(service))
        answer = caught.value.response
        assert (answer.status_code, json.loads(answer.body)["code"]) == (status, code)
    frames: list[tuple[str, str | bytes, int]] = [
        ("/vnc?role=control", os.urandom(4096), 1002),
        ("/terminal", "no json", 1003),
    ]
    for path, frame, closing in frames:
        async with connect(mine + path, additional_headers=headers(service)) as websocket:
            await websocket.send(frame)
            await asyncio.wait_for(websocket.wait_closed(), 10)
        assert websocket.close_code == closing
    await desktop.hand_back()  # it was taken to send nonsense
    await desktop.screenshot()  # it has taken no harm


async def test_fifty_screenshots_at_once(desktop: ClaimedDesktop) -> None:
    pictures = await asyncio.gather(*(desktop.screenshot() for _ in range(50)))
    assert all(picture.startswith(b"\xff\xd8") for picture in pictures)


async def test_a_dead_window_manager_comes_again(desktop: ClaimedDesktop) -> None:
    await desktop.run("kill -9 $(pidof xfwm4)")
    await desktop.screenshot()
    deadline = time.monotonic() + 20
    while (await desktop.run("pidof xfwm4")).exit_code != 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_dead_x_server_comes_again_and_that_is_told(
    service: Service, desktop: ClaimedDesktop
) -> None:
    await desktop.start("xterm")
    await desktop.write_file("kept", b"kept")
    await desktop.run("kill -9 $(pidof Xtigervnc)")
    deadline = time.monotonic() + 60
    while True:
        try:
            if (await desktop.health()).restarts:
                break
        except NotReady as error:
            assert "anew" in error.message  # noqa: PT017  # it may be up again by then
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    seen = await desktop.act(Move(x=5, y=5), observe="frame")
    assert seen.restarted
    assert not (await desktop.act(Move(x=6, y=5), observe="frame")).restarted
    classes = {window.window_class for window in await desktop.windows()}
    assert {"Xfdesktop", "Xfce4-panel"} <= classes
    assert "XTerm" not in classes
    assert await desktop.read_file("kept") == b"kept"
    events = (await asyncio.to_thread(service.carrel, "logs", desktop.id, "--json")).stdout
    assert '"restarted"' in events


@pytest.mark.parametrize("who", ["desktopd", "supervisor", "actor"])
async def test_what_is_killed_takes_its_desktop_along(carrel: Carrel, who: str) -> None:
    workspace = await carrel.create("desktop")
    found = _processes(workspace)
    os.kill(found[who][0], signal.SIGKILL)
    deadline = time.monotonic() + 20

    async def use() -> None:
        while time.monotonic() < deadline:  # what takes it along may take a moment
            await carrel.desktop(workspace.id).screenshot()

    with pytest.raises((DesktopLost, WorkspaceEnded)):
        await use()
    while (ended := await carrel.get(workspace.id)).state != "failed":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert ended.error is not None
    assert (ended.error.code, ended.error.hint) == ("desktop_lost", "Create a new one.")
    await asyncio.to_thread(_wait_until_gone, found)


@pytest.mark.parametrize("who", ["supervisor", "desktopd", "actor"])
async def test_what_hangs_is_ended_all_the_same(carrel: Carrel, who: str) -> None:
    workspace = await carrel.create("desktop")
    found = _processes(workspace)
    os.kill(found[who][0], signal.SIGSTOP)
    began = time.monotonic()
    await carrel.release(workspace.id)
    assert time.monotonic() - began < 20
    await asyncio.to_thread(_wait_until_gone, found)


def _processes(workspace: Workspace) -> dict[str, list[int]]:
    """The host's ids of what makes a desktop: the actor, and all that is below it."""
    parents, commands = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
            commands[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    supervisor = next(
        pid
        for pid, command in commands.items()
        if "backends/supervisor.py" in command and _has_open(pid, workspace.id)
    )
    actor = parents[supervisor]
    below = [actor]
    for pid in below:
        below += [child for child, parent in parents.items() if parent == pid]
    daemon = [pid for pid in below if re.match(r"\S*python3\W.*desktopd\.py", commands[pid])]
    return {"actor": [actor], "supervisor": [supervisor], "desktopd": daemon, "all": below}


def _wait_until_gone(found: dict[str, list[int]], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while left := [pid for pid in found["all"] if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _has_open(pid: int, part: str) -> bool:
    try:
        return any(part in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
