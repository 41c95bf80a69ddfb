"""Nothing is left behind: many desktops, signals, and sudden deaths, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e import conftest
from tests.e2e.conftest import Service
from tests.leaks import Leftovers
from workspace.client import Carrel
from workspace.errors import WorkspaceEnded, WorkspaceNotFound

pytestmark = pytest.mark.anyio


async def test_twenty_in_a_row_and_five_at_once_leave_nothing(service: Service) -> None:
    before = Leftovers.now()
    async with Carrel(service.url, service.key) as carrel:
        for _ in range(20):
            async with await carrel.claim("desktop") as desktop:
                assert (await desktop.run("echo alive")).stdout == "alive\n"

        async def one() -> str:
            async with await carrel.claim("desktop") as desktop:
                await desktop.screenshot()
                return (await desktop.run("cat /etc/hostname && id -u")).stdout

        answers = await asyncio.gather(*(one() for _ in range(5)))
        assert all(answer.endswith("1000\n") for answer in answers)
        assert await carrel.list() == []
    before.assert_none_since(seconds=10)


async def test_sigterm_with_three_live_leaves_nothing(tmp_path: Path) -> None:
    before = Leftovers.now()
    service = await asyncio.to_thread(conftest.start, tmp_path)
    try:
        async with Carrel(service.url, service.key) as carrel:
            await asyncio.gather(*(carrel.create("desktop") for _ in range(3)))
        began = time.monotonic()
    finally:
        await asyncio.to_thread(conftest.stop, service)
    before.assert_none_since(seconds=max(0.1, 15 - (time.monotonic() - began)))


async def test_a_killed_controller_finds_its_desktops_again(tmp_path: Path) -> None:
    before = Leftovers.now()
    first = await asyncio.to_thread(conftest.start, tmp_path)
    async with Carrel(first.url, first.key) as carrel:
        workspace = await carrel.create("desktop")
        desktop = carrel.desktop(workspace.id)
        await desktop.write_file("note.txt", b"still here")
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait(5)
    second = await asyncio.to_thread(conftest.start, tmp_path)
    try:
        async with Carrel(second.url, second.key) as carrel:
            assert (await carrel.get(workspace.id)).state == "ready"
            desktop = carrel.desktop(workspace.id)
            assert await desktop.read_file("note.txt") == b"still here"
            await carrel.release(workspace.id)
            with pytest.raises((WorkspaceEnded, WorkspaceNotFound)):
                await desktop.screenshot()
    finally:
        await asyncio.to_thread(conftest.stop, first)
        await asyncio.to_thread(conftest.stop, second)
    before.assert_none_since(seconds=15)


async def test_without_a_controller_desktops_end_at_their_deadline_and_then_ray(
    tmp_path: Path,
) -> None:
    before = Leftovers.now()
    service = await asyncio.to_thread(conftest.start, tmp_path)
    async with Carrel(service.url, service.key) as carrel:
        await carrel.create("desktop", ttl_seconds=8)
    os.killpg(service.process.pid, signal.SIGKILL)
    await asyncio.to_thread(conftest.stop, service)
    # The deadline, the keeper's patience of 10 s, and Ray's own end.
    before.assert_none_since(seconds=45)


async def test_a_dead_desktop_is_said_to_be_dead(service: Service) -> None:
    async with Carrel(service.url, service.key) as carrel:
        workspace = await carrel.create("desktop")
        # The desktop's own X server, killed from inside by its user, until nobody starts it again.
        desktop = carrel.desktop(workspace.id)
        await desktop.start(["bash", "-c", "while sleep 0.2; do kill -9 $(pidof Xtigervnc); done"])
        deadline = time.monotonic() + 120
        while (ended := await carrel.get(workspace.id)).state in ("ready", "releasing"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert ended.state == "failed"
        assert ended.error is not None
        with pytest.raises(WorkspaceEnded, match="failed"):
            await desktop.screenshot()


def test_json_everywhere(service: Service) -> None:
    created = service.carrel("new", "--json")
    assert created.returncode == 0, created.stderr
    workspace = json.loads(created.stdout)
    assert json.loads(service.carrel("rm", workspace["id"], "--json").stdout) is not None
    missing = service.carrel("shot", "zzzzzzzzzz", "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["code"] == "workspace_not_found"
