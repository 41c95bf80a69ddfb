"""What is kept, how surely, and how the schema comes to be."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.events import Events
from controller.store import NewEvent, Seen, Store, databases
from controller.store.migrations import configuration, upgrade
from controller.store.tables import metadata
from tests.controller.conftest import both_databases, keep, on_postgres
from workspace.errors import InvalidRequest, Unavailable
from workspace.models import ErrorInfo, Screen, Workspace

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'carrel.db'}"


@asynccontextmanager
async def raw(database_url: str) -> AsyncIterator[AsyncConnection]:
    """A connection beside the store's."""
    engine = databases.transactional(databases.connect(database_url))
    async with engine.begin() as connection:
        yield connection
    await engine.dispose()


def list_(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def workspace(workspace_id: str = "abcdefghjk") -> Workspace:
    return Workspace(
        id=workspace_id,
        name="n",
        state="ready",
        template="desktop",
        screen=Screen(width=800, height=600),
        created_at=NOW,
        expires_at=NOW,
        metadata={"ключ": "значение"},
        node="here",
        error=ErrorInfo(code="start_failed", message="why"),
    )


@both_databases
async def test_a_workspace_comes_back_as_it_was(database_url: str) -> None:
    store = Store(database_url)
    async with store.run():
        await keep(store, workspace(), owner="admin")
        assert await store.get("abcdefghjk") == workspace()
        changed = workspace().model_copy(update={"state": "released", "ended_at": NOW})
        await store.save(changed, keeper="me")
        assert await store.get("abcdefghjk") == changed
        await store.save(workspace(), keeper="me")  # late, from before the end
        assert await store.get("abcdefghjk") == changed
        assert await store.get("nothere222") is None
        with pytest.raises(InvalidRequest):
            await store.page(None, limit=5, after="nothere222")
        await store.ping()


@both_databases
async def test_pages_hold_together_when_times_are_equal(database_url: str) -> None:
    store = Store(database_url)
    ids = [f"abcdefgh{n:02}" for n in range(7)]
    async with store.run():
        for each in ids:
            await keep(store, workspace(each), owner="admin")
        found: list[str] = []
        while page := await store.page(["ready"], limit=3, after=found[-1] if found else None):
            found += [each.id for each in page]
        assert found == ids[::-1]


@both_databases
async def test_the_schema_is_what_the_tables_say_and_a_second_start_keeps_it(
    database_url: str,
) -> None:
    for _ in range(2):
        store = Store(database_url)
        async with store.run():
            await store.append([NewEvent(NOW, None, "admin", "test", {})])

    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        script = ScriptDirectory.from_config(configuration())
        assert context.get_current_revision() == script.get_current_head()

    async with raw(database_url) as connection:
        await connection.run_sync(compare)


def _steps() -> list[str]:
    script = ScriptDirectory.from_config(configuration())
    return [step.revision for step in script.walk_revisions()][::-1]


@both_databases
@pytest.mark.parametrize("step", _steps())
async def test_every_earlier_schema_is_brought_up_to_date(database_url: str, step: str) -> None:
    (Path(database_url.partition(":///")[2]).parent).mkdir(exist_ok=True)
    async with raw(database_url) as connection:
        await connection.run_sync(upgrade, step)
    async with (store := Store(database_url)).run():
        await keep(store, workspace(), owner="admin")
        await store.append([NewEvent(NOW, "abcdefghjk", "admin", "test", {})])
        assert await store.get("abcdefghjk") == workspace()


@on_postgres  # of a file of SQLite one controller has a lock
async def test_several_may_start_at_once(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(3)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(store.run()) for store in stores))
        await keep(stores[0], workspace(), owner="admin")
        assert await stores[2].get("abcdefghjk") == workspace()


@both_databases
async def test_any_text_is_kept_but_for_what_no_database_takes(database_url: str) -> None:
    hard = (
        "\U0001f9d1\u200d\U0001f680 \u202e\ufeff ' \" ; -- \\u0000 \\\\ {} \x1f\x7f "
        + "é" * 200_000
    )
    kept = workspace().model_copy(
        update={
            "name": "'; DROP TABLE workspaces; --",
            "error": ErrorInfo(code="start_failed", message=hard),
            "created_at": NOW.astimezone(timezone(timedelta(hours=-5, minutes=-30))),
        }
    )
    async with (store := Store(database_url)).run():
        await keep(store, kept, owner="admin")
        await keep(store, kept, owner="another")  # done twice it is as done once
        found = await store.get(kept.id)
        assert found == kept
        assert found.created_at.utcoffset() == timedelta(0)
        data = {"text": hard, "nul\0": ["a\0b", {"c": "\\\0"}], "big": 2**53 + 1, "none": None}
        await store.append([NewEvent(NOW, kept.id, "admin", "test", data)])
        (event,) = await store.events(Seen(kept.id), limit=9)
        assert event.at == NOW
        assert event.data == {
            "text": hard,
            "nul\ufffd": ["a\ufffdb", {"c": "\\\ufffd"}],
            "big": 2**53 + 1,
            "none": None,
        }
        assert await store.get("\0") is None
        with pytest.raises(InvalidRequest):
            await store.page(None, limit=5, after="\0")


