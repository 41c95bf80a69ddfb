"""Paused sandboxes: they stand still, come back at once, and end like any other."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.waiting import eventually, until
from tests.workspace.backends.conftest import Live, Place, left_of, new_id, owner, processes_of
from workspace.backends import cgroups, pages, pausing, remains
from workspace.errors import Unavailable, Unsupported, WorkspaceNotFound

pytestmark = pytest.mark.anyio
COUNTING = "(while :; do echo >> /tmp/n; sleep 0.01; done) >/dev/null 2>&1 &"


@pytest.fixture(params=["as it is here", "v1 alone"])
def freezer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each freezer that this machine has."""
    found = cgroups.find_parents()
    if found["kind"] == "none":
        pytest.skip("no control groups here")
    if request.param == "v1 alone":
        if "freezer" not in found["folders"]:
            pytest.skip("no v1 freezer here")
        found["folders"].pop(cgroups.UNIFIED, None)
        monkeypatch.setattr(cgroups, "find_parents", lambda: found)
    return str(request.param)


async def used(place: Place, desktop: Live) -> float:
    stats = await place.backend.stats(desktop.id)
    assert stats.cpu_seconds is not None
    return stats.cpu_seconds


async def is_counting(desktop: Live) -> None:
    count = int(await desktop.says("wc -l < /tmp/n"))
    await desktop.says(f"while [ $(wc -l < /tmp/n) = {count} ]; do sleep 0.01; done")


async def test_a_paused_one_takes_no_processor_time_and_goes_on_where_it_was(
    freezer: str, place: Place
) -> None:
    async with place.live() as desktop:
        await desktop.says(COUNTING)
        await is_counting(desktop)
        for _ in range(2):  # again is success
            paused = await place.backend.pause(desktop.id)
            assert paused.reclaimed_mib is not None
            assert 0 <= paused.reclaimed_mib < 512
        before = await used(place, desktop)
        asking = asyncio.ensure_future(desktop.says("echo awake"))
        await asyncio.sleep(0.5)
        assert await used(place, desktop) == before
        assert not asking.done()
        await place.another().resume(desktop.id)  # from any process
        assert await asyncio.wait_for(asking, 15) == "awake"
        await is_counting(desktop)
        await place.backend.resume(desktop.id)
        await is_counting(desktop)


async def test_what_was_stopped_inside_stays_stopped(place: Place) -> None:
    async with place.live() as desktop:
        await desktop.says("setsid sleep 300 >/dev/null 2>&1 & echo $! > /tmp/pid")
        await desktop.says("kill -STOP $(cat /tmp/pid)")
        await place.backend.pause(desktop.id)
        await place.backend.resume(desktop.id)
        assert (
            await desktop.says("grep State /proc/$(cat /tmp/pid)/status") == "State:\tT (stopped)"
        )


async def test_a_paused_one_is_stopped_like_any_other(freezer: str, place: Place) -> None:
    async with place.live() as desktop:
        await desktop.says(COUNTING)
        await place.backend.pause(desktop.id)
        began = time.monotonic()
        await place.backend.stop(desktop.id)
        assert time.monotonic() - began < 5
        assert left_of(place, desktop.id, desktop.state) == []
        for ask in (place.backend.pause, place.backend.resume):
            with pytest.raises(WorkspaceNotFound):
                await ask(desktop.id)
        await place.backend.foreground(desktop.id)  # it went meanwhile: nothing to do


@asynccontextmanager
async def owned(place: Place) -> AsyncIterator[tuple[str, subprocess.Popen[str], remains.State]]:
    """A paused sandbox of another process."""
    workspace_id = new_id()
    with owner(place, workspace_id) as process:
        await place.backend.pause(workspace_id)
        yield workspace_id, process, place.state(workspace_id)


async def test_its_owner_dies_and_nothing_is_left(place: Place) -> None:
    async with owned(place) as (workspace_id, process, state):
        process.kill()
        await eventually(lambda: left_of(place, workspace_id, state) == [])
        assert await place.backend.list() == []


async def test_its_owner_and_its_supervisor_die_and_no_process_is_left(place: Place) -> None:
    async with owned(place) as (workspace_id, process, state):
        os.kill(state["supervisor"]["pid"], signal.SIGKILL)
        process.kill()
        if cgroups._v2_freezer(state["group"]):  # in v1 none dies before it is thawed
            await eventually(lambda: processes_of(state) == [])
        assert await place.backend.list() == [workspace_id]
        await place.backend.stop(workspace_id)
        assert left_of(place, workspace_id, state) == []


