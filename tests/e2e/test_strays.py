"""What is left behind when everything is killed at once is removed at the next start."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from controller.settings import Settings
from tests.chaos.fleet import Controller
from tests.waiting import eventually, until

pytestmark = pytest.mark.anyio
GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def controller() -> Iterator[Controller]:
    with TemporaryDirectory(prefix="c-strays-") as home:
        running = Controller(Path(home), "the-key", {"CARREL_DESKTOPS": "4"})
        running.start()
        yield running
        running.clear()


def all_of(controller: Controller) -> list[psutil.Process]:
    """The controller, its Ray, the actors, and what those run."""
    run_dir = str(Settings(home=controller.home).sockets)
    roots = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(run_dir in word for word in process.info["cmdline"] or [])
    ]
    assert controller.process is not None
    roots.append(psutil.Process(controller.process.pid))
    return list({each for root in roots for each in [root, *root.children(recursive=True)]})


def kill_everything(controller: Controller) -> None:
    """At once: nobody of them sees another one die, or cleans up after it."""
    everything = all_of(controller)
    supervisors = [each for each in everything if "supervisor.py" in " ".join(each.cmdline())]
    assert len(supervisors) == 1
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    until(lambda: not any(process.is_running() for process in everything if not zombie(process)))
    controller.end()


def zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def left_of(controller: Controller, sandbox: str) -> list[Path]:
    settings = Settings(home=controller.home)
    folders = [settings.sockets / sandbox, settings.disks / sandbox]
    # By `walk`, which bears that folders go while it looks.
    groups = [Path(at) for at, _, _ in os.walk(GROUPS) if Path(at).name == f"carrel-{sandbox}"]
    return [*filter(Path.exists, folders), *groups]


async def test_a_sandbox_that_outlived_everything_is_removed_at_the_next_start(
    controller: Controller,
) -> None:
    async with controller.client() as http:
        made = (await http.post("/v1/workspaces", json={"template": "light"})).json()
        assert made["state"] == "ready", made
    await asyncio.to_thread(kill_everything, controller)
    assert len(left_of(controller, made["sandbox"])) >= 2, "nobody was there to clean up"

    await asyncio.to_thread(controller.start)
    async with controller.client() as http:
        mine = (await http.post("/v1/workspaces", json={"template": "light"})).json()
        ended = (await http.get(f"/v1/workspaces/{made['id']}")).json()
        assert ended["state"] == "failed"
        await eventually(lambda: not left_of(controller, made["sandbox"]), 60)
        events = (await http.get(f"/v1/workspaces/{made['id']}/events")).json()["events"]
        (stray,) = [event["data"] for event in events if event["kind"] == "stray"]
        assert stray["where"] == "sandbox"
        assert stray["node"]
        metrics = (await http.get("/metrics")).text
        assert "\ncarrel_strays 0.0\n" in metrics
        assert 'carrel_strays_removed_total{where="sandbox"} 1.0' in metrics
        assert (await http.get(f"/v1/workspaces/{mine['id']}/screenshot")).status_code == 200