@both_databases
async def test_many_may_write_at_once(database_url: str) -> None:
    ids = [f"abcdefg{n:03}" for n in range(60)]
    async with (store := Store(database_url)).run():
        await asyncio.gather(*(keep(store, workspace(each), owner="admin") for each in ids))
        states = ("released", "failed")
        await asyncio.gather(
            *(
                store.save(workspace(each).model_copy(update={"state": state}), keeper="me")
                for each in ids
                for state in states
            )
        )
        assert {each.id for each in await store.page(states, limit=100)} == set(ids)


async def test_a_database_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "carrel.db").write_bytes(b"this is no database, whatever it is" * 100)
    with pytest.raises(Unavailable, match="cannot be used"):
        async with Store(url(tmp_path)).run():
            pass
    newer = tmp_path / "newer"
    newer.mkdir()
    async with Store(url(newer)).run():
        pass
    connection = sqlite3.connect(newer / "carrel.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(Unavailable, match="9999"):
        async with Store(url(newer)).run():
            pass


async def test_sqlite_is_private_and_durable(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    async with store.run():
        await store.append([NewEvent(NOW, None, "admin", "test", {})])
        async with store._engine.connect() as connection:
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 1)):  # 1: NORMAL
                found = await connection.execute(text(f"PRAGMA {pragma}"))
                assert found.scalar_one() == value
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in list_(tmp_path)}
        assert modes == dict.fromkeys(("carrel.db", "carrel.db-wal", "carrel.db-shm"), 0o600)


@both_databases
async def test_events_are_kept_in_order_and_in_groups(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(database_url)
    groups: list[int] = []
    append = store.append

    async def counted(new: list[NewEvent]) -> None:
        groups.append(len(new))
        await append(new)

    monkeypatch.setattr(store, "append", counted)
    async with store.run():
        events = Events(store)
        async with events.run():
            await asyncio.gather(*(events.record("k", actor="a", n=n) for n in range(1200)))
        kept = await store.events(limit=2000)
        assert [event.data["n"] for event in kept] == list(range(1200))
        assert sum(groups) == 1200
        assert len(groups) <= 5
        with pytest.raises(Unavailable):  # it is closed
            await events.record("k", actor="a")


@both_databases
async def test_a_log_that_cannot_be_written_says_so_and_goes_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(database_url)
    async with store.run():
        events = Events(store)
        async with events.run():
            with pytest.raises(Unavailable, match="cannot be written"):
                await events.record("k", actor="a", bad={1, 2})  # no JSON
            await events.record("k", actor="a", good=1)
        (kept,) = await store.events(limit=10)
        assert kept.data == {"good": 1}


@both_databases
async def test_a_caller_that_gives_up_does_not_hold_the_others_up(database_url: str) -> None:
    store = Store(database_url)
    async with store.run():
        events = Events(store)
        async with events.run():
            first = asyncio.ensure_future(events.record("k", actor="a", n=1))
            second = asyncio.ensure_future(events.record("k", actor="a", n=2))
            await asyncio.sleep(0)
            first.cancel()
            await second
        assert len(await store.events(limit=10)) == 2


_WRITER = """
import asyncio, sys
from controller.events import Events
from controller.store import Store

async def main():
    store = Store(sys.argv[1])
    async with store.run():
        events = Events(store)
        async with events.run():
            n = 0
            while True:
                await events.record("k", actor="a", n=n)
                print(n, flush=True)
                n += 1

asyncio.run(main())
"""


@both_databases
def test_what_was_acknowledged_survives_a_kill(database_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, database_url], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = -1
        while said < 200:
            said = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        said = max([said, *(int(line) for line in writer.stdout if line.endswith("\n"))])

    async def read() -> list[object]:
        store = Store(database_url)
        async with store.run():
            return [event.data["n"] for event in await store.events(limit=100_000)]

    kept = asyncio.run(read())
    assert kept[: said + 1] == list(range(said + 1))
