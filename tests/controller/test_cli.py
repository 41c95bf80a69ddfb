"""The command line by itself: usage, errors, and what is refused before anything is started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pytest

from controller.cli import events, output, shell
from workspace.errors import StartFailed
from workspace.ide import IdeHealth
from workspace.models import Event

HEAVY = {"httpx", "pydantic", "ray", "fastapi", "uvicorn", "sqlalchemy", "mcp", "websockets"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield int(holder.getsockname()[1])


def carrel(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARREL_")}
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *arguments],
        env=kept
        | {"CARREL_HOME": str(home), "CARREL_RUN_DIR": str(home / "run"), "COLUMNS": "100"}
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from controller.cli import app; app(['--help'], standalone_mode=False);"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    for command in "up down status new ls rm shot click type key scroll drag exec cp".split():
        assert f" {command} " in done.stdout
    for command in "watch logs templates nodes doctor demo mcp".split():
        assert f" {command} " in done.stdout
    assert not HEAVY & {name.strip("[]' \n") for name in done.stderr.split(",")}


def test_version_tells_it(home: Path) -> None:
    done = carrel(home, "--version")
    assert (done.returncode, done.stdout) == (0, f"carrel {version('carrel')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["click", "abcdefgh", "here", "there"],
        ["new", "--env", "no-equals-sign"],
        ["cp", "here", "there"],
        ["cp", "abcdefgh:a", "ijklmnop:b"],
        ["drag", "abcdefgh", "1,2,3", "4,5"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(home: Path, arguments: list[str]) -> None:
    done = carrel(home, *arguments, CARREL_API_KEY="key")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["new"],
        ["rm", "abcdefgh"],
        ["click", "abcdefgh", "1", "2"],
        ["exec", "abcdefgh", "--", "true"],
        ["watch", "abcdefgh"],
        ["status"],
    ],
)
def test_without_a_controller_every_command_says_how_to_start_one(
    home: Path, free_port: int, arguments: list[str]
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    done = carrel(home, *arguments, CARREL_API_KEY="key", CARREL_URL=url)
    assert done.returncode == 1
    assert f"error: No controller answers at {url}. (unavailable)" in done.stderr
    assert "hint: Start it with `carrel up`." in done.stderr


def test_with_json_an_error_is_its_wire_object_on_stdout(home: Path) -> None:
    done = carrel(home, "ls", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "unauthorized"
    assert "carrel up" in json.loads(done.stdout)["hint"]


def test_what_the_models_refuse_is_an_error_that_names_the_field(home: Path) -> None:
    done = carrel(home, "click", "abcdefgh", "1", "2", "--button", "nose", CARREL_API_KEY="key")
    assert done.returncode == 1
    assert "button: Input should be 'left', 'middle'" in done.stderr
    assert "(invalid_request)" in done.stderr


def test_a_taken_port_is_refused_before_anything_is_started(home: Path, taken_port: int) -> None:
    done = carrel(home, "up", "--port", str(taken_port))
    assert done.returncode == 1
    assert f"Port {taken_port} on 127.0.0.1 is taken" in done.stderr
    assert "(port_taken)" in done.stderr
    assert done.stdout == ""
    assert list(home.rglob("*")) == []


def test_an_address_of_another_machine_is_refused(home: Path) -> None:
    done = carrel(home, "up", "--host", "192.0.2.1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "unavailable"


def test_down_with_nothing_running_is_success(home: Path) -> None:
    done = carrel(home, "down", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ended": "nothing was running"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (12.4, "12s"), (119, "119s"), (240, "4m"), (7500, "2h 5m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("abcdefgh:notes.txt", ("abcdefgh", "notes.txt")),
        ("abcdefgh2345:/etc/hosts", ("abcdefgh2345", "/etc/hosts")),
        ("abcdefgh:", ("abcdefgh", "")),
        ("./abcdefgh:file", None),
        ("short:file", None),
        ("-", None),
    ],
)
def test_which_side_is_the_desktop(given: str, parts: tuple[str, str] | None) -> None:
    match = shell.REMOTE.match(given)
    assert (match and match.groups()) == parts


_TITLE = "\x1b]0;mine\x07\x9b2J\r\u202egpj.exe"


def test_what_a_desktop_says_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME",), [(f"{_TITLE}\nok  forged",), ("Grüße, 世界 🚀",)])
    output.fail(StartFailed(f"It said:\n{_TITLE}", hint=_TITLE))
    event = Event(
        id=1, at=datetime.now(timezone.utc), actor="admin", kind="file_read", data={"path": _TITLE}
    )
    print(events.line(event))
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1] == "Grüße, 世界 🚀"
    assert [len(part.splitlines()) for part in printed] == [3, 3]
    shown = "\\u001b]0;mine\\u0007\\u009b2J\\u000d\\u202egpj.exe"
    assert (printed.out + printed.err).count(shown) == 4
    output.result(None, _TITLE)
    assert capsys.readouterr().out == f"{shown}\n"


def test_json_commands_no_terminal_and_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    reset = output._wants_json.set(True)
    try:
        output.result({"name": _TITLE})
    finally:
        output._wants_json.reset(reset)
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").isprintable()
    assert json.loads(printed) == {"name": _TITLE}


def test_a_model_is_printed_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "wants_json", lambda: True)
    output.result(IdeHealth(ide="vscode", phase="ready", message="\x1b[1m"))
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert json.loads(said)["phase"] == "ready"
