"""Idle and paused desktops, for real: nothing runs in one, and whatever is done in it wakes it."""

from __future__ import annotations

import asyncio
import statistics
import time

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.e2e.conftest import Service
from tests.waiting import eventually
from workspace.client import Carrel, ClaimedDesktop
from workspace.errors import WorkspaceEnded

pytestmark = pytest.mark.anyio
HARD = "Grüße, “quotes” & <tags> — 日本 \\ ' \" `$HOME` 🙂"


async def cpu_seconds(service: Service, workspace_id: str) -> float:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {service.key}"}) as http:
        answer = await http.get(f"{service.url}/v1/workspaces/{workspace_id}/stats")
    return float(answer.json()["cpu_seconds"])


async def becomes(carrel: Carrel, workspace_id: str, state: str) -> None:
    async def is_so() -> bool:
        return (await carrel.get(workspace_id)).state == state

    await eventually(is_so)


async def test_a_paused_desktop_uses_no_processor_and_a_click_resumes_it(service: Service) -> None:
    async with Carrel(service.url, service.key) as carrel, await carrel.claim() as desktop:
        await desktop.start("while :; do :; done")  # it would use all that it is given
        assert (await carrel.pause(desktop.id)).state == "paused"
        before = await cpu_seconds(service, desktop.id)
        await asyncio.sleep(1)
        assert await cpu_seconds(service, desktop.id) - before < 0.01
        assert (await carrel.get(desktop.id)).state == "paused"

        took = []
        for _ in range(5):
            await carrel.pause(desktop.id)
            began = time.monotonic()
            await desktop.click(640, 400)
            took.append(time.monotonic() - began)
        assert (await carrel.get(desktop.id)).state == "ready"
        assert statistics.median(took) < 1  # how fast it is, benchmarks/claims.py says


async def test_what_was_under_way_goes_on_after_a_pause(service: Service) -> None:
    async with Carrel(service.url, service.key) as carrel, await carrel.claim() as desktop:
        counting = asyncio.ensure_future(desktop.run("for i in 1 2 3; do sleep 0.3; echo $i; done"))
        await asyncio.sleep(0.2)
        await carrel.pause(desktop.id)
        await asyncio.sleep(1)
        assert not counting.done()
        await carrel.resume(desktop.id)
        assert (await counting).stdout == "1\n2\n3\n"


async def test_a_deadline_ends_a_paused_one(service: Service) -> None:
    async with Carrel(service.url, service.key) as carrel:
        made = await carrel.create(ttl_seconds=5)
        await carrel.pause(made.id)
        await becomes(carrel, made.id, "released")
        assert "time was up" in str((await carrel.get(made.id)).error)
        with pytest.raises(WorkspaceEnded):
            await carrel.desktop(made.id).screenshot()


async def test_paused_by_itself_and_then_typed_into_byte_for_byte(service: Service) -> None:
    async with Carrel(service.url, service.key) as carrel:
        async with await carrel.claim(idle_seconds=2, when_idle="pause") as desktop:
            await desktop.start("xterm -maximized -e 'cat > /home/user/typed'")
            await desktop.wait_for_window(window_class="xterm")
            for _ in range(2):
                await idle_until_paused(carrel, desktop)
                await desktop.type(f"{HARD}\n")

            async def written() -> bool:
                return (await desktop.read_file("typed")).decode() == f"{HARD}\n" * 2

            await eventually(written)


async def idle_until_paused(carrel: Carrel, desktop: ClaimedDesktop) -> None:
    before = len((await carrel.events(desktop.id)).events)

    async def is_so() -> bool:
        events = (await carrel.events(desktop.id)).events[before:]
        return any(event.kind == "pause" for event in events)

    await eventually(is_so)


async def test_who_watches_it_keeps_it(service: Service) -> None:
    async with Carrel(service.url, service.key) as carrel:
        made = await carrel.create(idle_seconds=1)
        url = f"{service.url.replace('http', 'ws')}/v1/workspaces/{made.id}/vnc?role=view"
        headers = {"Authorization": f"Bearer {service.key}"}
        async with connect(url, additional_headers=headers, proxy=None):
            await asyncio.sleep(3)
            assert (await carrel.get(made.id)).state == "ready"
        await becomes(carrel, made.id, "released")
        assert "was idle for" in str((await carrel.get(made.id)).error)


async def test_to_watch_a_paused_one_resumes_it(service: Service) -> None:
    async with Carrel(service.url, service.key) as carrel, await carrel.claim() as desktop:
        await carrel.pause(desktop.id)
        url = f"{service.url.replace('http', 'ws')}/v1/workspaces/{desktop.id}/vnc?role=view"
        headers = {"Authorization": f"Bearer {service.key}"}
        async with connect(url, additional_headers=headers, proxy=None) as screen:
            greeting = await asyncio.wait_for(screen.recv(), 15)
            assert isinstance(greeting, bytes)
            assert greeting.startswith(b"RFB 003.")
        assert (await carrel.get(desktop.id)).state == "ready"


def test_by_the_command_line(service: Service) -> None:
    made = service.carrel("new", "--idle", "600", "--when-idle", "pause", "--key", "idle-cli")
    assert made.returncode == 0, made.stderr
    workspace_id = made.stdout.strip()
    again = service.carrel("new", "--key", "idle-cli", "--queue", "0")
    assert again.stdout == made.stdout
    assert service.carrel("pause", workspace_id).stdout == "paused\n"
    assert "paused" in service.carrel("ls").stdout
    assert service.carrel("resume", workspace_id).stdout == "ready\n"
    assert service.carrel("rm", workspace_id).returncode == 0
    gone = service.carrel("pause", workspace_id)
    assert gone.returncode == 1
    assert "was released" in gone.stderr
