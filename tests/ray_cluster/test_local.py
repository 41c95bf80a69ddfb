"""Ray's life on one machine, with real Rays: found again, side by side, and always ended."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ray_cluster.keeper import IDLE_SECONDS, RunDir
from ray_cluster.local import LocalRay
from tests.ray_cluster.conftest import Running, named, new_run_dir
from tests.waiting import until
from workspace.errors import Unavailable


@pytest.fixture
def run_dirs() -> Iterator[list[Path]]:
    """Two folders; whatever runs in them is ended, and nothing may be left."""
    folders = [new_run_dir(), new_run_dir()]
    yield folders
    for folder in folders:
        LocalRay(folder).stop()
        if folder.exists():
            assert list(folder.iterdir()) == []
            folder.rmdir()


def processes_of(run_dir: Path) -> list[psutil.Process]:
    keeper = psutil.Process(int(RunDir(run_dir).keeper_lock.read_text()))
    return [keeper, *keeper.children(recursive=True)]


def test_two_side_by_side_and_each_is_ended_when_nobody_needs_it(run_dirs: list[Path]) -> None:
    first, second = run_dirs
    lock = os.open(RunDir(first).controller_lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = LocalRay(first, desktops=2).start_or_find()
        other = LocalRay(second, desktops=2).start_or_find()
        assert found[0] != other[0]
        assert found[1] != other[1]
        assert LocalRay(first).start_or_find() == found
        assert stat.S_IMODE((first / "ray-token").stat().st_mode) == 0o600
        kept, idle = processes_of(first), processes_of(second)
        assert len(kept) >= 4

        until(lambda: not any(process.is_running() for process in idle), IDLE_SECONDS + 15)
        assert not second.exists()
        assert all(process.is_running() for process in kept)
    finally:
        os.close(lock)
        RunDir(first).controller_lock.unlink()
    LocalRay(first).stop()
    until(lambda: not any(process.is_running() for process in kept), 20)  # init reaps them
    LocalRay(first).stop()  # there is none: success


@pytest.mark.parametrize("half", [0, 1])
def test_either_half_of_the_keeper_ends_ray_when_the_other_is_killed(
    run_dirs: list[Path], half: int
) -> None:
    ray = LocalRay(run_dirs[0], desktops=2)
    _, token = ray.start_or_find()
    processes = processes_of(run_dirs[0])
    processes[half].kill()
    until(lambda: not any(process.is_running() for process in processes), 20)
    assert ray.start_or_find()[1] != token


def test_what_is_left_when_both_halves_are_killed_is_removed_by_the_next(
    run_dirs: list[Path],
) -> None:
    ray = LocalRay(run_dirs[0], desktops=2)
    _, token = ray.start_or_find()
    processes = processes_of(run_dirs[0])
    # Asked for while all of them live: what a half started may end with it.
    agents = [process for process in processes if named(process).startswith("ray::")]
    for half in processes[:2]:
        half.suspend()
    for half in processes[:2]:
        half.kill()
    servers = [process for process in processes if process not in agents]
    until(lambda: not any(process.is_running() for process in servers), 20)
    assert ray.start_or_find()[1] != token
    assert len(list((run_dirs[0] / "ray").glob("session_2*"))) == 1
    for agent in agents:
        with suppress(psutil.NoSuchProcess):
            agent.kill()


_DRIVER = """
import asyncio, sys
from pathlib import Path
from ray_cluster.cluster import Cluster
from ray_cluster.local import LocalRay
from workspace.errors import Unavailable
from workspace.models import Template
run_dir = Path(sys.argv[1])
ray = LocalRay(run_dir, desktops=2)
address, token = ray.start_or_find()
cluster = Cluster.connect(
    address=address, token=token, backends={"fake": {"folder": str(run_dir / "desktops")}})
async def main():
    template = Template(name="fake", backend="fake")
    await cluster.start("abcdefgh", template, ttl_seconds=60)
    watching = asyncio.ensure_future(cluster.ended("abcdefgh"))
    await asyncio.to_thread(ray.stop)
    calls = [watching, cluster.find(), cluster.nodes(), cluster.stop("abcdefgh"),
             cluster.start("ijklmnop", template, ttl_seconds=60)]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        print(type(error).__name__)
asyncio.run(main())
cluster.close()
print("alive", flush=True)
"""


def test_a_driver_outlives_its_ray_and_ends_when_it_wants_to(run_dirs: list[Path]) -> None:
    driver = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(run_dirs[0])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = driver.stdout.split()
    # The watcher may have heard of the desktop's end before Ray was gone.
    assert said[0] in ("ErrorInfo", "Unavailable"), driver.stderr
    assert said[1:] == ["Unavailable"] * 4 + ["alive"], driver.stderr
    assert driver.returncode == 1
    (run_dirs[0] / "desktops").rmdir()


def test_a_ray_of_somebody_else_is_never_ended(local_ray: Running, tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    folder.keeper_lock.write_text(f"{local_ray.keeper.pid}\n")  # nobody holds this lock
    LocalRay(tmp_path).stop()
    time.sleep(0.2)
    assert local_ray.keeper.is_running()


def test_a_folder_whose_sockets_would_have_too_long_names() -> None:
    with pytest.raises(Unavailable, match="too long"):
        LocalRay(Path("/tmp") / ("x" * 60)).start_or_find()


def test_a_ray_that_cannot_start_says_why(
    run_dirs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_cluster.joining.OBJECT_STORE_BYTES", 1)
    with pytest.raises(Unavailable, match="object store"):
        LocalRay(run_dirs[0]).start_or_find()


IN_A_CONTAINER = """
import os, subprocess, sys
from pathlib import Path
from ray_cluster.keeper import RunDir
from ray_cluster.local import LocalRay
from workspace import locks

folder = Path(sys.argv[1])
controller = os.fork()
if controller == 0:  # takes the lock, hands it on, and dies
    lock = locks.take(RunDir(folder).keeper_lock)
    keeper = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    (folder / "pid").write_text(str(keeper.pid))
    os._exit(0)
os.waitpid(controller, 0)
print(LocalRay(folder).is_kept())
os.kill(int((folder / "pid").read_text()), 9)
os.wait()
print(LocalRay(folder).is_kept())
"""


def test_a_keeper_is_seen_in_a_container_after_its_controller_died(short_dir: Path) -> None:
    container = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        [*container, "--mount-proc", sys.executable, "-c", IN_A_CONTAINER, str(short_dir)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "True\nFalse\n", done.stderr
