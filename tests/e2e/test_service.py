"""`carrel up` as a process: in the background, twice, interrupted, killed, and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import conftest
from tests.leaks import Leftovers


def carrel(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [conftest.carrel(), *arguments],
        env=conftest.environment(home),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    before = Leftovers.now()
    yield tmp_path
    ended = carrel(tmp_path, "down")
    assert ended.returncode == 0, ended.stderr
    before.assert_none_since(seconds=15)
    assert not (tmp_path / "url").exists()


def test_in_the_background_and_down_again(home: Path) -> None:
    up = carrel(home, "up", "--detach", "--port", "0", "--json")
    assert up.returncode == 0, up.stderr
    told = json.loads(up.stdout)
    status = json.loads(carrel(home, "status", "--json").stdout)
    assert (status["url"], status["pid"], status["ray"]) == (told["url"], told["pid"], True)
    assert status["desktops"] == []
    assert (home / "log" / "controller.log").stat().st_size > 0

    second = carrel(home, "up", "--port", "0")
    assert second.returncode == 1
    assert f"already running for {home} (process {told['pid']}, {told['url']})" in second.stderr

    down = carrel(home, "down")
    assert down.returncode == 0, down.stderr
    assert f"ended the controller (process {told['pid']})" in down.stdout
    assert carrel(home, "status").returncode == 1


def test_what_a_killed_controller_left_is_told_and_ended(home: Path) -> None:
    service = conftest.start(home)
    os.killpg(service.process.pid, signal.SIGKILL)
    conftest.stop(service)
    status = carrel(home, "status")
    assert status.returncode == 1
    assert "a Ray that an earlier one left still does" in status.stderr
    down = carrel(home, "down")
    assert down.stdout == "ended the Ray that an earlier controller had left, with its desktops\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_is_interrupted_at_once_and_leaves_nothing(
    home: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [conftest.carrel(), "up", "--port", "0"],
        env=conftest.environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "starting Ray" in process.stderr.readline()
    process.send_signal(number)
    out, _ = process.communicate(timeout=conftest.STOP_SECONDS)
    assert out == ""


def test_a_background_start_that_fails_says_why(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        began = time.monotonic()
        up = carrel(home, "up", "--detach", "--port", str(port))
    assert up.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken" in up.stderr
    assert time.monotonic() - began < 30
