"""The tool servers that were registered: whose each is, where it answers, its secret sealed."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Row, delete, func, insert, select

from controller.store.doing import Clash, Doing
from controller.store.tables import tools
from workspace.errors import Conflict

MOST = 1000  # of all tenants
MOST_OF_ONE = 32


class ToolsRow(NamedTuple):
    """One of them, as it is kept."""

    id: str
    tenant: str
    name: str
    url: str
    header: str
    sealed: str  # its secret; empty if it has none
    created_at: datetime
    created_by: str


class ToolRows:
    """The tool servers of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def add(self, row: ToolsRow) -> None:
        """Keep a new one.

        Raises:
            Conflict: its tenant has one of that name, or as many as it may.
        """
        has = await self._doing.rows(
            select(func.count()).select_from(tools).where(tools.c.tenant == row.tenant)
        )
        all_of_them = await self._doing.rows(select(func.count()).select_from(tools))
        if has[0][0] >= MOST_OF_ONE or all_of_them[0][0] >= MOST:
            raise Conflict(
                f"Tenant {row.tenant!r} has as many tool servers as it may: {has[0][0]}.",
                hint="Remove one that is not needed.",
            )
        try:
            await self._doing.transact(lambda it: it.execute(insert(tools).values(**row._asdict())))
        except Clash as error:
            raise Conflict(
                f"Tenant {row.tenant!r} has a tool server {row.name!r} already.",
                hint="Remove that one first, or choose another name.",
            ) from error

    async def all(self) -> list[ToolsRow]:
        """All of them, of all tenants."""
        rows = await self._doing.rows(select(tools).order_by(tools.c.id).limit(MOST))
        return [_row(row) for row in rows]

    async def of(self, tenant: str) -> list[ToolsRow]:
        """A tenant's, by name."""
        asked = select(tools).where(tools.c.tenant == tenant).order_by(tools.c.name)
        return [_row(row) for row in await self._doing.rows(asked.limit(MOST))]

    async def get(self, tenant: str, name: str) -> ToolsRow | None:
        asked = select(tools).where(tools.c.tenant == tenant, tools.c.name == name)
        rows = await self._doing.rows(asked)
        return _row(rows[0]) if rows else None

    async def remove(self, tenant: str, name: str) -> bool:
        """Whether there was one."""
        gone = delete(tools).where(tools.c.tenant == tenant, tools.c.name == name)
        return bool((await self._doing.do(lambda it: it.execute(gone))).rowcount)


def _row(row: Row[tuple[object, ...]]) -> ToolsRow:
    return ToolsRow(**dict(row._mapping))
