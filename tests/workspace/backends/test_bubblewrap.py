"""The life of sandboxes: started, ended in every way, and nothing left of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.workspace.backends.conftest import (
    STAND_IN,
    Place,
    a_template,
    left_of,
    new_id,
    owner,
    processes_of,
)
from workspace.backends import bubblewrap, cgroups, remains, runtime, uids
from workspace.desktop import connect
from workspace.errors import (
    BackendUnavailable,
    DiskFull,
    InvalidRequest,
    StartFailed,
    Unauthorized,
    Unavailable,
    Unsupported,
    WorkspaceNotFound,
)

pytestmark = pytest.mark.anyio
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


async def gone(state: remains.State, *, seconds: float = 10) -> float:
    """Seconds until no process of the sandbox is left."""
    started = time.monotonic()
    while left := processes_of(state):
        assert time.monotonic() < started + seconds, left
        await asyncio.sleep(0.005)
    return time.monotonic() - started


@contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2,mode=711", "none", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_twenty_in_a_row_then_five_at_once_leave_nothing(place: Place) -> None:
    async def one() -> tuple[str, remains.State]:
        async with place.live() as desktop:
            assert await desktop.says("pwd") == "/home/user"
            return desktop.id, desktop.state

    lives = [await one() for _ in range(20)]
    lives += await asyncio.gather(*(one() for _ in range(5)))
    for workspace_id, state in lives:
        assert left_of(place, workspace_id, state) == []
    assert await place.backend.list() == []
    if os.geteuid() == 0:
        assert not {str(state["uid"]) for _, state in lives} & set(os.listdir(uids.LOCKS))


async def test_only_the_token_opens_it(place: Place) -> None:
    workspace_id = new_id()
    endpoint = await place.backend.start(workspace_id, a_template())
    folder = place.run_dir / workspace_id
    assert endpoint.url == f"unix://{folder}/desktopd.sock"
    assert [oct(os.stat(p).st_mode & 0o777) for p in (folder, folder / "desktopd.sock")] == [
        "0o700",
        "0o600",
    ]
    stranger = connect(endpoint.model_copy(update={"token": "x" * 32}))
    with pytest.raises(Unauthorized):
        await stranger.run("true")
    await stranger.aclose()
    await place.backend.stop(workspace_id)


async def test_each_is_listed_and_stopped_by_itself(place: Place) -> None:
    async with place.live() as one:
        async with place.live() as other:
            assert set(await place.backend.list()) == {one.id, other.id}
        # The later one held nothing of the earlier one's life, nor the other way round.
        assert await place.backend.list() == [one.id]
        assert await one.says("echo alive") == "alive"
        async with place.live() as third:
            started = time.monotonic()
            await place.backend.stop(one.id)
            assert time.monotonic() - started < 5
            assert processes_of(one.state) == []
            assert await third.says("echo alive") == "alive"
        await place.backend.stop(one.id)  # again: it is gone already


async def test_an_owner_that_is_killed_takes_its_sandboxes_along(place: Place) -> None:
    ids = [new_id(), new_id()]
    with owner(place, *ids) as process:
        states = [place.state(workspace_id) for workspace_id in ids]
        assert all(len(processes_of(state)) >= 3 for state in states)
        process.kill()
        for state in states:
            await gone(state)
    deadline = time.monotonic() + 5
    while await place.backend.list():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    for workspace_id, state in zip(ids, states, strict=True):
        assert left_of(place, workspace_id, state) == []


async def test_a_killed_supervisor_takes_its_sandbox_along_and_stop_tidies(place: Place) -> None:
    async with place.live() as desktop:
        os.kill(desktop.state["supervisor"]["pid"], signal.SIGKILL)
        await gone(desktop.state)
        assert "killed" in await asyncio.wait_for(place.backend.wait(desktop.id), 5)
        assert await place.backend.list() == [desktop.id]
        await place.another().stop(desktop.id)
        assert left_of(place, desktop.id, desktop.state) == []
        assert await place.another().list() == []
        if os.geteuid() == 0:
            assert str(desktop.state["uid"]) not in os.listdir(uids.LOCKS)


async def test_a_killed_daemon_ends_its_sandbox(place: Place) -> None:
    async with place.live() as desktop:
        remains.send(desktop.state["init"], signal.SIGKILL)
        why = await asyncio.wait_for(place.backend.wait(desktop.id), 5)
        assert "daemon ended" in why
        assert left_of(place, desktop.id, desktop.state) == []
        assert await place.backend.list() == []


async def test_a_folder_of_somebody_elses_is_none_of_ours(place: Place) -> None:
    left = place.disk_dir / new_id()
    theirs = [place.run_dir / "initramfs", place.disk_dir / "somebody"]
    for folder in (left / "home" / "deep", left / ".lifted-0f", *theirs):
        folder.mkdir(parents=True)
    for folder in theirs:
        (folder / "precious").touch()
    assert await place.backend.list() == [left.name]
    await place.backend.stop(left.name)
    assert not left.exists()
    for folder in theirs:
        (folder / "precious").unlink()
        folder.rmdir()


async def test_another_process_stops_it(place: Place) -> None:
    workspace_id = new_id()
    with owner(place, workspace_id) as process:
        state = place.state(workspace_id)
        stranger = place.another()
        assert await stranger.list() == [workspace_id]
        await stranger.stats(workspace_id)
        await stranger.stop(workspace_id)
        assert left_of(place, workspace_id, state) == []
        assert process.poll() is None


async def test_a_pid_that_went_to_another_process_is_not_signalled(place: Place) -> None:
    with bystander() as process:
        folder = place.run_dir / new_id()
        folder.mkdir()
        stale: remains.Process = {"pid": process.pid, "started": 1}
        state: remains.State = {
            "supervisor": stale,
            "bwrap": stale,
            "init": stale,
            "uid": 1,
            "group": cgroups.NONE,
            "disk": str(place.disk_dir / folder.name),
        }
        remains.save(str(folder), state)
        await place.backend.stop(folder.name)
        assert process.poll() is None
        assert not folder.exists()


async def test_signals_to_the_supervisor_end_it_tidily(place: Place) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        async with place.live() as desktop:
            os.kill(desktop.state["supervisor"]["pid"], number)
            assert number.name in await asyncio.wait_for(place.backend.wait(desktop.id), 5)
            assert left_of(place, desktop.id, desktop.state) == []


async def test_stats_say_what_it_uses(place: Place) -> None:
    async with place.live() as desktop:
        await desktop.says("python3 -c 'sum(range(5_000_000))'; head -c 8M /dev/urandom > ~/file")
        deadline = time.monotonic() + 15
        while (await place.backend.stats(desktop.id)).disk_mib is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        stats = await place.backend.stats(desktop.id)
        assert stats.disk_mib is not None
        assert 8 <= stats.disk_mib < 9
        if desktop.state["group"]["kind"] != "none":
            assert stats.cpu_seconds is not None
            assert stats.cpu_seconds > 0.05
            assert stats.memory_mib is not None
            assert 4 < stats.memory_mib < 512
            assert stats.pids is not None
            assert stats.pids >= 2
    with pytest.raises(WorkspaceNotFound):
        await place.backend.stats(desktop.id)


async def test_a_machine_without_control_groups(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "find_parents", lambda: cgroups.NONE)
    async with place.live() as desktop:
        await desktop.says("(setsid sleep 300 >/dev/null 2>&1 &) ; true")
        assert "no control groups" in (place.run_dir / desktop.id / "log").read_text()
        assert (await place.backend.stats(desktop.id)).memory_mib is None
        with pytest.raises(Unsupported):
            await place.backend.pause(desktop.id)
        state = desktop.state
    assert processes_of(state) == []


async def refused(place: Place, backend: bubblewrap.BubblewrapBackend) -> StartFailed:
    """Why a start fails, once nothing of it is left."""
    with pytest.raises(StartFailed) as caught:
        await backend.start(new_id(), a_template())
    assert await place.backend.list() == []
    return caught.value


async def test_a_daemon_that_cannot_start_says_why(place: Place) -> None:
    told = place.another('{"error": {"code": "x", "message": "no window manager", "hint": ""}}')
    assert "no window manager" in (await refused(place, told)).message
    for nonsense in ("[" * 60_000, "\\xff", '{"ready": 1}', "null", '{"error": 7}'):
        assert "daemon says" in (await refused(place, place.another(nonsense))).message
    crash = place.another(code="import sys; print('these are my last words'); sys.exit(3)")
    message = (await refused(place, crash)).message
    assert "these are my last words" in message
    assert "exit code 3" in message


async def test_a_daemon_that_is_never_ready(place: Place) -> None:
    silent = place.another(code="import time; time.sleep(60)", ready_seconds=0.5)
    assert "not ready within" in (await refused(place, silent)).message
    chatty = "import os\nwhile True: os.write(12, b'x' * 4096); os.write(1, b'y' * 4096)"
    assert "daemon says" in (await refused(place, place.another(code=chatty))).message


async def test_a_log_stays_small(place: Place) -> None:
    chatter = "import os\nfor _ in range(80): os.write(1, b'x' * 65536)\nos.write(1, b'end\\n')\n"
    place.backend = place.another(code=chatter + STAND_IN)
    async with place.live() as desktop:
        log = place.run_dir / desktop.id / "log"
        deadline = time.monotonic() + 5
        while b"xxend\n" not in log.read_bytes():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert log.stat().st_size <= 1 << 20


async def test_a_start_that_is_cancelled_leaves_nothing(place: Place) -> None:
    silent = place.another(code="import time; time.sleep(60)")
    for seconds in (0.0, 0.02, 0.05, 0.1, 0.4):
        starting = asyncio.ensure_future(silent.start(new_id(), a_template()))
        await asyncio.sleep(seconds)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert await place.backend.list() == []


async def test_refuses_what_it_cannot_run(place: Place, tmp_path: Path) -> None:
    for bad in ("", "../../etc", "UPPERCASE1", "a" * 21, "short"):
        with pytest.raises(InvalidRequest):
            await place.backend.start(bad, a_template())
        with pytest.raises(InvalidRequest):
            await place.backend.stop(bad)
    deep = bubblewrap.BubblewrapBackend(tmp_path / ("x" * 90), place.disk_dir, place.runtime_dir)
    with pytest.raises(BackendUnavailable, match="107 bytes"):
        await deep.start(new_id(), a_template())
    bare = bubblewrap.BubblewrapBackend(place.run_dir, place.disk_dir, tmp_path / "nothing")
    with pytest.raises(BackendUnavailable) as caught:
        await bare.start(new_id(), a_template())
    assert caught.value.hint == runtime.BUILD_HINT
    async with place.live() as desktop:
        with pytest.raises(StartFailed, match="already"):
            await place.backend.start(desktop.id, a_template())
        assert await desktop.says("echo unharmed") == "unharmed"


async def test_a_missing_bubblewrap_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workspace.backends.sandbox.BWRAP", "/nowhere/bwrap")
    with pytest.raises(BackendUnavailable) as caught:
        await place.backend.start(new_id(), a_template())
    assert "bubblewrap" in caught.value.hint


@root_only
@pytest.mark.parametrize("which", ["run_dir", "disk_dir"])
async def test_a_folder_that_somebody_else_made_is_refused(
    which: str, place: Place, tmp_path: Path
) -> None:
    folders = {"run_dir": place.run_dir, "disk_dir": place.disk_dir, which: tmp_path / "theirs"}
    (tmp_path / "theirs").mkdir(mode=0o777)
    os.chown(tmp_path / "theirs", 65534, 65534)
    backend = bubblewrap.BubblewrapBackend(**folders, runtime_dir=place.runtime_dir)
    with pytest.raises(Unavailable, match="not a folder of this user's own"):
        await backend.start(new_id(), a_template())
    assert list((tmp_path / "theirs").iterdir()) == []


@root_only
async def test_a_full_disk_is_named(place: Place) -> None:
    with tiny_disk(place.disk_dir):
        with pytest.raises(DiskFull):
            await place.backend.start(new_id(), a_template())
        assert await place.backend.list() == []


_NO_NAMESPACES = """
import asyncio, ctypes, json, sys
assert ctypes.CDLL(None).unshare(0x10000000) == 0
print("unshared", flush=True)
sys.stdin.readline()
open("/proc/sys/user/max_user_namespaces", "w").write("0")
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.errors import CarrelError
from workspace.models import Template
try:
    asyncio.run(BubblewrapBackend(*sys.argv[2:]).start(sys.argv[1], Template(name="test")))
except CarrelError as error:
    print(json.dumps(error.to_wire()))
"""


@root_only
def test_forbidden_user_namespaces_are_explained(place: Place) -> None:
    """In a user namespace of its own, where none may be made below."""
    folders = [str(path) for path in (place.run_dir, place.disk_dir, place.runtime_dir)]
    process = subprocess.Popen(
        [sys.executable, "-c", _NO_NAMESPACES, new_id(), *folders],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "unshared\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text("0 0 3000000")
        printed, _ = process.communicate("go\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    error = json.loads(printed)
    assert error["code"] == "backend_unavailable"
    assert "user.max_user_namespaces" in error["hint"]
