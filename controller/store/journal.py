"""The connection that events are written by: each call is one commit.

A commit takes four steps of the driver. aiosqlite hands each to its thread apart, which is most of
what a line costs; so for a file of SQLite's all four are taken in one thread at one go (0.1 ms
instead of 0.6). Every other database is written to by its own asynchronous driver.

On failure both raise what SQLAlchemy raises, and want ``abandon`` before they are used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine, Insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

P = ParamSpec("P")
T = TypeVar("T")
Rows = Sequence[dict[str, Any]]  # Any: column values


class Journal(Protocol):
    """One caller at a time."""

    async def open(self) -> None: ...
    async def append(self, statement: Insert, rows: Rows) -> None: ...
    async def abandon(self) -> None:
        """Roll back what a failed ``append`` left open."""

    async def close(self) -> None: ...


class ThreadJournal:
    """By a synchronous engine, in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._connection: Connection | None = None

    async def open(self) -> None:
        self._connection = await self._do(self._engine.connect)

    async def append(self, statement: Insert, rows: Rows) -> None:
        await self._do(self._append, statement, rows)

    def _append(self, statement: Insert, rows: Rows) -> None:
        connection = self._opened()
        connection.execute(statement, rows)
        connection.commit()

    async def abandon(self) -> None:
        await self._do(self._opened().rollback)

    async def close(self) -> None:
        if self._connection is not None:
            await self._do(self._connection.close)
        self._engine.dispose()
        self._thread.shutdown(wait=False)

    def _opened(self) -> Connection:
        assert self._connection is not None, "open it first"
        return self._connection

    async def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))


class AsyncJournal:
    """By an asynchronous engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def open(self) -> None:
        self._connection = await self._engine.connect()

    async def append(self, statement: Insert, rows: Rows) -> None:
        await self._opened().execute(statement, rows)
        await self._opened().commit()

    async def abandon(self) -> None:
        await self._opened().rollback()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    def _opened(self) -> AsyncConnection:
        assert self._connection is not None, "open it first"
        return self._connection
