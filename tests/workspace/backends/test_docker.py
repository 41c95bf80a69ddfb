"""Desktops as containers by Podman and runc: everything is real but the desktop itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import podman
from tests.workspace.backends import contained
from tests.workspace.backends.conftest import a_template, new_id
from workspace.backends import remains
from workspace.backends.containers import checks
from workspace.backends.containers.api import Engine
from workspace.backends.containers.options import Options
from workspace.errors import BackendUnavailable, InvalidRequest, StartFailed, WorkspaceNotFound

pytestmark = pytest.mark.anyio


def start_owner(place: contained.ContainedPlace, workspace_id: str) -> subprocess.Popen[str]:
    """A process that has a container, once it has."""
    arguments = [str(place.run_dir), str(place.disk_dir), f"unix://{place.engine.path}"]
    arguments += [podman.IMAGE, contained.CLUSTER, workspace_id]
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def place(engine: Engine) -> Iterator[contained.ContainedPlace]:
    with contained.place(engine) as made:
        yield made


async def test_who_is_what_outside(place: contained.ContainedPlace) -> None:
    async with place.live(cpus=0.5) as desktop:
        told = place.container(desktop.id)
        host = told["HostConfig"]
        assert (host["Memory"], host["PidsLimit"]) == (512 << 20, 256)
        assert host["NetworkMode"] == "none"
        assert host["RestartPolicy"]["Name"] in ("", "no")
        assert told["Config"]["Labels"]["carrel.dev/sandbox"] == desktop.id
        modes = [place.run_dir / desktop.id, place.run_dir / desktop.id / "desktopd.sock"]
        assert [oct(path.stat().st_mode & 0o777) for path in modes] == ["0o700", "0o600"]
        home = os.stat(place.disk_dir / desktop.id / "home")
        assert (home.st_uid, home.st_mode & 0o777) == (1000, 0o700)
        stats = await place.backend.stats(desktop.id)
        assert stats.memory_mib is not None
        assert 1 < stats.memory_mib < 512
        assert stats.cpu_seconds


async def test_programs_get_out_by_the_proxy_alone(place: contained.ContainedPlace) -> None:
    async with place.live(egress=["example.com"]) as desktop:
        ask = (
            "import urllib.request as r; "
            "r.build_opener(r.ProxyHandler({'http': 'http://127.0.0.1:3128'})).open('%s', None, 9)"
        )
        refused = await desktop.refuses(f'python3 -c "{ask % "http://example.org/"}"')
        assert "403" in refused
        tally = place.backend.tally(desktop.id)
        assert tally is not None
        assert tally.use.refused == 1
        await place.backend.set_egress(desktop.id, egress=["example.org"])
        answer = await desktop.refuses(f'python3 -c "{ask % "http://example.org/"}"')
        assert "502" in answer  # permitted now; this test has no network


OWNER = """
import asyncio, sys
from workspace.backends.docker import DockerBackend
from workspace.models import Template
async def main(run, disk, host, image, cluster, *ids):
    backend = DockerBackend(run, disk, {"host": host, "image": image}, cluster)
    for each in ids:
        await backend.start(each, Template(name="test"))
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_an_owner_that_is_killed_takes_its_containers_along(
    place: contained.ContainedPlace,
) -> None:
    workspace_id = new_id()
    process = await asyncio.to_thread(start_owner, place, workspace_id)
    pid = int(place.container(workspace_id)["State"]["Pid"])
    process.kill()
    process.wait()
    await contained.gone(pid)
    deadline = time.monotonic() + 15
    while place.left():
        assert time.monotonic() < deadline, place.left()
        await asyncio.sleep(0.05)


async def test_a_killed_supervisor_takes_its_container_along_and_stop_tidies(
    place: contained.ContainedPlace,
) -> None:
    async with place.live() as desktop:
        state = remains.load(str(place.run_dir / desktop.id))
        assert state is not None
        os.kill(state["supervisor"]["pid"], signal.SIGKILL)
        await contained.gone(desktop.pid)  # by itself
        assert "killed" in await asyncio.wait_for(place.backend.wait(desktop.id), 5)
        assert await place.another().list() == [desktop.id]
        await place.another().stop(desktop.id)
        assert place.left() == []


