"""What operators have set: of pools, and of nodes that get no new desktops."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import delete, select

from controller.store.doing import Doing
from controller.store.tables import drains, pools

Changes = Mapping[str, Any]  # Any: fields of workspace.models.Pool


class Operated:
    """The operators' settings of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def pools(self) -> Mapping[str, Changes]:
        """What was changed of each template's pool."""
        return {row.template: row.changes for row in await self._doing.rows(select(pools))}

    async def change_pool(self, template: str, changes: Changes) -> None:
        """Keep all that was changed of one, in place of what was."""
        new = self._doing.insert(pools).values(template=template, changes=dict(changes))
        put = new.on_conflict_do_update(
            index_elements=[pools.c.template], set_={"changes": new.excluded.changes}
        )
        await self._doing.do(lambda it: it.execute(put))

    async def draining(self) -> Mapping[str, datetime]:
        """The nodes that get no new desktops, and since when."""
        return {row.node: row.since for row in await self._doing.rows(select(drains))}

    async def drain(self, node: str) -> None:
        """Give it no new ones."""
        new = self._doing.insert(drains).values(node=node, since=datetime.now(timezone.utc))
        await self._doing.do(lambda it: it.execute(new.on_conflict_do_nothing()))

    async def undrain(self, node: str) -> None:
        """Give it new ones again."""
        statement = delete(drains).where(drains.c.node == node)
        await self._doing.do(lambda it: it.execute(statement))
