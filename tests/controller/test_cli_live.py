"""The command line against a real controller over HTTP, with fake desktops behind it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI

from controller.settings import Settings
from tests.controller.conftest import KEY
from tests.serving import listening
from tests.waiting import until


class CommandLine(Protocol):
    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def environment(app: FastAPI, settings: Settings) -> Iterator[dict[str, str]]:
    """The environment of commands to the application, which is served."""
    with start_blocking_portal() as portal, ExitStack() as stack:
        stack.enter_context(portal.wrap_async_context_manager(app.router.lifespan_context(app)))
        port = stack.enter_context(portal.wrap_async_context_manager(listening(app)))
        yield {
            **{name: value for name, value in os.environ.items() if "CARREL" not in name},
            "CARREL_HOME": str(settings.home),
            "CARREL_API_KEY": KEY,
            "CARREL_URL": f"http://127.0.0.1:{port}",
        }


@pytest.fixture
def carrel(environment: dict[str, str], tmp_path: Path) -> CommandLine:
    """Runs a command against the served application, in ``tmp_path``."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controller.cli", *arguments],
            env=environment,
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def desktop(carrel: CommandLine) -> str:
    template = {"name": "faked", "backend": "fake"}
    added = carrel("templates", "add", "-", stdin=json.dumps(template))
    assert (added.returncode, added.stdout) == (0, "faked\n"), added.stderr
    made = carrel("new", "faked", "--name", "Tour", "--ttl", "600")
    assert made.returncode == 0, made.stderr
    assert "watch it: http" in made.stderr
    return made.stdout.strip()


def test_the_id_alone_is_on_stdout_and_the_list_shows_it(carrel: CommandLine, desktop: str) -> None:
    (row,) = carrel("ls").stdout.splitlines()
    assert row.split("\t")[:4] == [desktop, "Tour", "faked", "ready"]
    (told,) = json.loads(carrel("ls", "--json").stdout)
    assert told["id"] == desktop
    status = json.loads(carrel("status", "--json").stdout)
    assert [each["id"] for each in status["desktops"]] == [desktop]
    assert "faked" in carrel("templates").stdout
    assert carrel("nodes").stdout.startswith("here\t")


def test_a_desktop_is_asked_for_by_what_it_can(carrel: CommandLine) -> None:
    template = {"name": "able", "backend": "fake", "capabilities": ["faking", "browser"]}
    assert carrel("templates", "add", "-", stdin=json.dumps(template)).returncode == 0
    made = carrel("new", "--with", "faking", "--with", "browser")
    assert made.returncode == 0, made.stderr
    (row,) = carrel("ls").stdout.splitlines()
    assert row.split("\t")[2] == "able"
    none = carrel("new", "--with", "flying")
    assert none.returncode != 0
    assert "able (faking, browser)" in none.stderr
    both = carrel("new", "able", "--with", "faking")
    assert both.returncode != 0
    assert "not both" in both.stderr


def test_pools_are_scaled_and_shown(carrel: CommandLine, desktop: str) -> None:
    scaled = carrel("scale", "faked", "--warm", "2", "--max", "9")
    assert scaled.returncode == 0, scaled.stderr
    assert scaled.stdout.split("\t")[0] == "faked"
    until(lambda: carrel("scale").stdout.splitlines()[-1].startswith("faked\tfilled\t2 of 2\t"), 60)
    shown = {each["template"]: each for each in json.loads(carrel("scale", "--json").stdout)}
    assert shown["faked"]["pool"]["max"] == 9
    assert (shown["faked"]["warm"], shown["faked"]["live"]) == (2, 1)
    status = carrel("status").stdout
    assert "pool        faked (filled, 2 of 2 warm; 0 of 1 claims had a warm one)" in status
    assert "queue       no claims wait" in status
    for arguments in (["nothing", "--warm", "1"], ["faked", "--warm", "-1"], ["--warm", "1"]):
        refused = carrel("scale", *arguments)
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: ")


