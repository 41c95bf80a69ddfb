from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from sqlalchemy import text

from controller.store import NewEvent, Store
from controller.store.journal import AsyncJournal, ThreadJournal
from tests.controller.conftest import both_databases
from workspace.errors import Unavailable

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
KILLED = """
import asyncio, os, signal, sys
from controller.store import Store
from tests.controller.test_journal import event

async def main():
    async with (store := Store(sys.argv[1])).run():
        await store.append([event("one"), event("two")])
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'carrel.db'}"


def event(kind: str, actor: str = "admin") -> NewEvent:
    return NewEvent(NOW, None, actor, kind, {"ключ": [1]})


async def kinds(store: Store) -> list[str]:
    return [each.kind for each in await store.events(limit=100)]


@both_databases
async def test_what_was_appended_survives_a_kill(database_url: str) -> None:
    command = [sys.executable, "-c", KILLED, database_url]
    assert (await asyncio.to_thread(subprocess.run, command, timeout=60)).returncode == -9
    async with (store := Store(database_url)).run():
        assert await kinds(store) == ["one", "two"]


@both_databases
async def test_a_commit_that_fails_leaves_nothing_and_the_next_is_kept(database_url: str) -> None:
    store = Store(database_url)
    is_sqlite = database_url.startswith("sqlite")
    assert isinstance(store._log, ThreadJournal if is_sqlite else AsyncJournal)
    async with store.run():
        await store.append([event("one")])
        nobody: str = None  # type: ignore[assignment]  # what the table does not take
        with pytest.raises(Unavailable):
            await store.append([event("two"), event("three", nobody)])
        await store.append([event("four")])
        assert await kinds(store) == ["one", "four"]


async def test_the_journal_writes_as_the_rest_does(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    async with store.run():
        assert isinstance(store._log, ThreadJournal)
        asked = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        found = [
            await store._log._do(store._log._opened().scalar, text(f"PRAGMA {name}"))
            for name in asked
        ]
        assert found == ["wal", 1, 5000, 1]
