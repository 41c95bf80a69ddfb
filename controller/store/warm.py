"""The rows of desktops that wait for a claim.

Who deletes a row has the desktop: a claim (see ``claims``), or who ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, delete, func, insert, select, update

from controller.store.doing import Doing
from controller.store.tables import warm

_PAGE = 1000


@dataclass(frozen=True)
class Warm:
    """One of them."""

    id: str  # its sandbox
    template: str
    shape: str  # of its template as it was when it was started
    state: Literal["warming", "warm"]
    keeper: str  # the replica that started it
    created_at: datetime
    node: str | None = None
    ready_at: datetime | None = None


class WarmRows:
    """The warm desktops of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._do = doing.do
        self._rows = doing.rows

    async def add(self, new: Sequence[Warm]) -> None:
        """Write new ones, before anything of them is started."""
        rows = [asdict(each) for each in new]
        await self._do(lambda it: it.execute(insert(warm), rows), is_repeatable=False)

    async def save(self, changed: Warm) -> bool:
        """Write what has become of one; False: it is no more, and who looks after it must end it.

        One that is warm can be claimed from then on.
        """
        statement = update(warm).where(warm.c.id == changed.id).values(**asdict(changed))
        return bool((await self._do(lambda it: it.execute(statement))).rowcount)

    async def drop(self, sandbox: str) -> bool:
        """Take one away from claims, to end it; False: a claim, or another one, was first."""
        statement = delete(warm).where(warm.c.id == sandbox)
        # Once only: a second try could not tell its own deed from a claim's.
        done = await self._do(lambda it: it.execute(statement), is_repeatable=False)
        return bool(done.rowcount)

    async def has(self, sandbox: str) -> bool:
        """Whether it is one of them."""
        return bool(await self._rows(select(warm.c.id).where(warm.c.id == sandbox)))

    async def states(self) -> dict[str, str]:
        """The state of each; read in pages, so that many hold up nobody."""
        found: dict[str, str] = {}
        page = select(warm.c.id, warm.c.state).order_by(warm.c.id).limit(_PAGE)
        last = ""
        while rows := await self._rows(page.where(warm.c.id > last)):
            found |= {row.id: row.state for row in rows}
            last = rows[-1].id
        return found

    async def by_node(self) -> dict[str, int]:
        """How many can be claimed on each node, by its name."""
        here = warm.c.node.is_not(None)
        asked = select(warm.c.node, func.count()).where(warm.c.state == "warm", here)
        return {
            node: many for node, many in map(tuple, await self._rows(asked.group_by(warm.c.node)))
        }

    async def all(self) -> list[Warm]:
        """All, the oldest first."""
        return [to_warm(row) for row in await self._rows(select(warm).order_by(warm.c.created_at))]


def to_warm(row: Row[Any]) -> Warm:  # Any: a row's columns
    return Warm(**row._mapping)
