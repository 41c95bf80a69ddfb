"""Which controllers there are, which of them leads, and whose workspaces a dead one left.

A replica counts up in its row while it lives. Whether another one does is judged by its count, read
twice on the clock of who asks: so no two clocks are compared. What a keeper writes counts only
while it is the keeper, so that one that was only slow does no harm when it comes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import anyio
from sqlalchemy import String, column, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.store import databases
from controller.store.doing import Doing
from controller.store.rows import all_readable, to_workspace
from controller.store.tables import replicas, workspaces
from workspace.models import LIVE_STATES, State, Workspace

_LEADING = 0x6C_6561_6465_72
_NAME = text("SELECT set_config('application_name', :name, false)")
_LEADERS = text(
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    f"AND classid::bigint = {_LEADING >> 32} AND objid::bigint = {_LEADING & 0xFFFFFFFF} "
    "AND pg_stat_activity.datname = current_database()"
).columns(column("application_name", String))
LOOK_SECONDS = 1.0
_UNENDED: tuple[State, ...] = (*sorted(LIVE_STATES), "releasing")  # which an index finds


class Replicas:
    """The controllers of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def beat(self, replica: str) -> None:
        """Say that it lives."""
        count = update(replicas).where(replicas.c.id == replica).values(beats=replicas.c.beats + 1)
        if not (await self._doing.do(lambda it: it.execute(count))).rowcount:
            new = self._doing.insert(replicas).values(id=replica, beats=1)
            await self._doing.do(lambda it: it.execute(new.on_conflict_do_nothing()))

    async def leave(self, replica: str) -> None:
        """Say that it ends: what it keeps is for others at once."""
        statement = delete(replicas).where(replicas.c.id == replica)
        await self._doing.do(lambda it: it.execute(statement))

    async def beats(self) -> Mapping[str, int]:
        """How far each has counted."""
        rows = await self._doing.rows(select(replicas.c.id, replicas.c.beats))
        return {row.id: row.beats for row in rows}

    async def keepers(self) -> set[str]:
        """Who keeps workspaces that have not ended."""
        asked = select(workspaces.c.keeper).where(workspaces.c.state.in_(_UNENDED)).distinct()
        return {row.keeper for row in await self._doing.rows(asked)}

    async def kept_by(self, replica: str) -> set[str]:
        """The ids of those that it keeps and that have not ended."""
        asked = select(workspaces.c.id).where(
            workspaces.c.state.in_(_UNENDED), workspaces.c.keeper == replica
        )
        return {row.id for row in await self._doing.rows(asked)}

    async def has_key(self, workspace_id: str) -> bool:
        """Whether whoever claimed it can ask for it again."""
        asked = select(workspaces.c.claim_key).where(workspaces.c.id == workspace_id)
        return any(row.claim_key is not None for row in await self._doing.rows(asked))

    async def keeper(self, workspace_id: str) -> str | None:
        """Who keeps it; None if it has ended or never was."""
        asked = select(workspaces.c.keeper).where(
            workspaces.c.id == workspace_id, workspaces.c.ended_at.is_(None)
        )
        rows = await self._doing.rows(asked)
        return rows[0].keeper if rows else None

    async def adopt(self, workspace_id: str, *, keeper: str, of: str) -> Workspace | None:
        """Take over the keeping; None if it has ended, or ``of`` does not keep it."""
        statement = (
            update(workspaces)
            .where(workspaces.c.id == workspace_id, workspaces.c.keeper == of)
            .where(workspaces.c.ended_at.is_(None))
            .values(keeper=keeper)
            .returning(*workspaces.c)
        )
        row = (await self._doing.do(lambda it: it.execute(statement), is_repeatable=False)).first()
        return to_workspace(row) if row else None

    async def adopt_all(self, *, keeper: str, of: str) -> Sequence[Workspace]:
        """Take over the keeping of all that ``of`` keeps, or that are ``keeper``'s own already.

        Those that cannot be read are left out.
        """
        statement = (
            update(workspaces)
            .where(workspaces.c.state.in_(_UNENDED), workspaces.c.keeper == of)
            .values(keeper=keeper)
            .returning(*workspaces.c)
        )
        rows = await self._doing.do(lambda it: it.execute(statement), is_repeatable=False)
        return all_readable(rows.all())


class Leadership:
    """Which one replica does what only one may: by a lock of a connection on PostgreSQL.

    It is gone when either end of that connection is, so ask before each round of the work. SQLite
    has one controller, which leads.
    """

    def __init__(self, engine: AsyncEngine, doing: Doing) -> None:
        self._doing = doing
        self.name = ""  # of this replica
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._asking = anyio.Lock()  # a connection does one thing at a time

    async def is_ours(self) -> bool:
        """Whether this replica leads, or does from now on. False while the database is away."""
        if not databases.is_postgres(self._engine):
            return True
        async with self._asking:
            return await self._is_ours()

    async def _is_ours(self) -> bool:
        try:
            with anyio.fail_after(LOOK_SECONDS):
                if self._connection is not None:
                    await self._connection.execute(text("SELECT 1"))
                    return True
                return await self._try()
        except (*databases.FAILURES, TimeoutError):
            await self.resign()
            return False
        except anyio.get_cancelled_exc_class():
            await self.resign()
            raise

    async def _try(self) -> bool:
        connection = await self._engine.connect()
        try:
            if await connection.scalar(text(f"SELECT pg_try_advisory_lock({_LEADING})")):
                await connection.execute(_NAME, {"name": _mark(self.name)})
                self._connection = connection
                return True
        finally:
            if self._connection is None:
                await _close(connection)
        return False

    async def leader(self, replicas: Iterable[str]) -> str | None:
        """Which of those leads; None if none of them does at the moment.

        Raises:
            Unavailable: the database does not answer.
        """
        if not databases.is_postgres(self._engine):
            return self.name
        leads = {row[0] for row in await self._doing.rows(select(_LEADERS.subquery()))}
        return next((each for each in replicas if _mark(each) in leads), None)

    async def resign(self) -> None:
        """Let another one lead."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _close(connection)


def _mark(replica: str) -> str:
    """What the leader's connection calls itself: PostgreSQL cuts names after 63 bytes."""
    return f"carrel-{hashlib.sha256(replica.encode()).hexdigest()[:32]}"


async def _close(connection: AsyncConnection) -> None:
    """For good: a connection that went back to the pool would keep the lock."""
    with anyio.move_on_after(LOOK_SECONDS, shield=True):
        try:
            await connection.invalidate()
            await connection.close()
        except databases.FAILURES:  # the server is gone, and the lock with it
            pass
