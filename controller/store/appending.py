"""How lines of the log are written, on both databases: linked to their chains, in one transaction.

On PostgreSQL a lock of the transaction is taken right before: writers, of whichever controller,
follow each other from there to their commit. So each finds the newest head of a chain, and ids
become visible in their order: who reads on from the last id that it saw misses no line. What holds
the lock and does not go on (a controller that was stopped) loses it in seconds. SQLite has one
writer at a time by itself.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone

from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store.chain import Head, Linked, NewEvent, link, texts

CHANNEL = "carrel_events"
_HOLD_MS = 3000  # from one statement to the next
_PART_BYTES = 1 << 20
_LOCK = 0x6576_656E_7473
_TAKE = (
    f"SELECT set_config('idle_in_transaction_session_timeout', '{_HOLD_MS}', true), "
    f"pg_advisory_xact_lock({_LOCK})"
)
# Lines that begin chains need no head: they wait for the lock in the statement that writes them.
_TAKEN = f"WITH held AS MATERIALIZED ({_TAKE}), lines AS ("
_PG_HEADS = "SELECT chain, seq, hash FROM chains WHERE chain = ANY($1::text[])"
_PG_WRITE = """
WITH lines AS (
    INSERT INTO events (at, workspace_id, actor, kind, data, seq, hash)
    SELECT at, workspace_id, actor, kind, data::json, seq, hash FROM unnest(
        $1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[]
    ) WITH ORDINALITY AS t(at, workspace_id, actor, kind, data, seq, hash, place)
    ORDER BY place
), heads AS (
    INSERT INTO chains (chain, seq, hash)
    SELECT * FROM unnest($8::text[], $9::bigint[], $10::text[])
    ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash
)
"""
_PG_WRITE_AND_WAKE = f"{_PG_WRITE} SELECT pg_notify('{CHANNEL}', '')"
_PG_WRITE_QUIETLY = f"{_PG_WRITE} SELECT 1"


def _taking(statement: str) -> str:
    """``statement`` that takes the lock itself, before any line gets its id."""
    taken = statement.replace("WITH lines AS (", _TAKEN, 1)
    return taken.replace("hash FROM unnest(", "hash FROM held, unnest(", 1)


_HEADS = "SELECT chain, seq, hash FROM chains WHERE chain IN (SELECT value FROM json_each(?))"
_LINES = (
    "INSERT INTO events (at, workspace_id, actor, kind, data, seq, hash) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_ENDS = (
    "INSERT INTO chains (chain, seq, hash) VALUES (?, ?, ?) "
    "ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash"
)


async def append(
    connection: AsyncConnection,
    new: Sequence[NewEvent],
    *,
    notifies: bool = True,
    begins: bool = False,
) -> None:
    """Write lines in the connection's transaction; on PostgreSQL the last thing in it.

    ``notifies`` tells those who listen on :data:`CHANNEL` once it is committed. ``begins``: their
    chains begin with them, as those of workspaces do that this transaction makes.
    """
    if not new:
        return
    chains, data = _chains(new), texts(new)
    if begins and connection.dialect.name == "postgresql":
        return await _write(connection, *link(new, data, {}), notifies=notifies, takes=True)
    if connection.dialect.name != "postgresql":
        found = await connection.exec_driver_sql(_HEADS, (json.dumps(chains),))
        lines, ends = link(new, data, {row.chain: Head(row.seq, row.hash) for row in found})
        await connection.exec_driver_sql(_LINES, [_values(line) for line in lines])
        await connection.exec_driver_sql(_ENDS, [(name, *ends[name]) for name in chains])
        return
    await connection.exec_driver_sql(_TAKE)
    found = await connection.exec_driver_sql(_PG_HEADS, (chains,))
    lines, ends = link(new, data, {row.chain: Head(row.seq, row.hash) for row in found})
    await _write(connection, lines, ends, notifies=notifies)


async def _write(
    connection: AsyncConnection,
    lines: Sequence[Linked],
    ends: Mapping[str, Head],
    *,
    notifies: bool,
    takes: bool = False,
) -> None:
    statement = _PG_WRITE_AND_WAKE if notifies else _PG_WRITE_QUIETLY
    if takes:
        statement = _taking(statement)
    chains = sorted(ends)
    for some in _in_parts(lines):
        await connection.exec_driver_sql(
            statement,
            (
                [line.event.at.astimezone(timezone.utc) for line in some],
                [line.event.workspace_id for line in some],
                [line.event.actor for line in some],
                [line.event.kind for line in some],
                [line.data for line in some],
                [line.seq for line in some],
                [line.hash for line in some],
                chains,
                [ends[name].seq for name in chains],
                [ends[name].hash for name in chains],
            ),
        )


def _in_parts(lines: Sequence[Linked]) -> Iterator[Sequence[Linked]]:
    """Such that no statement is very large: the server copies what one is given."""
    begin = size = 0
    for place, line in enumerate(lines):
        size += len(line.data)
        if size > _PART_BYTES:
            yield lines[begin : place + 1]
            begin, size = place + 1, 0
    if begin < len(lines):
        yield lines[begin:]


def append_to_file(connection: sqlite3.Connection, new: Sequence[NewEvent]) -> None:
    """Write lines to a file of SQLite, as one commit.

    By its driver alone: what SQLAlchemy adds to these statements takes longer than they do.
    """
    chains, data = _chains(new), texts(new)
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.execute(_HEADS, (json.dumps(chains),))
        lines, ends = link(new, data, {name: Head(seq, made) for name, seq, made in found})
        connection.executemany(_LINES, [_values(line) for line in lines])
        connection.executemany(_ENDS, [(name, *ends[name]) for name in chains])
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _chains(new: Sequence[NewEvent]) -> list[str]:
    """In one order for all who write: so none waits for another for ever."""
    return sorted({event.workspace_id or "" for event in new})


def _values(line: Linked) -> tuple[str, str | None, str, str, str, int, str]:
    at, workspace_id, actor, kind, _ = line.event
    return _time(at), workspace_id, actor, kind, line.data, line.seq, line.hash


def _time(at: datetime) -> str:
    """As SQLAlchemy writes times, for the rest of the store to read."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
