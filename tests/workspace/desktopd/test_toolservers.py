"""Tool servers of a desktop, through the real daemon: lines both ways, and no process is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import psutil
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.waiting import eventually
from tests.workspace.desktopd.conftest import Daemon, until_closed
from workspace.desktopd.toolservers import MAX_RUNNING

pytestmark = pytest.mark.anyio
TOOLS = {
    "cat": {"command": ["cat"], "environment": {"A": "b"}},
    "env": {"command": ["/bin/sh", "-c", "echo $A $PATH; sleep 91"], "environment": {"A": "b"}},
    "stubborn": {"command": ["/bin/sh", "-c", "trap '' TERM; echo up; sleep 92; sleep 93"]},
    "broken": {"command": ["/bin/sh", "-c", "echo one; echo 'no such thing' >&2; exit 3"]},
    "missing": {"command": ["no-such-program"]},
    "endless": {"command": ["/bin/sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; sleep 94"]},
    "binary": {"command": ["/bin/sh", "-c", "printf '\\377\\n'; sleep 95"]},
    "deaf": {"command": ["/bin/sh", "-c", "exec <&-; echo up; sleep 96"]},
}


@pytest.fixture(scope="module")
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    started = start_daemon(session="openbox", tools=TOOLS)
    assert started.wait_until_ready() == {"ready": True}
    return started


async def closed(socket: ClientConnection) -> tuple[int | None, str]:
    await until_closed(socket)
    return socket.close_code, socket.close_reason or ""


async def test_lines_go_both_ways(daemon: Daemon) -> None:
    async with daemon.web_socket("/tools/cat") as socket:
        for line in ("hello", json.dumps({"text": "\u00fc" * 100_000}), "", "two\nlines"):
            await socket.send(line)
            assert await socket.recv() == line.replace("\n", " ")
        assert "cat" in dict(daemon.programs())
    await eventually(lambda: "cat" not in dict(daemon.programs()))


async def test_it_is_started_as_its_template_says(daemon: Daemon) -> None:
    async with daemon.web_socket("/tools/env") as socket:
        said = str(await socket.recv())
    assert said.startswith("b /opt/carrel/tools/bin:")
    await eventually(lambda: "sleep 91" not in dict(daemon.programs()))


async def test_each_connection_has_a_process_and_there_are_only_so_many(daemon: Daemon) -> None:
    sockets = [await daemon.web_socket("/tools/cat") for _ in range(MAX_RUNNING)]
    try:
        await eventually(lambda: sum(name == "cat" for name, _ in daemon.programs()) == MAX_RUNNING)
        with pytest.raises(InvalidStatus) as refused:
            await daemon.web_socket("/tools/cat")
        assert refused.value.response.status_code == 429
    finally:
        await asyncio.gather(*(socket.close() for socket in sockets))
    await eventually(lambda: "cat" not in dict(daemon.programs()))
    async with daemon.web_socket("/tools/cat"):
        pass


async def test_one_that_does_not_want_to_end_is_killed(daemon: Daemon) -> None:
    async with daemon.web_socket("/tools/stubborn") as socket:
        assert await socket.recv() == "up"
        await eventually(lambda: "sleep 92" in dict(daemon.programs()))
        process = dict(daemon.programs())["sleep 92"]
    await eventually(lambda: not psutil.pid_exists(process.pid))
    assert "sleep 93" not in dict(daemon.programs())


async def test_how_it_ended_is_told(daemon: Daemon) -> None:
    async with daemon.web_socket("/tools/broken") as socket:
        assert await socket.recv() == "one"
        assert await closed(socket) == (1011, "exit code 3: no such thing")
    async with daemon.web_socket("/tools/missing") as socket:
        code, reason = await closed(socket)
    assert (code, "not found" in reason) == (1011, True)


@pytest.mark.parametrize(
    ("name", "reason"), [("endless", "a line has more than 4 MiB"), ("binary", "utf-8")]
)
async def test_what_is_no_line_ends_it(daemon: Daemon, name: str, reason: str) -> None:
    async with daemon.web_socket(f"/tools/{name}") as socket:
        code, said = await closed(socket)
    assert code == 1003
    assert reason in said
    await eventually(lambda: not {"sleep 94", "sleep 95"} & set(dict(daemon.programs())))


async def test_one_that_does_not_listen_ends_it(daemon: Daemon) -> None:
    async with daemon.web_socket("/tools/deaf") as socket:
        assert await socket.recv() == "up"
        try:
            while True:
                await socket.send("x")
                await asyncio.sleep(0.01)
        except ConnectionClosed:
            pass
    assert socket.close_code == 1011


async def test_bytes_are_no_line(daemon: Daemon) -> None:
    async with daemon.web_socket("/tools/cat") as socket:
        await socket.send(b"hello")
        assert (await closed(socket))[0] == 1003


@pytest.mark.parametrize("name", ["nothing", "..%2fhealth", "%00", "CAT"])
async def test_there_are_no_others(daemon: Daemon, name: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await daemon.web_socket(f"/tools/{name}")
    assert refused.value.response.status_code == 404


async def test_they_end_with_the_desktop(daemon: Daemon) -> None:
    async with daemon.web_socket("/tools/stubborn") as socket:
        assert await socket.recv() == "up"
        assert await asyncio.to_thread(daemon.stop) == 0  # which looks that no process is left