async def test_what_is_left_of_a_sandbox_is_found_by_its_labels(
    place: contained.ContainedPlace,
) -> None:
    async with place.live() as desktop:
        state = remains.load(str(place.run_dir / desktop.id))
        assert state is not None
        os.kill(state["supervisor"]["pid"], signal.SIGSTOP)  # it removes nothing
        os.rename(place.run_dir / desktop.id, place.run_dir / "aside")
        assert await place.another().list() == [desktop.id]
        os.rename(place.run_dir / "aside", place.run_dir / desktop.id)
        os.kill(state["supervisor"]["pid"], signal.SIGCONT)


def send_endlessly(path: Path) -> None:
    """A request that never ends, which the stand-in keeps in memory."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(
            b"POST / HTTP/1.1\r\nAuthorization: no\r\nContent-Length: 1000000000\r\n\r\n"
        )
        with suppress(OSError):
            while True:
                client.sendall(bytes(1 << 20))


async def test_running_out_of_memory_as_a_whole_is_told(place: contained.ContainedPlace) -> None:
    async with place.live(memory_mib=256) as desktop:
        waiting = asyncio.ensure_future(place.backend.wait(desktop.id))
        path = place.run_dir / desktop.id / "desktopd.sock"
        await asyncio.to_thread(send_endlessly, path)
        assert "256 MiB of memory did not suffice" in await asyncio.wait_for(waiting, 20)


async def refused(place: contained.ContainedPlace, **options: object) -> StartFailed | Exception:
    with pytest.raises((StartFailed, BackendUnavailable)) as caught:
        await place.another(**options).start(new_id(), a_template())
    assert place.left() == []
    return caught.value


async def test_what_is_missing_is_named_with_what_to_do(place: contained.ContainedPlace) -> None:
    error = await refused(place, image="nowhere:latest")
    assert isinstance(error, BackendUnavailable)
    assert "nowhere:latest" in error.message
    assert "make image" in error.hint
    error = await refused(place, runtime="no-such-runtime")  # which Podman passes over in silence
    assert "not by no-such-runtime" in str(error)
    error = await refused(place, host="unix:///nowhere/docker.sock")
    assert isinstance(error, BackendUnavailable)
    assert "CARREL_DOCKER_HOST" in error.hint
    with pytest.raises(BackendUnavailable):
        await place.another(host="unix:///nowhere/docker.sock").list()


async def test_a_desktop_that_cannot_start_says_why(place: contained.ContainedPlace) -> None:
    with pytest.raises(StartFailed) as caught:
        await place.backend.start(new_id(), a_template(environment={"STAND_IN": "dead"}))
    assert "exit code 3" in caught.value.message
    assert "these are my last words" in caught.value.message
    told = json.dumps({"error": {"code": "x", "message": "no window manager", "hint": ""}})
    with pytest.raises(StartFailed, match="no window manager"):
        await place.backend.start(new_id(), a_template(environment={"STAND_IN": told}))
    hasty = place.another(start_seconds=2)
    with pytest.raises(StartFailed, match="not ready within"):
        await hasty.start(new_id(), a_template(environment={"STAND_IN": "silent"}))


async def test_refuses_what_it_cannot_run(place: contained.ContainedPlace) -> None:
    for bad in ("", "../../etc", "UPPERCASE1", "a" * 21, "short"):
        with pytest.raises(InvalidRequest):
            await place.backend.start(bad, a_template())
        with pytest.raises(InvalidRequest):
            await place.backend.stop(bad)
    with pytest.raises(WorkspaceNotFound):
        await place.backend.stats(new_id())


async def test_the_doctor_says_what_an_engine_has(engine: Engine) -> None:
    def found(**options: object) -> dict[str, checks.Check]:
        given = {"host": f"unix://{engine.path}", "image": podman.IMAGE} | options
        return {each.name: each for each in checks.checks(Options.model_validate(given))}

    whole = await asyncio.to_thread(found)
    assert [each.name for each in whole.values() if not each.is_ok] == []
    assert "Podman" in whole["engine"].detail
    lacking = await asyncio.to_thread(found, image="nowhere", runtime="none")
    assert [name for name, each in lacking.items() if not each.is_ok] == ["image", "runtime"]
    away = await asyncio.to_thread(found, host="unix:///nowhere/docker.sock")
    assert list(away) == ["engine"]
    assert "CARREL_DOCKER_HOST" in away["engine"].mend