async def test_one_that_does_not_come_to_rest_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.live() as desktop:
        with monkeypatch.context() as here:
            here.setattr(cgroups, "frozen", lambda _: "soon")
            with pytest.raises(pausing.NotPaused, match="did not come to rest"):
                pausing.pause(desktop.state, seconds=0.05)
        assert cgroups.frozen(desktop.state["group"]) == "no"
        with monkeypatch.context() as here:
            here.setattr(cgroups, "frozen", lambda _: "no")  # somebody was faster
            with pytest.raises(Unavailable, match="resumed meanwhile"):
                await place.backend.pause(desktop.id)
        with monkeypatch.context() as here:
            here.setattr(pausing, "_drop", lambda group: cgroups.freeze(group, False))
            with pytest.raises(Unavailable, match="resumed meanwhile"):
                await place.backend.pause(desktop.id)
        await place.backend.resume(desktop.id)
        assert await desktop.says("echo awake") == "awake"


async def test_memory_that_cannot_be_taken_back_is_no_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> bool:
        raise PermissionError("not here")

    for name in ("reclaim", "has_swap"):
        monkeypatch.setattr(cgroups, name, refuses)
    async with place.live() as desktop:
        await place.backend.pause(desktop.id)
        assert cgroups.frozen(desktop.state["group"]) == "yes"


async def test_without_control_groups_it_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "find_parents", lambda: cgroups.NONE)
    async with place.live() as desktop:
        for ask in (place.backend.pause, place.backend.resume):
            with pytest.raises(Unsupported, match="cannot pause desktops") as caught:
                await ask(desktop.id)
            assert "control groups" in caught.value.hint
        await place.backend.foreground(desktop.id)


async def test_a_boot_in_the_background_yields_the_processor_until_it_is_wanted(
    place: Place,
) -> None:
    if "cpu" not in cgroups.find_parents()["folders"]:
        pytest.skip("no v1 cpu controller here")

    def shares(desktop: Live) -> int:
        return int(Path(desktop.state["group"]["folders"]["cpu"], "cpu.shares").read_text())

    async with place.live() as desktop:
        assert shares(desktop) == 1024
    place.is_background = True
    async with place.live() as desktop:
        assert shares(desktop) < 300
        await place.backend.foreground(desktop.id)
        assert shares(desktop) == 1024


def test_v2_is_asked_by_name(tmp_path: Path) -> None:
    group: cgroups.Group = {"kind": "v2", "folders": {"unified": str(tmp_path)}}
    said = {
        "cgroup.freeze": "0\n",
        "cgroup.events": "populated 1\nfrozen 0\n",
        "memory.current": str(7 << 20),
    }
    for name, text in said.items():
        (tmp_path / name).write_text(text)
    assert cgroups.frozen(group) == "no"
    cgroups.freeze(group, True)
    assert cgroups.frozen(group) == "soon"
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert cgroups.frozen(group) == "yes"
    assert cgroups.charged(group) == 7 << 20
    assert cgroups.reclaim(group)
    assert int((tmp_path / "memory.reclaim").read_text()) > 1 << 20
    cgroups.allow_swap(group, True)
    assert (tmp_path / "memory.swap.max").read_text() == "max"
    cgroups.allow_swap(group, False)
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    cgroups.set_weight(group, cgroups.BACKGROUND_WEIGHT)
    assert (tmp_path / "cpu.weight").read_text() == str(cgroups.BACKGROUND_WEIGHT)
    with pytest.raises(OSError, match="no control groups"):
        cgroups.reclaim(cgroups.NONE)
    cgroups.set_weight(cgroups.NONE, 5)


_HOLDER = """
import ctypes, mmap, sys
kept = [mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE) for _ in range(40)]
for index, each in enumerate(kept):
    each.write(bytes([index]) * (1 << 20))
    if index % 7 == 0:
        where = ctypes.addressof(ctypes.c_char.from_buffer(each))
        assert ctypes.CDLL(None).mlock(ctypes.c_void_p(where), ctypes.c_size_t(1 << 20)) == 0
print("ready", flush=True)
sys.stdin.readline()
print(all(each[:] == bytes([index]) * (1 << 20) for index, each in enumerate(kept)))
"""


@contextmanager
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process with much memory of its own, some of it locked."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask for it")
def test_memory_that_is_turned_out_comes_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    came_through: list[int] = []
    advise = pages._advise

    def noted(pidfd: int, ranges: list[tuple[int, int]]) -> int:
        done = advise(pidfd, ranges)
        came_through.append(done)
        return done

    monkeypatch.setattr(pages, "_advise", noted)
    with holder() as process:
        fd = os.pidfd_open(process.pid)
        try:
            pages.turn_out(process.pid, fd)
            assert sum(came_through) > 34 << 20  # all but what is locked
            assert process.communicate("look\n", timeout=30)[0] == "True\n"
            until(lambda: process.poll() is not None)
            with pytest.raises(OSError, match=r"No such (file|process)"):
                pages.turn_out(process.pid, fd)
        finally:
            os.close(fd)
