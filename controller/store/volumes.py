"""Volumes: whose they are, where they lie, and which workspace has each.

A volume is taken by one conditional statement, so that of any number of replicas that try at once
one succeeds. Nobody gives it back: it is free once the workspace that has it has ended, however
that came about. That a workspace has ended is only ever believed of a row that says so, never of
one that is not seen (yet): so it is taken for a workspace whose row is already kept.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Row,
    String,
    delete,
    exists,
    literal_column,
    or_,
    select,
    update,
)

from controller.store.doing import Doing
from controller.store.tables import volumes, workspaces
from workspace.errors import Conflict, VolumeInUse, VolumeNotFound
from workspace.models import Volume


class Owner(NamedTuple):
    """Whose volumes are told apart by their names."""

    tenant: str
    name: str


class Kept(NamedTuple):
    """A volume as its row has it."""

    id: str
    name: str
    node: str | None
    created_at: datetime
    is_new: bool  # no workspace has ever been ready with it


_TOLD = (volumes.c.id, volumes.c.name, volumes.c.node, volumes.c.created_at)


class Volumes:
    """The volumes of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._do = doing.do
        self._rows = doing.rows
        self._insert = doing.insert

    async def take(
        self, owner: Owner, name: str, *, workspace_id: str, new_id: str, now: datetime
    ) -> Kept:
        """Have it for a workspace that is kept; one that is not there is made. Again is success.

        Raises:
            VolumeInUse: another workspace has it.
            Conflict: it is being removed.
        """
        new = self._insert(volumes).values(
            id=new_id,
            tenant=owner.tenant,
            owner=owner.name,
            name=name,
            created_at=now,
            used_by=workspace_id,
        )
        statement = new.on_conflict_do_update(
            index_elements=[volumes.c.tenant, volumes.c.owner, volumes.c.name],
            set_={"used_by": new.excluded.used_by},
            where=_is_free(workspace_id) & volumes.c.removed_at.is_(None),
        ).returning(*_TOLD, volumes.c.last_used_at)
        rows = await self._do(lambda it: _all(it, statement))
        if not rows:
            raise await self._why_not(owner, name)
        return _kept(rows[0])

    async def check(self, owner: Owner, name: str) -> None:
        """Whether it could be taken now, or made. Raises like :meth:`take`."""
        statement = select(volumes.c.id).where(_named(owner, name), ~_is_free_now())
        if await self._rows(statement):
            raise await self._why_not(owner, name)

    async def place(self, volume_id: str, node: str) -> None:
        """It lies on that node from now on; one that was used stays where it lies."""
        statement = (
            update(volumes)
            .where(volumes.c.id == volume_id, volumes.c.last_used_at.is_(None))
            .values(node=node)
        )
        await self._do(lambda it: it.execute(statement))

    async def used(self, workspace_id: str, *, now: datetime) -> None:
        """The desktop of the workspace that has it is there, and so is the volume."""
        held = volumes.c.used_by == workspace_id
        statement = update(volumes).where(held).values(last_used_at=now)
        await self._do(lambda it: it.execute(statement))

    async def let_go(self, workspace_id: str, *, now: datetime, size_bytes: int | None) -> None:
        """The workspace that has it ends; one whose desktop was never there changed nothing."""
        values: dict[str, Any] = {"last_used_at": now}  # Any: column values
        if size_bytes is not None:
            values["size_bytes"] = size_bytes
        was_used = (volumes.c.used_by == workspace_id) & volumes.c.last_used_at.is_not(None)
        statement = update(volumes).where(was_used).values(**values)
        await self._do(lambda it: it.execute(statement))

    async def page(self, owner: Owner, *, limit: int, after: str | None) -> list[Volume]:
        """An owner's, by name, those after that name."""
        statement = _shown().where(_owned(owner)).order_by(volumes.c.name).limit(limit)
        if after is not None:
            statement = statement.where(volumes.c.name > after)
        return [_volume(row) for row in await self._rows(statement)]

    async def get(self, owner: Owner, name: str) -> Volume:
        """
        Raises:
            VolumeNotFound.
        """
        rows = await self._rows(_shown().where(_named(owner, name)))
        if not rows:
            raise _no_such(name)
        return _volume(rows[0])

    async def free(self, owner: Owner, name: str) -> Kept:
        """One that nobody has at the moment.

        Raises:
            VolumeNotFound, VolumeInUse, Conflict.
        """
        await self.get(owner, name)
        await self.check(owner, name)
        rows = await self._rows(select(*_TOLD, volumes.c.last_used_at).where(_named(owner, name)))
        if not rows:
            raise _no_such(name)
        return _kept(rows[0])

    async def begin_removal(self, owner: Owner, name: str, *, now: datetime) -> Kept:
        """From now on nobody can take it. Again is success.

        Raises:
            VolumeNotFound.
            VolumeInUse: a workspace has it.
        """
        statement = (
            update(volumes)
            .where(_named(owner, name), _is_free())
            .values(removed_at=now)
            .returning(*_TOLD, volumes.c.last_used_at)
        )
        rows = await self._do(lambda it: _all(it, statement))
        if not rows:
            raise await self._why_not(owner, name)
        return _kept(rows[0])

    async def forget(self, volume_id: str) -> None:
        """It is gone."""
        statement = delete(volumes).where(
            volumes.c.id == volume_id, volumes.c.removed_at.is_not(None)
        )
        await self._do(lambda it: it.execute(statement))

    async def _why_not(self, owner: Owner, name: str) -> Exception:
        rows = await self._rows(_shown().where(_named(owner, name)))
        if not rows:
            return _no_such(name)
        volume = _volume(rows[0])
        if volume.is_being_removed:
            return Conflict(f"Volume {name!r} is being removed.", hint="Remove it again, or wait.")
        has_it = f"workspace {volume.used_by}" if volume.used_by else "another workspace"
        return VolumeInUse(f"Volume {name!r} is in use by {has_it}.")