def test_a_desktop_without_an_ide_says_so(carrel: CommandLine, desktop: str) -> None:
    for arguments in (["health", desktop], ["open", desktop, "src/app.py:12:3"]):
        refused = carrel("ide", *arguments)
        assert refused.returncode == 1
        assert "(no_ide)" in refused.stderr
    wrong = carrel("ide", "problems", desktop, "--least", "nothing", "--json")
    assert json.loads(wrong.stdout)["code"] == "invalid_request"


def test_release_is_told_and_a_second_one_is_no_error(carrel: CommandLine, desktop: str) -> None:
    assert carrel("rm", desktop).stdout == f"{desktop}\n"
    assert json.loads(carrel("rm", desktop, "--json").stdout) == {"released": [desktop]}
    assert json.loads(carrel("ls", "--json").stdout) == []
    (ended,) = json.loads(carrel("ls", "--all", "--json").stdout)
    assert ended["state"] == "released"
    gone = carrel("shot", desktop, "--json")
    assert gone.returncode == 1
    assert json.loads(gone.stdout)["code"] == "workspace_ended"


def test_a_screenshot_goes_to_the_file_asked_for(
    carrel: CommandLine, desktop: str, tmp_path: Path
) -> None:
    assert carrel("shot", desktop).stdout == f"{desktop}.jpg\n"
    assert (tmp_path / f"{desktop}.jpg").read_bytes().startswith(b"\xff\xd8")
    shot = ("shot", desktop, "-o", "part.png", "--region", "10,20,300,200", "--json")
    told = json.loads(carrel(*shot).stdout)
    assert (told["path"], told["width"], told["height"]) == ("part.png", 300, 200)
    assert (tmp_path / "part.png").read_bytes().startswith(b"\x89PNG")
    lost = carrel("shot", desktop, "-o", "no/such/folder.png")
    assert lost.returncode == 1
    assert "cannot be written" in lost.stderr


@pytest.mark.parametrize(
    "action",
    [
        ("click", "10", "20", "--button", "right", "--count", "2", "--modifier", "ctrl"),
        ("type", "Grüße, 世界 🚀"),
        ("key", "ctrl+s"),
        ("scroll", "3", "--at", "5,6"),
        ("drag", "1,2", "3,4"),
    ],
)
def test_actions_say_what_was_seen(
    carrel: CommandLine, desktop: str, action: tuple[str, ...]
) -> None:
    verb, *rest = action
    done = carrel(verb, desktop, *rest)
    assert done.returncode == 0, done.stderr
    assert "the pointer is at" in done.stdout
    seen = json.loads(carrel(verb, desktop, *rest, "--json").stdout)
    assert seen["screen"] == [1280, 800]
    assert "screenshot" not in seen


def test_an_action_off_the_screen_is_refused(carrel: CommandLine, desktop: str) -> None:
    off = carrel("click", desktop, "5000", "20")
    assert off.returncode == 1
    assert "(off_screen)" in off.stderr
    assert "hint: " in off.stderr


