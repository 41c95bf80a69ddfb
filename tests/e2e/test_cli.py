"""The command line against a real desktop: its shell, and its screen for a VNC viewer."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import conftest
from tests.e2e.conftest import Service
from tests.waiting import until
from workspace import SyncCarrel
from workspace.actions import CursorPosition


@pytest.fixture(scope="module")
def desktop(service: Service) -> Iterator[str]:
    made = service.carrel("new")
    assert made.returncode == 0, made.stderr
    yield made.stdout.strip()
    assert service.carrel("rm", made.stdout.strip()).returncode == 0


def start(service: Service, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [conftest.carrel(), *arguments],
        env=service.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("command", "code", "out", "err"),
    [
        (["echo $HOME; echo bad >&2; exit 7"], 7, "/home/user\n", "bad\n"),
        (["printf", "%s", "$HOME"], 0, "$HOME", ""),
        (["kill -9 $$"], 137, "", ""),
        (["head -c 300000 /dev/zero | tr '\\0' x"], 0, "x" * 300_000, ""),
    ],
)
def test_a_command_passes_on_its_output_and_exit_code(
    service: Service, desktop: str, command: list[str], code: int, out: str, err: str
) -> None:
    done = service.carrel("exec", desktop, "--", *command)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)
    told = json.loads(service.carrel("exec", "--json", desktop, "--", *command).stdout)
    assert told == {"exit_code": code if code != 137 else -9, "stdout": out, "stderr": err}


def test_output_comes_while_the_command_runs_and_an_interrupt_ends_it(
    service: Service, desktop: str
) -> None:
    process = start(service, "exec", desktop, "--", "echo first; exec sleep 4321")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    end(process)
    assert service.carrel("exec", desktop, "--", "pgrep -f 'sleep 432[1]'").returncode == 1


def test_a_command_that_never_ends_is_ended(service: Service, desktop: str) -> None:
    done = service.carrel("exec", "--timeout", "0.5", "--json", desktop, "--", "sleep 4322")
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "command_timed_out"
    assert service.carrel("exec", desktop, "--", "pgrep -f 'sleep 432[2]'").returncode == 1


def test_files_in_and_out(service: Service, desktop: str, tmp_path: object) -> None:
    assert service.carrel("cp", "/etc/hostname", f"{desktop}:sub/").returncode == 0
    into = service.carrel("cp", "/etc/hostname", f"{desktop}:sub")  # an existing folder
    assert into.stdout.startswith("/home/user/sub/hostname (")
    out = service.carrel("cp", f"{desktop}:sub/hostname", "-")
    assert out.stdout == Path("/etc/hostname").read_text()


def test_a_recording_is_saved_also_when_it_is_interrupted(
    service: Service, desktop: str, tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    done = service.carrel("record", desktop, str(film), "--seconds", "0.5", "--json")
    told = json.loads(done.stdout)
    assert (told["path"], told["reason"]) == (str(film), "max_seconds")
    assert film.stat().st_size == told["size"]
    assert film.read_bytes()[4:8] == b"ftyp"
    process = start(service, "record", desktop, str(film), "--seconds", "600", "--json")

    def is_running() -> bool:
        return service.carrel("logs", desktop, "--json").stdout.count("recording_start") == 2

    until(is_running)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["reason"] == "stopped"
    lost = service.carrel("record", desktop, "/no/folder/film.mp4", "--seconds", "0.1")
    assert "cannot be written" in lost.stderr
    assert lost.returncode == 1


@pytest.mark.parametrize("role", ["view", "control"])
def test_a_vnc_viewer_sees_and_acts_by_its_role(service: Service, desktop: str, role: str) -> None:
    flags = ["--control"] if role == "control" else []
    process = start(service, "watch", desktop, "--vnc", *flags)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("vnc://127.0.0.1:")
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as viewer:
        stream = viewer.makefile("rwb", buffering=0)

        def read(count: int) -> bytes:
            data = b""
            while len(data) < count:
                piece = stream.read(count - len(data))
                assert piece, "the connection was closed"
                data += piece
            return data

        # RFC 6143: version, no security, shared, then the size of the screen.
        assert read(12) == b"RFB 003.008\n"
        viewer.sendall(b"RFB 003.008\n")
        assert b"\x01" in read(read(1)[0])
        viewer.sendall(b"\x01")
        assert read(4) == b"\0\0\0\0"
        viewer.sendall(b"\x01")
        assert read(4) == (1280).to_bytes(2, "big") + (800).to_bytes(2, "big")
        read(16)
        read(int.from_bytes(read(4), "big"))
        clicked = service.carrel("click", desktop, "5", "5")
        assert (clicked.returncode, "human_in_control" in clicked.stderr) == (
            (1, True) if role == "control" else (0, False)
        )
        viewer.sendall(b"\x05\x00" + (333).to_bytes(2, "big") + (222).to_bytes(2, "big"))
        expected = [333, 222] if role == "control" else [5, 5]
        deadline = time.monotonic() + (10 if role == "control" else 1)
        with SyncCarrel(service.url, service.key) as carrel:
            while time.monotonic() < deadline:
                seen = carrel.desktop(desktop).act(CursorPosition(), observe="none")
                if list(seen.cursor) == expected == [333, 222]:
                    break
            assert list(seen.cursor) == expected
    end(process)


def test_a_vnc_port_that_is_taken_is_said_so(service: Service, desktop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        done = service.carrel("watch", desktop, "--vnc", "--port", port)
    assert done.returncode == 1
    assert f"Port {port} cannot be used" in done.stderr
