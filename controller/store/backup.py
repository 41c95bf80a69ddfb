"""State as one file that moves between databases: gzip of JSON lines.

The first line names the format and the schema's step, each other one a table and a row of it, the
last one how many rows each table has: a file without it was cut off. What is written is one moment
of the database, whatever goes on in it. A file of an older schema is filled into that schema, which
is then brought up to date; so a backup made before an upgrade restores after it.

On failure a backup leaves no file, and a restore an empty database. Both hold a few hundred rows in
memory at a time.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    MetaData,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store import databases, tables
from controller.store.journal import IN_USE
from controller.store.migrations import configuration, upgrade
from workspace.errors import Conflict, FileExists, InvalidRequest, Unavailable

FORMAT = 1
MAX_LINE_BYTES = 16 << 20
_ROWS = 500
Row = dict[str, Any]  # Any: column values
Counts = dict[str, int]


async def backup(url: str, target: Path) -> Counts:
    """Write all state to ``target``, a new file of mode 0600; how many rows of each table.

    Raises:
        FileExists: ``target`` is there.
        Unavailable: the database or the file cannot be used.
    """
    async with moment(url) as connection:
        step = await connection.run_sync(step_of)
        if step is None:
            raise Unavailable(f"There is no state in {databases.shown(url)!r}.")
        reflected = await connection.run_sync(_reflected)
        now = datetime.now(timezone.utc)
        with _whole(target) as file:
            head = {"carrel_backup": FORMAT, "schema": step, "made_at": _to_json(now)}
            await anyio.to_thread.run_sync(_write, file, [head])
            counts = {table.name: 0 for table in reflected}
            for table in reflected:
                async for rows in _pages(connection, table):
                    lines = [{"table": table.name, "row": row} for row in rows]
                    await anyio.to_thread.run_sync(_write, file, lines)
                    counts[table.name] += len(rows)
            await anyio.to_thread.run_sync(_write, file, [{"end": counts}])
    return counts


async def restore(url: str, source: Path) -> Counts:
    """Fill an empty database from a backup; how many rows of each table.

    Raises:
        InvalidRequest: it is no whole backup, or one of a newer Carrel.
        Conflict: the database is not empty, or a controller uses it.
        Unavailable: the database or the file cannot be used.
    """
    with _opened(source) as lines:
        head = await anyio.to_thread.run_sync(next, lines, None)
        step = _checked(head, source)
        with _nothing_left(url):
            async with _whole_database(url) as connection:
                counts = await _fill(connection, lines, step, source)
    return counts


async def _fill(
    connection: AsyncConnection, lines: Iterator[Row], step: str, source: Path
) -> Counts:
    await connection.run_sync(_refuse_unless_empty)
    await connection.run_sync(upgrade, step)
    known = {table.name: table for table in await connection.run_sync(_reflected)}
    counts = dict.fromkeys(known, 0)
    batches = _batches(lines, source)
    while True:
        name, rows = await anyio.to_thread.run_sync(next, batches)
        if not rows:
            break
        if name not in known:
            raise _unreadable(source, f"schema {step} has no table {name[:80]!r}")
        try:
            values = [_to_columns(known[name], row) for row in rows]
        except (TypeError, ValueError) as error:
            raise _unreadable(source, f"a row of {name}: {error}") from error
        await connection.execute(insert(known[name]), values)
        counts[name] += len(rows)
    told = next(batches)[1]
    if told != [counts]:
        raise _unreadable(source, f"it tells of {told} rows and has {counts}")
    for table in known.values():
        await connection.run_sync(_count_on, table)
    await connection.run_sync(upgrade)
    return counts


# The database.


@asynccontextmanager
async def _transaction(url: str, level: str) -> AsyncIterator[AsyncConnection]:
    """A connection in one transaction without limits of time; failures told as such."""
    engine = databases.connect(url)
    try:
        async with databases.transactional(engine, level).connect() as connection:
            if databases.is_postgres(engine):
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
                await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            else:
                # Python's driver begins none for a SELECT, nor for what makes tables.
                kind = "BEGIN" if level == "REPEATABLE READ" else "BEGIN IMMEDIATE"
                await connection.exec_driver_sql(kind)
            yield connection
            await connection.commit()
    except (*databases.FAILURES, CommandError) as error:
        raise databases.unavailable(url, error) from error
    finally:
        with anyio.move_on_after(databases.TRY_SECONDS, shield=True):
            await engine.dispose()


@asynccontextmanager
async def moment(url: str) -> AsyncIterator[AsyncConnection]:
    """The database as it is at one moment."""
    file = databases.file_of(url)
    if file is not None and not file.exists():
        raise Unavailable(f"There is no state in {databases.shown(url)!r}.")
    async with _transaction(url, "REPEATABLE READ") as connection:
        yield connection


@asynccontextmanager
async def _whole_database(url: str) -> AsyncIterator[AsyncConnection]:
    """A transaction that fills it, or leaves it as it is; no controller begins meanwhile."""
    async with _transaction(url, "READ COMMITTED") as connection:
        if connection.dialect.name == "postgresql":
            taken = text(f"SELECT pg_try_advisory_xact_lock({IN_USE})")
            if not await connection.scalar(taken):
                raise Conflict(
                    f"A controller uses {databases.shown(url)!r}.",
                    hint="End it (`carrel down` on its machine), then restore.",
                )
        yield connection


@contextmanager
def _nothing_left(url: str) -> Iterator[None]:
    """Remove what a failed restore leaves of a file of SQLite that was not there before."""
    file = databases.file_of(url)
    was_there = file is None or file.exists()
    try:
        yield
    except BaseException:
        if file is not None and not was_there:
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        raise


def step_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _reflected(connection: Connection) -> list[Table]:
    """The tables of state as they are there, each after those it refers to."""
    there = set(inspect(connection).get_table_names())
    names = [name for name in tables.metadata.tables if name in there]
    metadata = MetaData()
    if names:  # with none given it would read them all
        metadata.reflect(connection, only=names)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, DateTime):
                column.type = tables.UtcTime()
            elif isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)
    return metadata.sorted_tables


def _refuse_unless_empty(connection: Connection) -> None:
    """Empty tables of ours are removed: the backup's own schema takes their place."""
    found = _reflected(connection)
    for table in found:
        if connection.scalar(select(func.count()).select_from(table)):
            raise Conflict(
                f"The database is not empty: there are rows in {table.name}.",
                hint="Name an empty one by CARREL_DATABASE_URL, or another CARREL_HOME.",
            )
    step = step_of(connection)
    if step is None:
        return
    for table in reversed(found):
        table.drop(connection)
    connection.execute(text("DELETE FROM alembic_version"))


