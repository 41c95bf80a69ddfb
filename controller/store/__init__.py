"""What was promised and what happened, kept: workspaces and the append-only log of events.

All SQL of Carrel is in this package. What a call has returned from survives a kill -9 of any
process: PostgreSQL by its commit, SQLite by its write-ahead log (synchronous=NORMAL: a power cut
may take the last moments, a killed process nothing). The schema is brought up to date at start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
from alembic.util import CommandError
from sqlalchemy import ColumnElement, Select, func, literal, select, text, true, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from controller.store import databases
from controller.store.artifacts import ArtifactRows
from controller.store.chain import NewEvent as NewEvent
from controller.store.checkpoints import Checkpoints
from controller.store.claims import Claims
from controller.store.doing import Doing
from controller.store.journal import AsyncJournal, Journal, ThreadJournal
from controller.store.keys import Keys
from controller.store.migrations import upgrade
from controller.store.operated import Operated
from controller.store.population import Population
from controller.store.replicas import Leadership, Replicas
from controller.store.requests import Requests
from controller.store.rows import all_readable, columns, to_workspace
from controller.store.shares import Shares
from controller.store.tables import UtcTime, events, warm, workspaces
from controller.store.tenants import Tenants
from controller.store.tools import ToolRows
from controller.store.volumes import Volumes
from controller.store.warm import WarmRows
from workspace.errors import InvalidRequest
from workspace.models import Event, State, Workspace

_ASKED = 500  # ids in one question


class Seen(NamedTuple):
    """Which events somebody asks for, and may see: the one place where the log is filtered."""

    workspace_id: str | None = None  # of one workspace; None: all
    tenant: str | None = None  # of the workspaces of one tenant; None: all
    with_common: bool = False  # with a tenant's, also those of no workspace

    def condition(self) -> ColumnElement[bool]:
        """For the database."""
        if self.workspace_id is not None:
            return events.c.workspace_id == self.workspace_id
        if self.tenant is None:
            return true()
        its = events.c.workspace_id.in_(
            select(workspaces.c.id).where(workspaces.c.tenant == self.tenant)
        )
        return its | events.c.workspace_id.is_(None) if self.with_common else its

    def has(self, event: Event, tenant: str | None) -> bool:
        """The same, of one that is here; ``tenant`` is its workspace's."""
        if self.workspace_id is not None:
            return event.workspace_id == self.workspace_id
        if self.tenant is None:
            return True
        return self.with_common if event.workspace_id is None else tenant == self.tenant


ALL = Seen()