async def _all(
    connection: Any, statement: Any
) -> list[Row[Any]]:  # Any: SQLAlchemy's own, read by _kept
    return list((await connection.execute(statement)).all())


def _owned(owner: Owner) -> ColumnElement[bool]:
    return (volumes.c.tenant == owner.tenant) & (volumes.c.owner == owner.name)


def _named(owner: Owner, name: str) -> ColumnElement[bool]:
    return _owned(owner) & (volumes.c.name == name)


def _is_free(workspace_id: str | None = None) -> ColumnElement[bool]:
    # By its name: an upsert's condition has no table that a part of it could be correlated with.
    holder = literal_column("volumes.used_by", String)
    has_ended = exists().where(workspaces.c.id == holder, workspaces.c.ended_at.is_not(None))
    free = or_(volumes.c.used_by.is_(None), has_ended)
    return free if workspace_id is None else or_(free, volumes.c.used_by == workspace_id)


def _is_free_now() -> ColumnElement[bool]:
    return _is_free() & volumes.c.removed_at.is_(None)


def _shown() -> Any:  # Any: a select, whose rows _volume reads
    has_it = (workspaces.c.id == volumes.c.used_by) & workspaces.c.ended_at.is_(None)
    return select(volumes, workspaces.c.id.label("holder")).outerjoin(workspaces, has_it)


def _volume(row: Row[Any]) -> Volume:  # Any: a row's columns, validated here
    columns = dict(row._mapping)
    columns |= {"used_by": columns["holder"], "is_being_removed": columns["removed_at"] is not None}
    return Volume.model_validate(columns)


def _kept(row: Row[Any]) -> Kept:  # Any: a row's columns
    return Kept(row.id, row.name, row.node, row.created_at, row.last_used_at is None)


def _no_such(name: str) -> VolumeNotFound:
    return VolumeNotFound(f"There is no volume {name[:100]!r}.")
