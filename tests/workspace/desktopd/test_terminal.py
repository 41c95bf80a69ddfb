"""Terminals, through the real daemon."""

from __future__ import annotations

import asyncio
import json

import psutil
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.waiting import eventually
from tests.workspace.desktopd.conftest import Daemon, until_closed

pytestmark = pytest.mark.anyio


async def until_shown(socket: ClientConnection, expected: str) -> str:
    shown = ""
    while expected not in shown:
        message = await socket.recv()
        assert isinstance(message, bytes), message
        shown += message.decode()
    return shown


async def test_a_person_types_and_resizes(daemon: Daemon) -> None:
    async with daemon.web_socket("/terminal?cols=100&rows=30") as socket:
        await socket.send(b"stty size; tty; echo $TERM $((40+2)) $FROM_TEMPLATE\n")
        shown = await until_shown(socket, "xterm-256color 42 yes")
        assert "30 100" in shown
        assert "/dev/pts/" in shown
        await socket.send('{"resize": [90, 20]}')
        await socket.send(b"stty size\n")
        await until_shown(socket, "20 90")
        await socket.send(b"sleep 71\n")
        await eventually(lambda: "sleep 71" in dict(daemon.programs()))
        await socket.send(b"\x03")
        await socket.send(b"echo still $((1+1))\n")
        await until_shown(socket, "still 2")
        await socket.send(b"exit 7\n")
        async for message in socket:
            if isinstance(message, str):
                assert json.loads(message) == {"exit_code": 7}
    assert socket.close_code == 1000


async def test_a_command_has_a_terminal_of_its_own(daemon: Daemon) -> None:
    async with daemon.web_socket("/terminal?command=tty;%20exit%203") as socket:
        messages = [message async for message in socket]
    assert b"/dev/pts/" in b"".join(m for m in messages if isinstance(m, bytes))
    assert messages[-1] == '{"exit_code":3}'


async def test_the_shell_ends_with_its_socket(daemon: Daemon) -> None:
    async with daemon.web_socket("/terminal") as socket:
        await socket.send(b"trap '' HUP; echo up-$((1+1)); sleep 72\n")
        await until_shown(socket, "up-2")
        await eventually(lambda: "sleep 72" in dict(daemon.programs()))
        shells = [each for name, each in daemon.programs() if name in ("/bin/bash -i", "sleep 72")]
        assert shells
    _, alive = await asyncio.to_thread(psutil.wait_procs, shells, 10)
    assert alive == []


@pytest.mark.parametrize("said", ["nonsense", '{"resize": [0, 5]}', '{"resize": [1e9, 5]}'])
async def test_nonsense_closes_the_socket(daemon: Daemon, said: str) -> None:
    async with daemon.web_socket("/terminal") as socket:
        await socket.send(said)
        assert await until_closed(socket) == 1003


@pytest.mark.parametrize("query", ["cols=0", "rows=x", "size=3", "cols=99999999999"])
async def test_a_wrong_query_is_an_http_error(daemon: Daemon, query: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with daemon.web_socket(f"/terminal?{query}"):
            pass
    response = caught.value.response
    assert response.status_code == 422
    assert json.loads(response.body or b"")["code"] == "invalid_request"
