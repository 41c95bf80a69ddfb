"""Every answer of the daemon that is not a success, and the limits of what it takes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.waiting import eventually
from tests.workspace.desktopd.conftest import TOKEN, Daemon
from workspace.desktop import Desktop
from workspace.desktopd import routes
from workspace.desktopd.app import create_app
from workspace.desktopd.desk import Desk
from workspace.errors import BY_CODE, FileMissing, TooLarge

pytestmark = pytest.mark.anyio


@pytest.fixture
async def http(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(daemon.socket)),
        base_url="http://desktop",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=20,
    ) as client:
        yield client


def code(response: httpx.Response) -> str:
    body = response.json()
    assert {"code", "message", "hint"} <= body.keys()
    assert body["message"]
    assert BY_CODE[body["code"]].status == response.status_code
    return str(body["code"])


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"]
)
async def test_nothing_without_the_token(
    daemon: Daemon, http: httpx.AsyncClient, header: str
) -> None:
    for path in ("/health", "/no/such/path", "/files?path=x"):
        assert code(await http.get(path, headers={"Authorization": header})) == "unauthorized"
    with pytest.raises(InvalidStatus) as caught:
        async with daemon.web_socket("/vnc", additional_headers={"Authorization": header}):
            pass
    assert caught.value.response.status_code == 401


async def test_an_answer_says_how_long_it_took(http: httpx.AsyncClient) -> None:
    for path in ("/health", "/no/such/path"):
        timing = (await http.get(path)).headers["server-timing"]
        assert 0 < float(timing.removeprefix("desktopd;dur=")) < 20_000


async def test_paths_and_methods(http: httpx.AsyncClient) -> None:
    assert code(await http.get("/no/such/path")) == "not_found"
    assert code(await http.get("/vnc")) == "not_found"
    response = await http.get("/actions")
    assert code(response) == "method_not_allowed"
    assert "POST" in response.json()["hint"]
    assert code(await http.post("/files", content=b"x")) == "method_not_allowed"
    assert "server" not in response.headers


NUMBERS = ["NaN", "Infinity", "-1e400", "1e400", "-1", "1" * 400, "null", '"x"', "[]", "{}"]


@pytest.mark.parametrize(
    "body",
    [
        "", "{", "nul", "[]", "{}", '"click"', "7", "\xff", "[" * 100_000, '{"type": "explode"}',
        '{"type": "click", "x": 1}', '{"type": "click", "surprise": 1}',
        '{"type": "type", "text": "\\ud800"}', '[{"type": "wait", "seconds": 0}, {"type": 4}]',
        *(f'{{"type": "move", "x": 1, "y": {number}}}' for number in NUMBERS),
        *(f'{{"type": "wait", "seconds": {number}}}' for number in NUMBERS),
    ],
)  # fmt: skip
async def test_wrong_actions(http: httpx.AsyncClient, body: str) -> None:
    response = await http.post("/actions", content=body.encode("latin-1"))
    assert code(response) in ("invalid_request", "off_screen")


async def test_the_field_is_named(http: httpx.AsyncClient) -> None:
    response = await http.post("/actions", json={"type": "move", "x": "far", "y": 1})
    assert "body.move.x" in response.json()["message"]
    response = await http.get("/screenshot?quality=0")
    assert "query.quality" in response.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/actions?settle_ms=NaN"), ("POST", "/actions?observe=all"),
        ("POST", "/actions?settle_ms=1e99"), ("GET", "/screenshot?scale=nan"),
        ("GET", "/screenshot?scale=inf"), ("GET", "/screenshot?x=1"),
        ("GET", "/screenshot?format=gif"), ("GET", "/screenshot?x=0&y=0&width=0&height=5"),
        ("GET", "/files"), ("GET", "/files?path="), ("GET", "/files?path=%00"),
        ("GET", "/files/list?limit=0"), ("GET", "/files/list?limit=1e9"),
        ("PUT", "/files?path=x&mode=999"), ("PUT", "/files?path=x&mode=rw"),
        ("PUT", "/environment"), ("PUT", "/clipboard"), ("POST", "/files/move"),
        ("POST", "/processes"),
        ("GET", "/clipboard?selection=both"), ("GET", "/clipboard?only=all"), ("POST", "/wait"),
        ("GET", "/windows/wait"), ("GET", "/windows/wait?title="),
        ("GET", "/windows/wait?title=x&seconds=51"), ("GET", "/windows/wait?title=x&seconds=nan"),
        ("POST", "/windows/1/move"), ("POST", "/windows/1/resize"), ("POST", "/windows/1/state"),
        ("GET", "/applications?limit=501"), ("GET", "/applications?limit=0"),
        ("POST", "/applications"),
    ],
)  # fmt: skip
async def test_wrong_queries_and_empty_bodies(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    assert code(await http.request(method, path)) == "invalid_request"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("windows/1/move", {"x": 1}), ("windows/1/move", {"x": 1 << 15, "y": 0}),
        ("windows/1/resize", {"width": 0, "height": 1}),
        ("windows/1/resize", {"width": 1e99, "height": 1}),
        ("windows/1/state", {"state": "gone"}), ("applications", {"name": ""}),
        ("applications", {"name": "x", "arguments": "y"}),
        ("applications", {"name": "x", "arguments": ["\0"]}),
        ("applications", {"name": "x", "wait_seconds": 51}), ("applications", {"name": "x" * 256}),
    ],
)  # fmt: skip
async def test_wrong_windows_and_applications(
    http: httpx.AsyncClient, path: str, body: object
) -> None:
    assert code(await http.post(f"/{path}", json=body)) == "invalid_request"


async def test_windows_and_applications_that_are_not_there(http: httpx.AsyncClient) -> None:
    bodies = {"move": {"x": 1, "y": 1}, "resize": {"width": 9, "height": 9}}
    for window in (1, 1 << 32, 10**30):
        for how, body in (bodies | {"state": {"state": "normal"}}).items():
            answer = await http.post(f"/windows/{window}/{how}", json=body)
            assert code(answer) == "window_not_found"
    answer = await http.post("/applications", json={"name": "mousepda"})
    assert code(answer) == "application_not_found"
    assert "mousepad" in answer.json()["hint"]
    assert code(await http.get("/windows/wait?title=absent&seconds=0")) == "timed_out"


@pytest.mark.parametrize(
    "body",
    [
        {"command": ""}, {"command": []}, {"command": 5}, {"command": "x", "timeout_seconds": 0},
        {"command": "x", "timeout_seconds": 1e9}, {"command": "x", "shell": True},
        {"command": ["a", "\0"]}, {"command": "x", "cwd": "\0"},
        {"command": "x", "environment": {"A=B": "c"}}, {"command": "x", "stdin": 5},
        {"command": "x", "environment": {"A": "\0"}, "background": True},
    ],
)  # fmt: skip
async def test_wrong_commands(http: httpx.AsyncClient, body: object) -> None:
    assert code(await http.post("/processes", json=body)) == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/processes/nope", "process_not_found"),
        ("DELETE", "/processes/nope", "process_not_found"),
        ("POST", "/processes/nope/stdin", "process_not_found"),
        ("POST", "/windows/1/focus", "window_not_found"),
        ("POST", "/windows/99999999999999999999/close", "window_not_found"),
        ("POST", "/windows/x/close", "not_found"),
        ("GET", "/files?path=missing", "file_not_found"),
        ("GET", "/files?path=.", "is_a_directory"),
        ("DELETE", "/files?path=missing", "file_not_found"),
    ],
)
async def test_what_is_not_there(
    http: httpx.AsyncClient, method: str, path: str, expected: str
) -> None:
    assert code(await http.request(method, path)) == expected


async def test_a_body_too_long(http: httpx.AsyncClient) -> None:
    response = await http.post("/actions", content=b" " * (9 << 20))
    assert code(response) == "too_large"


async def test_a_huge_upload_is_refused_at_once(desktop: Desktop, daemon: Daemon) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 20
            yield bytes(1 << 20)

    async with httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(daemon.socket)), timeout=20
    ) as client:
        response = await client.put(
            "http://desktop/files?path=big",
            content=endless(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Length": str(5 << 30)},
        )
    assert code(response) == "too_large"
    assert sent < 64 << 20
    with pytest.raises(FileMissing):
        await desktop.stat("big")


async def test_files_both_ways(desktop: Desktop, http: httpx.AsyncClient) -> None:
    data = os.urandom(5_000_000)
    assert (await desktop.write_file("docs/ü x.bin", data, mode="600")).mode == "600"
    assert await desktop.read_file("docs/ü x.bin") == data
    response = await http.get("/files", params={"path": "docs/ü x.bin"})
    assert response.headers["content-length"] == str(len(data))
    with pytest.raises(TooLarge):
        await desktop.read_file("docs/ü x.bin", limit=1000)
    assert [e.name for e in (await desktop.list_files("docs")).entries] == ["ü x.bin"]
    await desktop.move_file("docs/ü x.bin", "docs/y")
    await desktop.remove("docs", recursive=True)
    with pytest.raises(FileMissing):
        await desktop.stat("docs")


async def test_a_caller_that_goes_away_mid_upload_leaves_nothing(
    daemon: Daemon, desktop: Desktop
) -> None:
    _, writer = await asyncio.open_unix_connection(str(daemon.socket))
    writer.write(
        b"PUT /files?path=half/way HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000\r\n"
        b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n" + bytes(500_000)
    )
    await writer.drain()
    folder = daemon.home / "half"
    await eventually(lambda: folder.exists() and bool(os.listdir(folder)))
    writer.close()
    await eventually(lambda: not os.listdir(folder))
    assert (await desktop.list_files("half")).entries == []


async def test_a_command_dies_with_its_caller(daemon: Daemon, desktop: Desktop) -> None:
    body = json.dumps({"command": "touch ~/begun; sleep 81; touch ~/never"}).encode()
    _, writer = await asyncio.open_unix_connection(str(daemon.socket))
    writer.write(
        b"POST /processes HTTP/1.1\r\nHost: d\r\nAuthorization: Bearer " + TOKEN.encode()
        + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )  # fmt: skip
    await eventually((daemon.home / "begun").exists)
    writer.close()

    async def is_gone() -> bool:
        return (await desktop.run("pgrep -f '[s]leep 81'")).exit_code == 1

    await eventually(is_gone)


async def test_jobs_over_http(daemon: Daemon, desktop: Desktop) -> None:
    job = await desktop.start("cat; exit 9")
    await desktop.send_stdin(job.id, "grüße\n".encode() * 100_000, close=True)
    async with daemon.web_socket(f"/processes/{job.id}/stream") as socket:
        frames = [json.loads(frame) async for frame in socket]
    assert "".join(f["data"] for f in frames[:-1]) == "grüße\n" * 100_000
    assert frames[-1] == {"exit_code": 9}
    assert (await desktop.poll(job.id, wait_seconds=10)).exit_code == 9
    assert job.id in [each.id for each in await desktop.jobs()]
    await desktop.forget(job.id)
    with pytest.raises(InvalidStatus) as caught:
        async with daemon.web_socket(f"/processes/{job.id}/stream"):
            pass
    assert caught.value.response.status_code == 404


async def test_the_environment(desktop: Desktop) -> None:
    await desktop.set_environment({"FROM_TEST": "ü"})
    shown = (await desktop.run("echo $FROM_TEMPLATE $FROM_TEST; env")).stdout
    assert shown.startswith("yes ü\n")
    assert "CARREL" not in shown
    assert TOKEN not in shown


async def test_health_tells_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    # The X server dies while memory is being counted, which takes a while.
    screen = SimpleNamespace(size=(1280, 800), aclose=lambda: asyncio.sleep(0))
    none = SimpleNamespace()
    desk = Desk(none, none, none, "", none, none, screen)

    async def losing(_count: object) -> float:
        await desk.lose_screen()
        return 1.0

    monkeypatch.setattr(routes.screen, "in_thread", losing)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(desk, token=TOKEN)), base_url="http://desktop"
    ) as client:
        answer = await client.get("/health", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
