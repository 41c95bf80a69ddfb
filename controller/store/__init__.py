"""What was promised and what happened, kept: workspaces and the append-only log of events.

All SQL of Carrel is in this package. What a call has returned from survives a kill -9 of any
process: PostgreSQL by its commit, SQLite by its write-ahead log (synchronous=NORMAL: a power cut
may take the last moments, a killed process nothing). The schema is brought up to date at start.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from alembic.util import CommandError
from sqlalchemy import (
    URL,
    Row,
    Select,
    create_engine,
    insert,
    literal,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from controller.store.journal import AsyncJournal, Journal, ThreadJournal
from controller.store.migrations import upgrade
from controller.store.tables import UtcTime, events, workspaces
from workspace.errors import CarrelError, DiskFull, InvalidRequest, Unavailable
from workspace.models import Event, State, Workspace

SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA busy_timeout=5000",
    "PRAGMA foreign_keys=ON",
)


_APPEND = insert(events)


class NewEvent(NamedTuple):
    """An event before it has its id."""

    at: datetime
    workspace_id: str | None
    actor: str
    kind: str
    data: dict[str, Any]  # Any: JSON values


class Store:
    """One database, usable while ``run`` is entered.

    Every method may raise :class:`~workspace.errors.Unavailable`.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._log = _journal(self._engine)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Open it for the block, with the schema brought up to date.

        Raises:
            Unavailable: the database cannot be used.
        """
        try:
            try:
                async with self._engine.begin() as connection:
                    await connection.run_sync(upgrade)
                await self._log.open()
            except (SQLAlchemyError, CommandError, OSError) as error:
                raise _unavailable(self._engine.url, error) from error
            yield
        finally:
            with anyio.CancelScope(shield=True):  # closing waits for nobody
                await self._log.close()
                await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable(self._engine.url, error) from error

    async def ping(self) -> None:
        async with self._transaction() as connection:
            await connection.execute(text("SELECT 1"))

    # Workspaces.

    async def add(self, workspace: Workspace, *, owner: str) -> None:
        async with self._transaction() as connection:
            await connection.execute(insert(workspaces).values(owner=owner, **_row(workspace)))

    async def save(self, workspace: Workspace) -> None:
        """Write what has become of a workspace."""
        statement = update(workspaces).where(workspaces.c.id == workspace.id)
        async with self._transaction() as connection:
            await connection.execute(statement.values(**_row(workspace)))

    async def get(self, workspace_id: str) -> Workspace | None:
        statement = select(workspaces).where(workspaces.c.id == workspace_id)
        async with self._transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else _workspace(row)

    async def page(
        self, states: Sequence[State] | None, *, limit: int, after: str | None = None
    ) -> list[Workspace]:
        """A page of workspaces, newest first, that were made before ``after``.

        Raises:
            InvalidRequest: there is no workspace ``after``.
        """
        age = tuple_(workspaces.c.created_at, workspaces.c.id)
        statement: Select[Any] = select(workspaces).order_by(  # Any: its rows, read by _workspace
            workspaces.c.created_at.desc(), workspaces.c.id.desc()
        )
        if states is not None:
            statement = statement.where(workspaces.c.state.in_(states))
        async with self._transaction() as connection:
            if after is not None:
                found = await connection.execute(
                    select(workspaces.c.created_at).where(workspaces.c.id == after)
                )
                created_at = found.scalar_one_or_none()
                if created_at is None:
                    raise InvalidRequest(
                        f"after: there is no workspace {after!r}.",
                        hint="Give the 'after' of the page before, or none for the first page.",
                    )
                statement = statement.where(
                    age < tuple_(literal(created_at, UtcTime), literal(after))
                )
            rows = (await connection.execute(statement.limit(limit))).all()
        return [_workspace(row) for row in rows]

    # Events.

    async def append(self, new: Sequence[NewEvent]) -> None:
        """Write events in one commit. One caller at a time: it has a connection of its own."""
        await self._log.append(_APPEND, [event._asdict() for event in new])

    async def abandon(self) -> None:
        """Roll back what a failed ``append`` left open."""
        await self._log.abandon()

    async def events(
        self, *, after: int = 0, limit: int, workspace_id: str | None = None
    ) -> list[Event]:
        """A page of the log, oldest first, from the event after the one with that id."""
        statement = select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
        if workspace_id is not None:
            statement = statement.where(events.c.workspace_id == workspace_id)
        async with self._transaction() as connection:
            rows = (await connection.execute(statement)).all()
        return [Event.model_validate(dict(row._mapping)) for row in rows]


def _unavailable(url: URL, error: Exception) -> CarrelError:
    why = getattr(error, "orig", None) or error  # the driver's words, without the statement
    if "disk is full" in str(why):
        return DiskFull(f"The database {url!r} has no room.", hint="Free some room on its disk.")
    return Unavailable(
        f"The database {url!r} cannot be used: {why}",  # the URL's repr hides its password
        hint="Check CARREL_DATABASE_URL, and the room on the disk.",
    )


def _engine(url: str) -> AsyncEngine:
    try:
        engine = create_async_engine(url)
        if engine.dialect.name == "sqlite":
            _private(engine.url.database)
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise Unavailable(
            f"The database that CARREL_DATABASE_URL names cannot be used: {error}",
            hint="Give an asynchronous one, such as sqlite+aiosqlite:///path/to/carrel.db.",
        ) from error
    if engine.dialect.name == "sqlite":
        sqlalchemy_event.listen(engine.sync_engine, "connect", _set_pragmas)
    return engine


def _journal(engine: AsyncEngine) -> Journal:
    url = engine.url
    if engine.dialect.name != "sqlite" or url.database in (None, "", ":memory:"):
        return AsyncJournal(engine)
    own = create_engine(url.set(drivername="sqlite"))
    sqlalchemy_event.listen(own, "connect", _set_pragmas)
    return ThreadJournal(own)


def _private(path: str | None) -> None:
    """Make the file 0600 before SQLite does; its log files get the same mode."""
    if path and path != ":memory:":
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _set_pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _row(workspace: Workspace) -> dict[str, Any]:  # Any: column values
    return workspace.model_dump(exclude={"watch_url"})


def _workspace(row: Row[Any]) -> Workspace:  # Any: a row's columns, validated here
    return Workspace.model_validate(dict(row._mapping))
