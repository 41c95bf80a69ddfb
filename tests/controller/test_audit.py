"""What is done to the log behind Carrel's back is found and named, in both databases."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.checkpointing import Checkpointing
from controller.events import Events
from controller.store import NewEvent, Seen, Store
from controller.store.backup import backup, restore
from controller.store.chain import Finding, Head, canonical, digest
from controller.store.checkpoints import Limits
from controller.store.exporting import export, verify_file
from controller.store.migrations import upgrade
from controller.store.signing import Signer
from controller.store.verifying import Report, verify
from tests.controller.conftest import both_databases, keep
from tests.controller.test_store import raw, workspace
from tests.postgres import Postgres
from workspace.access import Quotas
from workspace.errors import InvalidRequest, Unavailable

pytestmark = pytest.mark.anyio
SIGNER = Signer(b"the key of the tests")
NOW = datetime.now(timezone.utc).replace(microsecond=678901)
ONE, TWO, THREE = "abcdefgh11", "abcdefgh22", "abcdefgh33"
HARD = {"text": "\U0001f9d1 ' \" \\u0000 \x1f é", "list": [1, None, {"b": 0.5, "a": 2**60}]}


class Verified(NamedTuple):
    report: Report
    findings: list[Finding]

    @property
    def told(self) -> set[tuple[str | None, int | None, str]]:
        return {(each.chain, each.seq, each.what) for each in self.findings}


async def verified(url: str, signer: Signer | None = SIGNER, of: str | None = None) -> Verified:
    findings: list[Finding] = []
    return Verified(await verify(url, signer, findings.append, workspace=of), findings)


async def fill(url: str) -> None:
    """Three workspaces and none, with a checkpoint in their middle and one after all but a line."""
    async with (store := Store(url)).run():
        for each in (ONE, TWO, THREE):
            await keep(store, workspace(each))
        for n in range(8):
            at = NOW + timedelta(seconds=n)
            of: tuple[str | None, ...] = (ONE, TWO, None)
            await store.append([NewEvent(at, each, "admin", f"k{n}", HARD) for each in of])
            if n in (3, 7):
                await store.checkpoints.make(SIGNER)
        last = NOW + timedelta(seconds=9)
        await store.append([NewEvent(last, THREE, "admin", "claim", {})])


async def change(url: str, *statements: str) -> None:
    async with raw(url) as connection:
        for each in statements:
            assert (await connection.execute(text(each))).rowcount != 0, each


@pytest.fixture(scope="module")
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Makes copies of a log, of one kind of database."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("audit")
        asyncio.run(fill(f"sqlite+aiosqlite:///{folder / 'carrel.db'}"))
        made = 0

        def copy() -> str:
            nonlocal made
            made += 1
            shutil.copy(folder / "carrel.db", folder / f"{made}.db")
            return f"sqlite+aiosqlite:///{folder / f'{made}.db'}"

        yield copy
        return
    server = request.getfixturevalue("server")
    assert isinstance(server, Postgres)
    asyncio.run(fill(source := server.database()))
    name = source.partition("@/")[2].partition("?")[0]
    yield lambda: server.database(f"TEMPLATE {name}")


of_both = pytest.mark.parametrize("filled", ["sqlite", "postgresql"], indirect=True)
_SWAP = tuple(  # lines 4 and 5 of ONE
    f"UPDATE events SET id = {to} WHERE id = {of}" for of, to in ((10, 1000), (13, 10), (1000, 13))
)
WRONG: dict[str, tuple[tuple[str, ...], set[tuple[str | None, int | None, str]]]] = {
    "one is removed": (
        (f"DELETE FROM events WHERE workspace_id = '{ONE}' AND seq = 3",),
        {(ONE, 3, "removed"), (None, 1, "checkpoint")},
    ),
    "one of no workspace": (
        ("DELETE FROM events WHERE workspace_id IS NULL AND seq = 6",),
        {("", 6, "removed"), (None, 2, "checkpoint")},
    ),
    "one is changed": (
        (f"UPDATE events SET actor = 'mallory' WHERE workspace_id = '{TWO}' AND seq = 2",),
        {(TWO, 2, "changed")},
    ),
    "a time is changed": (
        (f"UPDATE events SET at = '2020-01-01' WHERE workspace_id = '{TWO}' AND seq = 2",),
        {(TWO, 2, "changed")},
    ),
    "one is put in": (
        (
            "INSERT INTO events (at, workspace_id, actor, kind, data, seq, hash) SELECT at, "
            f"workspace_id, 'mallory', kind, data, seq, hash FROM events WHERE seq = 4 AND "
            f"workspace_id = '{TWO}'",
        ),
        {(TWO, 4, "inserted")},
    ),
    "two are swapped": (
        _SWAP,
        {(ONE, 4, "reordered"), (None, 1, "checkpoint"), (None, 2, "checkpoint")},
    ),
    "a workspace is removed": (
        (f"DELETE FROM events WHERE workspace_id = '{ONE}'",),
        {(ONE, 1, "removed"), (None, 1, "checkpoint"), (None, 2, "checkpoint")},
    ),
    "its head too": (
        (
            f"DELETE FROM events WHERE workspace_id = '{ONE}'",
            f"DELETE FROM chains WHERE chain = '{ONE}'",
        ),
        {(ONE, None, "removed"), (None, 1, "checkpoint"), (None, 2, "checkpoint")},
    ),
    "all traces of it": (
        (
            f"DELETE FROM events WHERE workspace_id = '{ONE}'",
            f"DELETE FROM chains WHERE chain = '{ONE}'",
            f"DELETE FROM workspaces WHERE id = '{ONE}'",
        ),
        {(None, 1, "checkpoint"), (None, 2, "checkpoint")},
    ),
    "a tail is cut": (
        (f"DELETE FROM events WHERE workspace_id = '{TWO}' AND seq > 6",),
        {(TWO, 7, "removed"), (None, 2, "checkpoint")},
    ),
    "and its head is moved": (
        (
            f"DELETE FROM events WHERE workspace_id = '{TWO}' AND seq > 6",
            "UPDATE chains SET seq = 6, hash = (SELECT hash FROM events WHERE seq = 6 AND "
            f"workspace_id = '{TWO}') WHERE chain = '{TWO}'",
        ),
        {(None, 2, "checkpoint")},
    ),
    "what no checkpoint is of": (
        (f"DELETE FROM events WHERE workspace_id = '{THREE}'",),
        {(THREE, 1, "removed")},
    ),
    "a checkpoint is removed": (
        ("DELETE FROM checkpoints WHERE number = 1",),
        {(None, 2, "checkpoint")},
    ),
    "a checkpoint is changed": (
        ("UPDATE checkpoints SET lines = lines - 1 WHERE number = 1",),
        {(None, 1, "checkpoint")},
    ),
    "it is said to be old": (
        (
            f"DELETE FROM events WHERE workspace_id = '{ONE}' AND seq = 1",
            f"UPDATE chains SET base_seq = 1, base_hash = 'x' WHERE chain = '{ONE}'",
            "UPDATE checkpoints SET removed_lines = 1 WHERE number = 1",
        ),
        {(ONE, 2, "changed"), (ONE, 1, "base"), (None, 1, "checkpoint")},
    ),
}


@of_both
async def test_all_that_is_done_to_it_is_found_and_named(filled: Callable[[], str]) -> None:
    seen = await verified(filled())
    assert seen.findings == []
    report = seen.report
    assert (report.lines, report.chains, report.checkpoints, report.unsigned) == (25, 4, 2, 1)
    assert report.is_signed
    for name, (statements, expected) in WRONG.items():
        await change(url := filled(), *statements)
        found = await verified(url)
        assert found.told == expected, name


@of_both
async def test_a_chain_that_is_forged_as_a_whole_is_another_than_was_signed(
    filled: Callable[[], str],
) -> None:
    url = filled()
    async with raw(url) as connection:
        head = Head()
        for row in await rows(connection, ONE):
            actor, data = "mallory", canonical(HARD)
            at = NOW + timedelta(seconds=row.seq - 1)
            head = Head(row.seq, digest(head.hash, ONE, row.seq, at, actor, row.kind, data))
            await connection.execute(
                text("UPDATE events SET actor = :actor, hash = :hash WHERE id = :id"),
                {"actor": actor, "hash": head.hash, "id": row.id},
            )
        await connection.execute(
            text("UPDATE chains SET hash = :hash WHERE chain = :chain"),
            {"hash": head.hash, "chain": ONE},
        )
    assert (await verified(url)).told == {(None, 1, "checkpoint"), (None, 2, "checkpoint")}
    assert (await verified(url, None)).findings == []  # who has no secret cannot tell
    other = await verified(filled(), Signer(b"another secret"))
    assert {each.what for each in other.findings} == {"checkpoint"}
    assert "CARREL_SECRET" in other.findings[0].why


async def rows(connection: AsyncConnection, of: str) -> list[object]:
    found = await connection.execute(
        text("SELECT id, seq, kind FROM events WHERE workspace_id = :of ORDER BY id"), {"of": of}
    )
    return list(found.all())


@of_both
async def test_one_workspace_can_be_verified_alone(filled: Callable[[], str]) -> None:
    await change(url := filled(), f"DELETE FROM events WHERE workspace_id = '{ONE}' AND seq = 3")
    assert (await verified(url, of=TWO)).findings == []
    assert (await verified(url, of=ONE)).told == {(ONE, 3, "removed")}


@of_both
async def test_what_is_too_old_is_removed_and_the_rest_still_verifies(
    filled: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.store.checkpoints._PAGE", 5)
    monkeypatch.setattr("controller.checkpointing.PAUSE_SECONDS", 0)
    await change(
        url := filled(), f"UPDATE workspaces SET ended_at = '2026-01-01' WHERE id = '{ONE}'"
    )
    async with (store := Store(url)).run(), (events := Events(store)).run():
        day = timedelta(days=1)
        keeping = Checkpointing(store, events, SIGNER, days=1)
        assert await keeping.remove() == 0
        keeping._days = (datetime.now(timezone.utc) - NOW - timedelta(seconds=5.5)) / day
        # Of the one that has ended and of none six lines each are older; TWO lives.
        assert await keeping.remove() == 12
        assert [each.seq for each in await store.events(Seen(ONE), limit=99)] == [7, 8]
        assert len(await store.events(Seen(TWO), limit=99)) == 8
        (told,) = [each for each in await store.events(limit=99) if each.kind == "events_removed"]
        assert told.data["lines"] == 12
        await store.append([NewEvent(NOW, ONE, "admin", "late", {})])
        assert (await verified(url)).findings == []
        await change(url, f"DELETE FROM events WHERE workspace_id = '{ONE}' AND seq = 7")
        assert (await verified(url)).told == {(ONE, 7, "removed"), (None, 2, "checkpoint")}


@of_both
async def test_a_tenant_may_keep_its_events_for_another_time(filled: Callable[[], str]) -> None:
    await change(
        url := filled(),
        "UPDATE workspaces SET ended_at = '2026-01-01'",
        f"UPDATE workspaces SET tenant = 'ever' WHERE id = '{ONE}'",
        f"UPDATE workspaces SET tenant = 'brief' WHERE id = '{TWO}'",
    )
    later = NOW + timedelta(days=1)
    own = {"ever": None, "brief": later}
    async with (store := Store(url)).run():
        remove = partial(store.checkpoints.remove, SIGNER)
        assert (await remove(Limits(None))).lines == 0
        assert (await remove(Limits(None, own))).lines == 8
        many = [len(await store.events(Seen(of), limit=99)) for of in (ONE, TWO)]
        assert many == [8, 0]
        assert (await verified(url)).findings == []
        assert (await remove(Limits(later, own))).lines == 8  # of no workspace: of no tenant
        assert len(await store.events(Seen(ONE), limit=99)) == 8
        assert (await verified(url)).findings == []
        await store.tenants.put("ever", Quotas(event_days=0))
        assert await store.tenants.days("event_days") == {"ever": 0}


@of_both
async def test_what_was_changed_before_it_was_removed_shows_afterwards(
    filled: Callable[[], str],
) -> None:
    url = filled()
    await change(
        url,
        f"UPDATE workspaces SET ended_at = '2026-01-01' WHERE id = '{ONE}'",
        f"UPDATE events SET hash = '{'f' * 64}' WHERE workspace_id = '{ONE}' AND seq = 2",
    )
    async with (store := Store(url)).run():
        later = NOW + timedelta(days=1)
        assert (await store.checkpoints.remove(SIGNER, Limits(later))).lines == 16
        assert (None, 1, "checkpoint") in (await verified(url)).told


@of_both
async def test_several_write_to_one_chain_and_it_holds(filled: Callable[[], str]) -> None:
    url = filled()
    stores = [Store(url) for _ in range(2 if url.startswith("postgres") else 1)]
    async with AsyncExitStack() as stack:
        for store in stores:
            await stack.enter_async_context(store.run())

        async def write(store: Store, many: int) -> None:
            for n in range(many):
                new = [NewEvent(NOW, of, "admin", f"n{n}", HARD) for of in (ONE, None, THREE)]
                await store.append(new)

        await asyncio.gather(*(write(store, 30) for store in stores))
    seen = await verified(url)
    assert seen.findings == []
    assert seen.report.lines == 25 + 90 * len(stores)


@both_databases
async def test_a_log_of_before_is_chained_as_it_was(database_url: str) -> None:
    Path(database_url.partition(":///")[2]).parent.mkdir(exist_ok=True)
    async with raw(database_url) as connection:
        await connection.run_sync(upgrade, "0003")
        for n in range(2500):
            of = {0: None, 1: ONE, 2: TWO}[n % 3]
            await connection.execute(
                text(
                    "INSERT INTO events (at, workspace_id, actor, kind, data) VALUES "
                    "('2026-01-02 03:04:05.678901', :of, 'admin', 'k', :data)"
                    if connection.dialect.name == "sqlite"
                    else "INSERT INTO events (at, workspace_id, actor, kind, data) VALUES "
                    "('2026-01-02 03:04:05.678901Z', :of, 'admin', 'k', CAST(:data AS json))"
                ),
                {"of": of, "data": json.dumps({"n": n, "a": 0.5})},
            )
    async with (store := Store(database_url)).run():
        await store.append([NewEvent(NOW, TWO, "admin", "new", HARD)])
    seen = await verified(database_url)
    assert seen.findings == []
    assert (seen.report.lines, seen.report.chains) == (2501, 3)


@of_both
async def test_a_restored_backup_verifies(filled: Callable[[], str], tmp_path: Path) -> None:
    await backup(filled(), tmp_path / "backup")
    await restore(other := f"sqlite+aiosqlite:///{tmp_path / 'other.db'}", tmp_path / "backup")
    seen = await verified(other)
    assert (seen.findings, seen.report.checkpoints) == ([], 2)


# Exports.


async def exported(url: str, **which: object) -> list[bytes]:
    pieces = [piece async for piece in export(url, SIGNER, **which)]  # type: ignore[arg-type]
    return b"".join(pieces).splitlines(keepends=True)


def verified_file(lines: list[bytes], signer: Signer | None = SIGNER) -> Verified:
    findings: list[Finding] = []
    return Verified(verify_file(lines, signer, findings.append), findings)


@of_both
async def test_an_export_is_whole_and_tells_what_was_done_to_it(filled: Callable[[], str]) -> None:
    url = filled()
    lines = await exported(url)
    seen = verified_file(lines)
    assert (seen.findings, seen.report.lines, seen.report.is_signed) == ([], 25, True)
    of_one = await exported(url, workspace=ONE)
    assert verified_file(of_one).findings == []
    assert len(of_one) == 1 + 1 + 8 + 1
    late = await exported(url, since=NOW + timedelta(seconds=4.5))
    assert (verified_file(late).findings, verified_file(late).report.lines) == ([], 10)

    place = next(n for n, line in enumerate(lines) if b'"k3"' in line and ONE.encode() in line)
    gone = lines[:place] + lines[place + 1 :]
    assert (ONE, 4, "removed") in verified_file(gone).told
    changed = [*lines[:place], lines[place].replace(b"admin", b"mallory"), *lines[place + 1 :]]
    assert (ONE, 4, "changed") in verified_file(changed).told
    twice = [*lines[:place], lines[place], *lines[place:]]
    assert (ONE, 4, "inserted") in verified_file(twice).told
    swapped = lines.copy()
    swapped[place], swapped[place + 3] = lines[place + 3], lines[place]
    assert (ONE, 4, "reordered") in verified_file(swapped).told
    without = [line for line in lines if TWO.encode() not in line or b'"base_seq"' in line]
    assert (TWO, 1, "removed") in verified_file(without).told
    tail = [line for line in lines if b'"k7"' not in line]
    assert {("", 8, "removed"), (ONE, 8, "removed")} <= verified_file(tail).told
    for broken in (lines[:-1], [*lines[:3], b"[1]\n", *lines[3:]], [*lines, lines[-2]]):
        assert (None, None, "file") in verified_file(broken).told
    assert (None, None, "file") in verified_file(lines, Signer(b"another")).told
    assert verified_file(lines, None).findings == []
    for none in ([], [b"{}\n"], [b"\xff\n"]):
        with pytest.raises(InvalidRequest):
            verified_file(none)


# The commands.


def carrel(home: Path, url: str, *args: str) -> subprocess.CompletedProcess[bytes]:
    variables = {"CARREL_HOME": str(home), "CARREL_DATABASE_URL": url, "CARREL_SECRET": "s" * 16}
    code = "from controller.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=variables, capture_output=True, timeout=120
    )


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_the_commands_verify_and_export(filled: Callable[[], str], tmp_path: Path) -> None:
    url = filled()
    done = carrel(tmp_path, url, "audit", "export", "--workspace", ONE)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "export"
    file.write_bytes(done.stdout)
    assert carrel(tmp_path, url, "audit", "verify", str(file)).returncode == 0
    asyncio.run(change(url, f"DELETE FROM events WHERE workspace_id = '{ONE}' AND seq = 3"))
    found = carrel(tmp_path, url, "audit", "verify", "--json")
    told = json.loads(found.stdout)
    assert found.returncode == 1
    assert not told["ok"]
    assert {"chain": ONE, "seq": 3, "what": "removed", "why": "line 3 is gone"} in told["findings"]


async def test_a_database_that_is_not_there_or_older_is_said_so(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'carrel.db'}"
    with pytest.raises(Unavailable):
        await verified(url)
    async with raw(url) as connection:
        await connection.run_sync(upgrade, "0003")
    with pytest.raises(Unavailable, match="0003"):
        await verified(url)