def _count_on(connection: Connection, table: Table) -> None:
    """Let new ids follow those that were filled in. SQLite sees to that itself."""
    if connection.dialect.name != "postgresql":
        return
    for column in table.primary_key.columns:
        owned = func.pg_get_serial_sequence(table.name, column.name)
        sequence = connection.scalar(select(owned))
        if sequence is not None:
            last = connection.scalar(select(func.max(column)))
            if last is not None:
                connection.execute(select(func.setval(sequence, last)))


async def _pages(connection: AsyncConnection, table: Table) -> AsyncIterator[list[Row]]:
    """All rows, in the order of their key, a page at a time."""
    key = tuple_(*table.primary_key.columns)
    statement = select(table).order_by(*table.primary_key.columns).limit(_ROWS)
    rows = (await connection.execute(statement)).all()
    while rows:
        yield [{name: _to_json(value) for name, value in row._mapping.items()} for row in rows]
        last = [rows[-1]._mapping[column.name] for column in table.primary_key.columns]
        rows = (await connection.execute(statement.where(key > tuple_(*last)))).all()


def _to_json(value: Any) -> Any:  # Any: a column's value
    return value.isoformat() if isinstance(value, datetime) else value


def _to_columns(table: Table, row: Row) -> Row:
    """A row of the file as its table takes it: every column has to be there, and no other."""
    if set(row) != set(table.columns.keys()):
        raise ValueError(f"its columns are {sorted(row)}")
    return {
        name: datetime.fromisoformat(value)
        if isinstance(table.columns[name].type, tables.UtcTime) and value is not None
        else value
        for name, value in row.items()
    }


# The file.


@contextmanager
def _whole(target: Path) -> Iterator[gzip.GzipFile]:
    """A gzip file that takes its place when the block ends well, and is not there else."""
    if target.exists():
        raise FileExists(f"{target} is there already.", hint="Name a new file.")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6) as file:
                    yield file
                raw.flush()
                os.fsync(raw.fileno())
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(
            f"{target} cannot be written: {error.strerror or error}.", hint="Name another place."
        ) from error


def _write(file: gzip.GzipFile, lines: Sequence[Row]) -> None:
    file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


@contextmanager
def _opened(source: Path) -> Iterator[Iterator[Row]]:
    """The lines of a backup, each an object."""
    try:
        with gzip.open(source, "rb") as file:
            yield _lines(file, source)
    except OSError as error:  # BadGzipFile is one
        why = error.strerror or str(error)
        raise InvalidRequest(f"{source} cannot be read: {why}.", hint="Name a backup.") from error


def _lines(file: gzip.GzipFile, source: Path) -> Iterator[Row]:
    try:
        while line := file.readline(MAX_LINE_BYTES):
            parsed = json.loads(line) if line.endswith(b"\n") else None
            if not isinstance(parsed, dict):
                raise _unreadable(source, "a line of it is not as Carrel writes them")
            yield parsed
    except (EOFError, zlib.error, ValueError) as error:
        raise _unreadable(source, str(error)) from error


def _batches(lines: Iterator[Row], source: Path) -> Iterator[tuple[str, list[Row]]]:
    """Rows of one table at a time; then none, and at last what the file tells of their number."""
    name, rows = "", list[Row]()
    for line in lines:
        if "end" in line:
            if rows:
                yield name, rows
            yield "", []
            yield "", [line["end"]]
            return
        if not isinstance(line.get("table"), str) or not isinstance(line.get("row"), dict):
            raise _unreadable(source, "a line of it is not as Carrel writes them")
        if rows and (line["table"] != name or len(rows) >= _ROWS):
            yield name, rows
            rows = []
        name = line["table"]
        rows.append(line["row"])
    raise _unreadable(source, "it was cut off")


def _checked(head: Row | None, source: Path) -> str:
    """The schema's step that a backup was made of."""
    if head is None or not isinstance(head.get("carrel_backup"), int):
        raise _unreadable(source, "it is no backup of Carrel's")
    steps = ScriptDirectory.from_config(configuration()).walk_revisions()
    if head["carrel_backup"] > FORMAT or head.get("schema") not in {
        each.revision for each in steps
    }:
        raise InvalidRequest(f"{source} is a newer Carrel's.", hint="Restore it with that one.")
    return str(head["schema"])


def _unreadable(source: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{source} cannot be restored: {why[:500]}.", hint="Name a whole backup; nothing was kept."
    )
