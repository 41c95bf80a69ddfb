"""Backup and restore: every way between the databases, whole or not at all."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any  # JSON values

import pytest

from controller.store import NewEvent, Store
from controller.store.backup import backup, restore
from tests.controller.conftest import both_databases, keep, on_postgres
from tests.controller.test_store import workspace
from tests.postgres import Postgres
from tests.waiting import until
from workspace.errors import Conflict, FileExists, InvalidRequest, Unavailable
from workspace.folders import only_one
from workspace.models import Event, Workspace

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
HARD = "\U0001f9d1 ' \" \\u0000 \x1f " + "é" * 5000


async def fill(url: str, events: int = 1203, text: str = HARD) -> None:
    async with (store := Store(url)).run():
        for n in range(7):
            changes: dict[str, object] = {"name": HARD[:40], "ready_at": NOW + timedelta(seconds=n)}
            if n:
                changes["error"] = None
            await keep(store, workspace(f"abcdefgh{n:02}").model_copy(update=changes), owner="me")
        data = {"text": text, "list": [1, None, {"a": 0.5}]}
        await store.append([NewEvent(NOW, None, "admin", f"k{n}", data) for n in range(events)])


async def contents(url: str) -> tuple[list[Workspace], list[Event]]:
    async with (store := Store(url)).run():
        return await store.page(None, limit=1000), await store.events(limit=10_000)


def lines(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt") as text:
        return [json.loads(line) for line in text]


def write(file: Path, told: list[dict[str, Any]]) -> Path:
    with gzip.open(file, "wt") as text:
        text.writelines(json.dumps(line) + "\n" for line in told)
    return file


@both_databases
@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
async def test_state_goes_from_one_database_to_another(
    database_url: str, to: str, server: Postgres, tmp_path: Path
) -> None:
    other = server.database() if to == "postgresql" else f"sqlite+aiosqlite:///{tmp_path / 'o.db'}"
    await fill(database_url)
    file = tmp_path / "backup"
    written = await backup(database_url, file)
    assert (written["workspaces"], written["events"]) == (7, 1203)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await restore(other, file) == written
    assert await contents(other) == await contents(database_url)
    async with (store := Store(other)).run():
        await store.append([NewEvent(NOW, None, "admin", "next", {})])
        (new,) = await store.events(after=1203, limit=10)
        assert new.id == 1204, "ids go on where they were"
    again = tmp_path / "again"
    await backup(database_url, again)
    assert lines(again)[1:] == lines(file)[1:]


@both_databases
async def test_a_backup_is_of_one_moment_and_holds_nobody_up(
    database_url: str, tmp_path: Path
) -> None:
    await fill(database_url)
    async with (store := Store(database_url)).run():
        ended = asyncio.Event()

        async def go_on() -> int:
            wrote = 0
            while not ended.is_set():
                await store.append([NewEvent(NOW, None, "admin", "meanwhile", {})] * 2)
                wrote += 1
            return wrote

        writer = asyncio.ensure_future(go_on())
        await asyncio.sleep(0.05)
        counts = await backup(database_url, tmp_path / "backup")
        ended.set()
        assert await writer > 1
    ids = [
        line["row"]["id"] for line in lines(tmp_path / "backup") if line.get("table") == "events"
    ]
    assert ids == list(range(1, counts["events"] + 1))
    assert (counts["events"] - 1203) % 2 == 0


@both_databases
async def test_what_is_not_empty_is_left_alone(database_url: str, tmp_path: Path) -> None:
    await fill(database_url, events=3)
    await backup(database_url, tmp_path / "backup")
    before = await contents(database_url)
    with pytest.raises(Conflict, match="not empty"):
        await restore(database_url, tmp_path / "backup")
    assert await contents(database_url) == before
    with pytest.raises(FileExists):
        await backup(database_url, tmp_path / "backup")


@on_postgres
async def test_a_controller_that_runs_is_not_restored_under(
    database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    await fill(f"sqlite+aiosqlite:///{tmp_path / 'o.db'}", events=3)
    await backup(f"sqlite+aiosqlite:///{tmp_path / 'o.db'}", file)
    async with Store(database_url).run():
        with pytest.raises(Conflict, match="A controller uses"):
            await restore(database_url, file)
    assert (await restore(database_url, file))["events"] == 3


_BROKEN = {
    "cut off": lambda told: told[:-1],
    "not whole": lambda told: [*told[:3], told[-1]],
    "no backup": lambda told: told[1:],
    "newer": lambda told: [{**told[0], "carrel_backup": 99}, *told[1:]],
    "newer schema": lambda told: [{**told[0], "schema": "9999"}, *told[1:]],
    "another table": lambda told: [*told[:2], {"table": "secrets", "row": {}}, *told[2:]],
    "no row": lambda told: [*told[:2], {"table": "events", "row": 5}, *told[2:]],
    "another column": lambda told: [*told[:2], {"table": "events", "row": {"x": 1}}, *told[2:]],
    "no time": lambda told: [told[0], {**told[1], "row": {**told[1]["row"], "created_at": 5}}],
    "no number": lambda told: [*told[:-1], {"end": "all"}],
    "empty": lambda told: [],
}


@both_databases
@pytest.mark.parametrize("how", _BROKEN)
async def test_what_is_no_whole_backup_leaves_nothing(
    database_url: str, how: str, tmp_path: Path
) -> None:
    source = f"sqlite+aiosqlite:///{tmp_path / 'source.db'}"
    await fill(source, events=20)
    await backup(source, tmp_path / "backup")
    broken = write(tmp_path / "broken", _BROKEN[how](lines(tmp_path / "backup")))
    with pytest.raises(InvalidRequest):
        await restore(database_url, broken)
    assert not (tmp_path / "home" / "carrel.db").exists()
    assert (await restore(database_url, tmp_path / "backup"))["events"] == 20


async def test_bytes_that_are_no_backup_are_refused(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'source.db'}"
    target = f"sqlite+aiosqlite:///{tmp_path / 'target.db'}"
    with pytest.raises(Unavailable, match="no state"):
        await backup(url, tmp_path / "backup")
    await fill(url)
    await backup(url, tmp_path / "backup")
    whole = (tmp_path / "backup").read_bytes()
    for wrong in (b"", b"nothing", whole[:-200], whole[:500] + b"\0" * 99 + whole[600:]):
        (tmp_path / "wrong").write_bytes(wrong)
        with pytest.raises(InvalidRequest):
            await restore(target, tmp_path / "wrong")
    with pytest.raises(InvalidRequest, match="No such file"):
        await restore(target, tmp_path / "nowhere")
    assert sorted(os.listdir(tmp_path)) == ["backup", "source.db", "wrong"]


async def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'source.db'}"
    await fill(url, events=3)
    for nowhere in (tmp_path / "none" / "backup", Path("/proc/backup")):
        with pytest.raises(Unavailable, match="cannot be written"):
            await backup(url, nowhere)


def carrel(home: Path, url: str, *args: str) -> subprocess.Popen[str]:
    """The command, as it is run."""
    code = "import sys; from controller.cli import main; sys.argv[0] = 'carrel'; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env={
            **os.environ,
            "CARREL_HOME": str(home),
            "CARREL_RUN_DIR": str(home / "run"),
            "CARREL_DATABASE_URL": url,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_commands_move_state_and_refuse_a_controller_that_runs(
    tmp_path: Path, server: Postgres
) -> None:
    url, file = f"sqlite+aiosqlite:///{tmp_path / 'source.db'}", str(tmp_path / "backup")
    asyncio.run(fill(url, events=3))
    home, other = tmp_path / "home", server.database()
    out, _ = (made := carrel(home, url, "backup", file, "--json")).communicate(timeout=60)
    assert made.returncode == 0
    assert json.loads(out)["rows"]["events"] == 3
    with only_one(home / "run" / "controller.lock"):
        _, told = (refused := carrel(home, other, "restore", file)).communicate(timeout=60)
        assert refused.returncode == 1
        assert "conflict" in told
    out, told = (done := carrel(home, other, "restore", file)).communicate(timeout=60)
    assert done.returncode == 0, told
    assert "3 events" in out
    assert "7 workspaces" in out
    assert not (home / "run").exists()
    assert asyncio.run(contents(other)) == asyncio.run(contents(url))


def test_a_backup_that_is_ended_leaves_no_file(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'source.db'}"
    asyncio.run(fill(url, events=20_000, text=HARD[:20]))
    backing = carrel(tmp_path / "home", url, "backup", str(tmp_path / "backup"))
    until(lambda: list(tmp_path.glob(".backup.*")) or backing.poll() is not None)
    backing.send_signal(signal.SIGTERM)
    backing.communicate(timeout=60)
    assert backing.returncode != 0
    assert not list(tmp_path.glob("*backup*"))