class Store:
    """One database, usable while ``run`` is entered.

    Every method may raise :class:`~workspace.errors.Unavailable`, after a few seconds at most.
    What failed was not done, if it only reads; else it may have been.
    """

    def __init__(self, url: str, *, notifies: bool = True) -> None:
        """``notifies``: those who listen at PostgreSQL are told of each new line there."""
        self._url = url
        self._engine = databases.connect(url)
        self._log = _journal(self._engine, notifies)
        self.appended: Callable[[], None] = lambda: None  # called when lines were written here
        self._doing = doing = Doing(self._engine, url)
        self._insert = doing.insert
        self._do = doing.do
        self._rows = doing.rows
        self.claims = Claims(doing, notifies=notifies, appended=lambda: self.appended())
        self.checkpoints = Checkpoints(doing)
        self.warm = WarmRows(doing)
        self.replicas = Replicas(doing)
        self.leadership = Leadership(self._engine, doing)
        self.operated = Operated(doing)
        self.population = Population(doing)
        self.volumes = Volumes(doing)
        self.keys = Keys(doing)
        self.shares = Shares(doing)
        self.requests = Requests(doing)
        self.artifacts = ArtifactRows(doing)
        self.tenants = Tenants(doing)
        self.tools = ToolRows(doing)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Open it for the block, with the schema brought up to date.

        Raises:
            Unavailable: the database cannot be used.
        """
        try:
            try:
                async with databases.transactional(self._engine).begin() as connection:
                    await connection.run_sync(upgrade)
                await self._log.ready()
            except (*databases.FAILURES, CommandError) as error:
                raise databases.unavailable(self._url, error) from error
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await databases.closed()
            await self.leadership.resign()
            with anyio.CancelScope(shield=True), anyio.move_on_after(databases.TRY_SECONDS):
                await self._log.close()
            with anyio.CancelScope(shield=True), anyio.move_on_after(databases.TRY_SECONDS):
                await self._engine.dispose()

    async def ping(self) -> None:
        await self._do(lambda it: it.execute(text("SELECT 1")), is_repeatable=False)

    # Workspaces.

    async def save(self, workspace: Workspace, *, keeper: str) -> bool:
        """Write what has become of a workspace; False if ``keeper`` does not keep it, or it ended.

        Its end is final. A server that hung may still do what it was asked before, after what it
        is asked now.
        """
        mine = (workspaces.c.id == workspace.id, workspaces.c.keeper == keeper)
        statement = update(workspaces).where(*mine).values(**columns(workspace))
        if workspace.ended_at is None:
            statement = statement.where(workspaces.c.ended_at.is_(None))
        return bool((await self._do(lambda it: it.execute(statement))).rowcount)

    async def get_of(self, sandbox: str) -> Workspace | None:
        """The workspace of a sandbox."""
        rows = await self._rows(select(workspaces).where(workspaces.c.sandbox == sandbox).limit(1))
        return to_workspace(rows[0]) if rows else None

    async def named(self, sandboxes: Collection[str]) -> set[str]:
        """Those of them that a workspace which has not ended, or a claim to come, may have."""
        left = sorted(sandboxes)
        found: set[str] = set()
        for some in (left[at : at + _ASKED] for at in range(0, len(left), _ASKED)):
            claimed = select(workspaces.c.sandbox).where(
                workspaces.c.sandbox.in_(some), workspaces.c.ended_at.is_(None)
            )
            asked = claimed.union(select(warm.c.id).where(warm.c.id.in_(some)))
            found |= {row[0] for row in await self._rows(asked)}
        return found

    async def count(self, template: str) -> int:
        """How many desktops of a template there are: claimed, and warm."""
        states = ("starting", "ready", "paused", "releasing")
        claimed = select(func.count()).where(
            workspaces.c.state.in_(states), workspaces.c.template == template
        )
        waiting = select(func.count()).where(warm.c.template == template)
        rows = await self._rows(select(claimed.scalar_subquery() + waiting.scalar_subquery()))
        return int(rows[0][0])

    async def get(self, workspace_id: str) -> Workspace | None:
        if "\0" in workspace_id:  # PostgreSQL refuses to be asked
            return None
        statement = select(workspaces).where(workspaces.c.id == workspace_id)
        rows = await self._rows(statement)
        return to_workspace(rows[0]) if rows else None

    async def tenant_of(self, workspace_id: str) -> str | None:
        """Whose a workspace is; None if there never was one of that id."""
        if "\0" in workspace_id:
            return None
        rows = await self._rows(select(workspaces.c.tenant).where(workspaces.c.id == workspace_id))
        return rows[0].tenant if rows else None

    async def tenants_of(self, workspace_ids: Collection[str]) -> Mapping[str, str]:
        """Whose each of them is, of those that there are."""
        asked = select(workspaces.c.id, workspaces.c.tenant)
        rows = await self._rows(asked.where(workspaces.c.id.in_(sorted(workspace_ids))))
        return {row.id: row.tenant for row in rows}

    async def page(
        self,
        states: Sequence[State] | None,
        *,
        limit: int,
        after: str | None = None,
        tenant: str | None = None,
    ) -> list[Workspace]:
        """A page of workspaces, a tenant's or all, newest first, that were made before ``after``.

        It is full unless it is the last: rows that cannot be read are left out.

        Raises:
            InvalidRequest: there is no workspace ``after``.
        """
        age = tuple_(workspaces.c.created_at, workspaces.c.id)
        statement: Select[Any] = select(workspaces).order_by(  # Any: its rows, read by _workspace
            workspaces.c.created_at.desc(), workspaces.c.id.desc()
        )
        asked = select(workspaces.c.created_at).where(workspaces.c.id == after)
        if states is not None:
            statement = statement.where(workspaces.c.state.in_(states))
        if tenant is not None:
            statement = statement.where(workspaces.c.tenant == tenant)
            asked = asked.where(workspaces.c.tenant == tenant)
        if after is not None:
            found = [] if "\0" in after else await self._rows(asked)
            if not found:
                raise InvalidRequest(
                    f"after: there is no workspace {after!r}.",
                    hint="Give the 'after' of the page before, or none for the first page.",
                )
            statement = statement.where(age < tuple_(literal(found[0][0], UtcTime), literal(after)))
        page: list[Workspace] = []
        while True:
            asked_for = limit - len(page)
            rows = await self._rows(statement.limit(asked_for))
            page += all_readable(rows)
            if len(rows) < asked_for or len(page) == limit:
                return page
            last = tuple_(literal(rows[-1].created_at, UtcTime), literal(rows[-1].id))
            statement = statement.where(age < last)

    # Events.

    async def append(self, new: Sequence[NewEvent]) -> None:
        """Write events in one commit. One caller at a time: it has a connection of its own.

        What was sent is not sent again: if this raises, they may have been kept.
        """
        await databases.attempt(self._log.ready, self._url, is_repeatable=True)
        await databases.attempt(lambda: self._log.append(new), self._url, is_repeatable=False)
        self.appended()

    async def events(self, seen: Seen = ALL, *, after: int = 0, limit: int) -> list[Event]:
        """A page of the log, oldest first, from the event after the one with that id.

        Ids become visible in their order: what comes later has a higher one.
        """
        statement = select(events).where(events.c.id > after, seen.condition())
        rows = await self._rows(statement.order_by(events.c.id).limit(limit))
        return [Event.model_validate(dict(row._mapping)) for row in rows]

    async def last_event(self) -> int:
        """The newest event's id; 0 if there is none."""
        rows = await self._rows(select(func.max(events.c.id)))
        return int(rows[0][0] or 0)

    async def open_takings(self, *, keeper: str) -> list[Event]:
        """Of the live workspaces that ``keeper`` keeps: each ``control_taken`` that the log tells
        no end of.
        """
        kept = select(workspaces.c.id).where(
            workspaces.c.keeper == keeper, workspaces.c.ended_at.is_(None)
        )
        newest = (
            select(func.max(events.c.id))
            .where(events.c.workspace_id.in_(kept))
            .where(events.c.kind.in_(("control_taken", "control_returned")))
            .group_by(events.c.workspace_id)
        )
        found = await self._rows(
            select(events).where(events.c.id.in_(newest), events.c.kind == "control_taken")
        )
        return [Event.model_validate(dict(row._mapping)) for row in found]

    async def owner_of(self, workspace_id: str) -> str | None:
        """Who claimed a workspace, by name; None if there never was one of that id."""
        rows = await self._rows(select(workspaces.c.owner).where(workspaces.c.id == workspace_id))
        return rows[0].owner if rows else None

    async def has_event(self, workspace_id: str, kind: str) -> bool:
        """Whether the log tells of such a thing that became of a workspace."""
        statement = select(events.c.id).where(
            events.c.workspace_id == workspace_id, events.c.kind == kind
        )
        return bool(await self._rows(statement.limit(1)))


def _journal(engine: AsyncEngine, notifies: bool) -> Journal:
    own = databases.in_thread(engine)
    return AsyncJournal(engine, notifies=notifies) if own is None else ThreadJournal(own)
