"""How the parts of the store reach its database: one thing on one connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.selectable import TypedReturnsRows

from controller.store import databases

T = TypeVar("T")


class Clash(Exception):
    """Another one wrote at the same moment what may be there once. Nothing was kept."""


Work = Callable[[AsyncConnection], Awaitable[T]]


class Doing:
    """One engine's. Everything raises :class:`~workspace.errors.Unavailable` after seconds."""

    def __init__(self, engine: AsyncEngine, url: str) -> None:
        self.is_postgres = databases.is_postgres(engine)
        self.insert = (postgresql if self.is_postgres else sqlite).insert
        self._engine = engine
        self._transactional = databases.transactional(engine)
        self._url = url

    async def do(self, work: Work[T], *, is_repeatable: bool = True) -> T:
        """One statement; again while the server is away, if that is harmless."""

        async def once() -> T:
            async with self._engine.begin() as connection:
                return await work(connection)

        return await databases.attempt(once, self._url, is_repeatable=is_repeatable)

    async def transact(self, work: Work[T]) -> T:
        """Several, all of which are kept or none. If it raises, they may have been kept.

        Raises:
            Clash.
        """

        async def once() -> T:
            try:
                async with self._transactional.begin() as connection:
                    return await work(connection)
            except IntegrityError as error:
                raise Clash(str(error.orig)) from error

        return await databases.attempt(once, self._url, is_repeatable=False)

    # Any: column values
    async def rows(self, statement: TypedReturnsRows[Any]) -> Sequence[Row[Any]]:
        async def read(connection: AsyncConnection) -> Sequence[Row[Any]]:
            found: Sequence[Row[Any]] = (await connection.execute(statement)).all()
            return found

        return await self.do(read)