def test_files_go_in_and_out(carrel: CommandLine, desktop: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Grüße")
    told = carrel("cp", "note.txt", f"{desktop}:/home/user/note.txt")
    assert told.returncode == 0, told.stderr
    assert carrel("cp", f"{desktop}:/home/user/note.txt", "-").stdout == "Grüße"
    (tmp_path / "folder").mkdir()
    assert carrel("cp", f"{desktop}:/home/user/note.txt", "folder").returncode == 0
    assert (tmp_path / "folder" / "note.txt").read_text() == "Grüße"
    assert carrel("cp", "-", f"{desktop}:/home/user/in", stdin="piped").returncode == 0
    assert carrel("cp", f"{desktop}:/home/user/in", "-").stdout == "piped"


@pytest.mark.parametrize("source", ["missing", "."])
def test_a_file_that_cannot_be_read_is_said_so(
    carrel: CommandLine, desktop: str, source: str
) -> None:
    done = carrel("cp", source, f"{desktop}:/home/user/x")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr or "is a directory" in done.stderr


def test_a_file_missing_in_the_desktop_leaves_nothing_here(
    carrel: CommandLine, desktop: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    done = carrel("cp", f"{desktop}:/home/user/missing", "here")
    assert done.returncode == 1
    assert "(file_not_found)" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_log_tells_who_did_what(carrel: CommandLine, desktop: str) -> None:
    carrel("key", desktop, "ctrl+s")
    told: list[dict[str, object]] = []
    deadline = time.monotonic() + 10
    while len({event["kind"] for event in told}) < 2:  # events are written in the background
        assert time.monotonic() < deadline
        told = json.loads(carrel("logs", desktop, "--json").stdout)
    assert {event["workspace_id"] for event in told} == {desktop}
    assert len(carrel("logs", desktop).stdout.splitlines()) >= len(told)


def test_an_unknown_template_is_said_so(carrel: CommandLine) -> None:
    done = carrel("new", "no-such")
    assert done.returncode == 1
    assert "(template_not_found)" in done.stderr


def test_a_desktop_that_does_not_start_is_said_so(carrel: CommandLine) -> None:
    failing = {"FAKE_START_ERROR": "There is no X server."}
    template = {"name": "failing", "backend": "fake", "environment": failing}
    carrel("templates", "add", "-", stdin=json.dumps(template))
    done = carrel("new", "failing", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "start_failed", done.stdout
    assert "There is no X server." in json.loads(done.stdout)["message"]


def test_watch_prints_a_link_where_there_is_no_browser(carrel: CommandLine, desktop: str) -> None:
    told = json.loads(carrel("watch", desktop, "--control", "--json").stdout)
    assert f"/watch/{desktop}?control#" in told["watch_url"]
    missing = carrel("watch", "zzzzzzzzzz")
    assert missing.returncode == 1
    assert "(workspace_not_found)" in missing.stderr


def test_keys_are_made_told_once_and_revoked(carrel: CommandLine) -> None:
    made = carrel("keys", "new", "ci", "--role", "viewer", "--tenant", "billing", "--ttl", "3600")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    key_id = key.split("_")[1]
    assert key_id in made.stderr
    assert key not in made.stderr
    listed = carrel("keys")
    assert listed.stdout.startswith(f"{key_id}\tci\tviewer\tbilling\t")
    assert carrel("keys", "revoke", key_id).stdout == f"{key_id}\n"
    unknown = carrel("keys", "revoke", "nothere222", "--json")
    assert (unknown.returncode, json.loads(unknown.stdout)["code"]) == (1, "key_not_found")
    assert carrel("keys", "new", "x", "--role", "king").returncode == 2


def test_top_is_told_once_where_nobody_looks(carrel: CommandLine, desktop: str) -> None:
    plain = carrel("top")
    assert plain.returncode == 0, plain.stderr
    assert "queue       no claims wait" in plain.stdout
    (line,) = [line for line in plain.stdout.splitlines() if line.startswith(desktop)]
    assert line.split("\t")[1:4] == ["Tour", "faked", "ready"]
    assert "\x1b" not in plain.stdout
    told = json.loads(carrel("top", "--json").stdout)
    assert told["strays"] == 0
    (one,) = told["desktops"]
    assert one["id"] == desktop
    assert one["unused_seconds"] >= 0
    assert one["stats"]["cores"] == 0


def test_top_is_drawn_on_a_terminal_until_it_is_interrupted(
    carrel: CommandLine, desktop: str, environment: dict[str, str]
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "top", "--seconds", "0.5"],
        env=environment | {"TERM": "xterm", "COLUMNS": "200", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while shown.count(desktop.encode()) < 3:  # drawn more than once
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"no claims wait" in shown


def test_what_tenants_may_have_is_set_and_shown(carrel: CommandLine) -> None:
    changed = carrel("tenants", "set", "billing", "--desktops", "5", "--hours", "100.5")
    assert changed.stdout == "billing\t0 of 5\t0\t0\t0 of 100.5\t-\t-\t-\n", changed.stderr
    told = json.loads(carrel("tenants", "--json").stdout)
    assert [(each["name"], each["quotas"]["workspaces"]) for each in told] == [
        ("billing", 5),
        ("default", None),
    ]
