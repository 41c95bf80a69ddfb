"""How many workspaces there are of each template, where, and how many are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from controller.store.doing import Doing
from controller.store.tables import workspaces
from workspace.models import State

PLACED: tuple[State, ...] = ("starting", "ready", "paused", "releasing")  # they have a sandbox


class Group(NamedTuple):
    """So many of a template in a state, on a node."""

    template: str
    state: State
    node: str | None
    many: int


class Queued(NamedTuple):
    """A claim that waits for a place."""

    id: str
    template: str
    created_at: datetime


class Population:
    """The numbers of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._rows = doing.rows

    async def placed(self) -> Sequence[Group]:
        """Those that have a place on a node, or are about to."""
        kind = (workspaces.c.template, workspaces.c.state, workspaces.c.node)
        asked = select(*kind, func.count()).where(workspaces.c.state.in_(PLACED)).group_by(*kind)
        return [Group._make(row) for row in await self._rows(asked)]

    async def queued(self) -> Sequence[Queued]:
        """Those that wait for one, the oldest first."""
        asked = select(workspaces.c.id, workspaces.c.template, workspaces.c.created_at)
        asked = asked.where(workspaces.c.state == "queued").order_by(workspaces.c.created_at)
        return [Queued._make(row) for row in await self._rows(asked)]

    async def claimed(self, since: datetime) -> Mapping[str, datetime]:
        """When each template was last claimed, of those that were after that moment."""
        last = func.max(workspaces.c.created_at)
        asked = select(workspaces.c.template, last).where(workspaces.c.created_at > since)
        rows = await self._rows(asked.group_by(workspaces.c.template))
        return {template: at for template, at in (tuple(row) for row in rows)}
