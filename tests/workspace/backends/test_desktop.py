"""The real desktop in a sandbox: it comes up, keeps answering under attack, and goes whole."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.workspace.backends.conftest import Place, left_of, processes_of
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.errors import DesktopLost

pytestmark = pytest.mark.anyio
JPEG = b"\xff\xd8\xff"


@pytest.fixture
def real(place: Place) -> Place:
    place.backend = BubblewrapBackend(place.run_dir, place.disk_dir, place.runtime_dir)
    return place


async def test_a_desktop_comes_up_and_leaves_nothing(real: Place) -> None:
    async with real.live(memory_mib=1024, pids=512, environment={"GREETING": "hi"}) as desktop:
        assert (await desktop.desktop.screenshot()).startswith(JPEG)
        assert await desktop.says("id -un; pwd; hostname; echo $GREETING") == (
            "user\n/home/user\ndesktop\nhi"
        )
        programs = await desktop.says("cat /proc/[0-9]*/comm | sort -u")
        assert {"Xtigervnc", "xfwm4", "dbus-daemon", "xfdesktop"} <= set(programs.split())
        listed = await desktop.says("ls -l /proc/self/fd | grep -o ' -> .*' || true")
        for target in listed.split(" -> ")[1:]:
            assert target.strip().startswith(("pipe:", "/dev/null", "/proc/"))
        state = desktop.state
    assert left_of(real, desktop.id, state) == []


async def test_it_outlives_a_fork_bomb_and_a_memory_hog(real: Place) -> None:
    async with real.live(memory_mib=768, pids=300) as desktop:
        if desktop.state["group"]["kind"] == "none":
            pytest.skip("no control groups here")
        done = await desktop.run("python3 -c 'x = bytearray(2 << 30)'")
        assert done.exit_code in (-9, 137)
        assert (await desktop.desktop.screenshot()).startswith(JPEG)
        bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
        job = await desktop.desktop.start(["python3", "-c", bomb])
        deadline = time.monotonic() + 15
        while len(processes_of(desktop.state)) < 200:
            assert time.monotonic() < deadline, "the bomb did not go off"
            await asyncio.sleep(0.05)
        assert (await desktop.desktop.screenshot()).startswith(JPEG)
        assert (await desktop.desktop.health()).ready
        assert (await desktop.desktop.poll(job.id)).state == "running"
        state = desktop.state
    assert left_of(real, desktop.id, state) == []


async def test_a_desktop_that_kills_its_own_daemon_ends(real: Place) -> None:
    async with real.live(memory_mib=1024, pids=512) as desktop:
        await desktop.desktop.start("setsid sleep 300")
        with pytest.raises(DesktopLost):
            await desktop.run("kill -9 $(pgrep -f desktopd.py)")
        assert "daemon ended" in await asyncio.wait_for(real.backend.wait(desktop.id), 10)
        assert left_of(real, desktop.id, desktop.state) == []
