"""The real desktop in a sandbox: it comes up, keeps answering under attack, and goes whole."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.workspace.backends.conftest import Place, left_of, processes_of
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.backends.remains import State
from workspace.errors import InvalidRequest

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


async def test_a_light_desktop_is_light(real: Place) -> None:
    async with real.live(session="openbox") as desktop:
        assert (await desktop.desktop.screenshot()).startswith(JPEG)
        programs = (await desktop.says("cat /proc/[0-9]*/comm | sort -u")).split()
        assert "openbox" in programs
        assert not {"xfwm4", "xfdesktop", "xfce4-panel"} & set(programs)
        assert memory_of(desktop.state) <= 130


async def test_an_xfce_desktop_keeps_to_its_memory_too(real: Place) -> None:
    async with real.live() as desktop:
        assert memory_of(desktop.state) <= 260


def memory_of(state: State) -> float:
    """What all of a sandbox takes, in MiB: each process's share (PSS)."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in processes_of(state)]
    lines = [line for text in rollups for line in text.splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


async def test_it_speaks_a_language_that_is_not_installed(real: Place) -> None:
    template = {"locale": "de_DE.UTF-8", "timezone": "Asia/Tokyo", "keyboard": "us(intl)"}
    async with real.live(session="openbox", **template) as desktop:
        assert await desktop.says("locale decimal_point") == ","
        assert await desktop.says("date -d @0 '+%A %H:%M'") == "Donnerstag 09:00"
        told = await desktop.says("setxkbmap -query")
        assert told.split()[-4:] == ["layout:", "us", "variant:", "intl"]
        assert (await desktop.run("locale")).stderr == ""


async def test_a_place_that_is_not_there_starts_nothing(real: Place) -> None:
    for wrong in ({"timezone": "Europe/Berln"}, {"keyboard": "zz"}, {"locale": "de_XX.UTF-8"}):
        with pytest.raises(InvalidRequest):
            async with real.live(**wrong):
                pass
    assert not list(real.run_dir.iterdir())


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


_ATTACKS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
daemon = os.pidfd_open(1)
print(libc.ptrace(16, 1, 0, 0), [libc.syscall(438, daemon, fd, 0) for fd in range(30)].count(-1))
for name in ("mem", "environ", "fd", "root", "cwd"):
    try:
        os.open(f"/proc/1/{name}", os.O_RDONLY)
    except PermissionError:
        print(name)
os.kill(1, 9)
os.kill(1, 19)
"""


async def test_no_program_can_trace_kill_or_take_over_the_daemon(real: Place) -> None:
    async with real.live(memory_mib=1024, pids=512) as desktop:
        printed = await desktop.says(f"cat /proc/1/comm; python3 - <<'EOF'\n{_ATTACKS}\nEOF")
        assert printed.split() == ["python3", "-1", "30", "mem", "environ", "fd", "root", "cwd"]
        assert (await desktop.desktop.health()).ready


async def test_a_desktop_that_kills_its_own_screen_ends(real: Place) -> None:
    async with real.live(memory_mib=1024, pids=512) as desktop:
        # It is started again, until that has happened too often.
        await desktop.desktop.start("while sleep 0.2; do pkill -9 Xtigervnc; done")
        assert "daemon ended" in await asyncio.wait_for(real.backend.wait(desktop.id), 120)
        assert left_of(real, desktop.id, desktop.state) == []
