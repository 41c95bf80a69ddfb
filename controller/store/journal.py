"""The connection that events are written by: each call is one commit.

A commit takes several steps of the driver. aiosqlite hands each to its thread apart, which is most
of what a line costs; so for a file of SQLite's all are taken in one thread at one go (0.1 ms
instead of 0.6). Every other database is written to by its own asynchronous driver. How lines are
written is in ``appending``.

On failure both raise what SQLAlchemy raises, with nothing of the call left open. A PostgreSQL's
connection may die at any time: ``ready`` replaces one that has, so that what ``append`` was given
was sent at most once. It also holds the lock by which a restore knows that a controller lives.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

import anyio
from sqlalchemy import Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.store.appending import append, append_to_file
from controller.store.chain import NewEvent
from controller.store.databases import FAILURES, is_postgres, transactional
from workspace.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
# PostgreSQL's advisory lock, shared by those who use the database, whole for who restores it.
IN_USE = 0x6361_7272_656C
CLOSE_SECONDS = 3.0  # more than the two that the driver gives a server that hangs


class Journal(Protocol):
    """One caller at a time."""

    async def ready(self) -> None:
        """Connect, if that is due. Harmless to do again."""

    async def append(self, new: Sequence[NewEvent]) -> None:
        """Write; whether it was kept is not known if the connection dies meanwhile."""

    async def close(self) -> None: ...


class ThreadJournal:
    """By a synchronous engine, in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._connection: Connection | None = None

    async def ready(self) -> None:
        if self._connection is None:
            self._connection = await self._do(self._engine.connect)

    async def append(self, new: Sequence[NewEvent]) -> None:
        await self._do(self._append, new)

    def _append(self, new: Sequence[NewEvent]) -> None:
        driver = self._opened().connection.driver_connection
        assert isinstance(driver, sqlite3.Connection), "it is a file's"
        append_to_file(driver, new)

    async def close(self) -> None:
        if self._connection is not None:
            await self._do(self._connection.close)
        self._engine.dispose()
        self._thread.shutdown(wait=False)

    def _opened(self) -> Connection:
        assert self._connection is not None, "make it ready first"
        return self._connection

    async def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))


class AsyncJournal:
    """By an asynchronous engine."""

    def __init__(self, engine: AsyncEngine, *, notifies: bool) -> None:
        self._engine = transactional(engine)
        self._notifies = notifies
        self._connection: AsyncConnection | None = None
        self._one_at_a_time = asyncio.Lock()  # what was cut off may still be closing
        self._is_closed: Callable[[], bool] = lambda: False

    async def ready(self) -> None:
        async with self._one_at_a_time:
            connection = self._connection
            if connection is not None and (connection.invalidated or self._is_closed()):
                await self._drop()
            if self._connection is None:
                self._connection = await self._connect()

    async def _connect(self) -> AsyncConnection:
        connection = await self._engine.connect()
        if not is_postgres(self._engine):
            return connection
        try:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None, "it was just connected"
            self._is_closed = driver.is_closed
            is_free = await connection.scalar(text(f"SELECT pg_try_advisory_lock_shared({IN_USE})"))
            await connection.commit()  # the lock is the connection's, not this transaction's
            if is_free:
                return connection
            raise Unavailable("This database is being restored.", hint="Wait until that is done.")
        except BaseException:
            await _end(connection)
            raise

    async def append(self, new: Sequence[NewEvent]) -> None:
        async with self._one_at_a_time:
            assert self._connection is not None, "make it ready first"
            try:
                await append(self._connection, new, notifies=self._notifies)
                await self._connection.commit()
            except BaseException:
                await self._clear()
                raise

    async def _clear(self) -> None:
        """Leave nothing of a failed ``append`` open, if need be by another connection."""
        assert self._connection is not None, "it failed on one"
        is_clear = False
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            try:
                await self._connection.rollback()
                is_clear = not self._connection.invalidated and not self._is_closed()
            except FAILURES:  # it is dead, or as good as that
                pass
        if not is_clear:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _end(connection)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


async def _end(connection: AsyncConnection) -> None:
    """Close it, whatever state it is in."""
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        try:
            await connection.invalidate()
            await connection.close()
        except FAILURES:  # nobody will use it again
            pass
