"""Checkpoints of the log, and the removal of its old lines; what they are is in ``signing``.

A line that is removed by its age is taken out of its checkpoint's sum, its chain's ``base`` is set
behind it and signed, and it is deleted, in one transaction: after each batch all that is left still
verifies, and what had been changed before shows as before. Two who do this at once hinder each
other and nothing else: one of them has done nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store.chain import GENESIS, Head
from controller.store.doing import Clash, Doing
from controller.store.signing import Checkpoint, Signer, make, without
from controller.store.tables import chains, checkpoints, events, workspaces

MOST_LINES = 50_000  # of one checkpoint
_PAGE = 500
_NEWEST = select(checkpoints).order_by(checkpoints.c.number.desc()).limit(1)


class Removed(NamedTuple):
    """What one batch did, and where the next one begins."""

    lines: int
    cursor: int | None  # None: nothing older is left


class Limits(NamedTuple):
    """Before when lines are too old: of workspaces of tenants that have their ``own``, and of all
    others. None: never.
    """

    common: datetime | None
    own: Mapping[str, datetime | None] = {}

    @property
    def newest(self) -> datetime | None:
        """What is not older than that nobody removes."""
        return max(filter(None, (self.common, *self.own.values())), default=None)

    def of(self, tenant: str | None) -> datetime | None:
        return self.common if tenant is None else self.own.get(tenant, self.common)


class Checkpoints:
    """The checkpoints of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def newest(self) -> Checkpoint | None:
        rows = await self._doing.rows(_NEWEST)
        return to_checkpoint(rows[0]) if rows else None

    async def unsigned(self, newest: Checkpoint | None) -> int:
        """How many lines at most came since."""
        rows = await self._doing.rows(select(func.max(events.c.id)))
        return int(rows[0][0] or 0) - (newest.upto if newest else 0)

    async def make(self, signer: Signer) -> Checkpoint | None:
        """Sign the lines since the newest, at most MOST_LINES; None if there are none.

        Raises:
            Clash: another one made it at the same moment.
        """
        before = await self.newest()
        upto, lines, sum_ = before.upto if before else 0, 0, 0
        while lines < MOST_LINES:
            asked = select(events.c.id, events.c.hash).where(events.c.id > upto)
            rows = await self._doing.rows(asked.order_by(events.c.id).limit(_PAGE))
            for row in rows:
                sum_ += signer.line(row.id, row.hash)
            lines += len(rows)
            if rows:
                upto = rows[-1].id
            if len(rows) < _PAGE:
                break
            await anyio.lowlevel.checkpoint()
        if not lines:
            return None
        now = datetime.now(timezone.utc)
        new = make(signer, before, at=now, upto=upto, lines=lines, sum_=sum_)
        await self._doing.transact(
            lambda it: it.execute(insert(checkpoints).values(**new._asdict()))
        )
        return new

    async def remove(self, signer: Signer, limits: Limits, *, cursor: int = 0) -> Removed:
        """Remove the lines of the next batch that are too old, but those of workspaces that live.

        Only lines that a checkpoint is of are removed.

        Raises:
            Clash: another one does it at the same moment.
        """
        if (before := limits.newest) is None:
            return Removed(0, None)
        newest = await self.newest()
        asked = select(
            events.c.id, events.c.at, events.c.workspace_id, events.c.seq, events.c.hash
        ).where(events.c.id > cursor, events.c.id <= (newest.upto if newest else 0))
        rows = await self._doing.rows(asked.order_by(events.c.id).limit(_PAGE))
        old: list[Row[Any]] = []  # Any: its columns
        for row in rows:
            if row.at >= before:
                break
            old.append(row)
        if not old:
            return Removed(0, None)
        chosen, bases = await self._chosen(old, limits)
        if chosen:
            kept = await self._of(chosen[0].id, chosen[-1].id)
            await self._doing.transact(lambda it: _remove(it, signer, chosen, bases, kept))
        is_over = len(old) < len(rows) or len(rows) < _PAGE
        return Removed(len(chosen), None if is_over else old[-1].id)

    async def _chosen(
        self,
        old: Sequence[Row[Any]],  # Any: its columns
        limits: Limits,
    ) -> tuple[list[Row[Any]], Mapping[str, Head]]:
        """Those of them that may go: the first ones of chains whose workspaces live no more."""
        names = sorted({row.workspace_id or "" for row in old})
        known = await self._doing.rows(
            select(workspaces.c.id, workspaces.c.tenant, workspaces.c.ended_at).where(
                workspaces.c.id.in_(names)
            )
        )
        names_live = {row.id for row in known if row.ended_at is None}
        tenants = {row.id: row.tenant for row in known}
        found = await self._doing.rows(select(chains).where(chains.c.chain.in_(names)))
        bases = {row.chain: base_of(row) for row in found if row.chain not in names_live}
        ends = dict(bases)
        chosen = []
        for row in old:
            end = ends.get(row.workspace_id or "")
            before = limits.of(tenants.get(row.workspace_id))
            if before is None or row.at >= before:
                ends.pop(row.workspace_id or "", None)  # nor what follows it
            elif end is not None and row.seq == end.seq + 1:  # else one is missing: it stays
                ends[row.workspace_id or ""] = Head(row.seq, row.hash)
                chosen.append(row)
        return chosen, bases

    async def _of(self, first: int, last: int) -> list[Checkpoint]:
        """Those that lines of these ids are in."""
        asked = select(checkpoints).where(checkpoints.c.upto >= first)
        until = select(func.min(checkpoints.c.upto)).where(checkpoints.c.upto >= last)
        rows = await self._doing.rows(
            asked.where(checkpoints.c.upto <= until.scalar_subquery()).order_by(
                checkpoints.c.number
            )
        )
        return [to_checkpoint(row) for row in rows]


async def _remove(
    connection: AsyncConnection,
    signer: Signer,
    chosen: Sequence[Row[Any]],  # Any: their columns
    bases: Mapping[str, Head],
    kept: Sequence[Checkpoint],
) -> None:
    ends: dict[str, Head] = {}
    taken: defaultdict[int, list[int]] = defaultdict(list)
    uptos = [each.upto for each in kept]
    for row in chosen:
        ends[row.workspace_id or ""] = Head(row.seq, row.hash)
        taken[bisect_left(uptos, row.id)].append(signer.line(row.id, row.hash))
    # The chains in their order, as who appends has them: so neither waits for the other for ever.
    for chain in sorted(ends):
        end = ends[chain]
        await _one(
            connection,
            update(chains)
            .where(chains.c.chain == chain, chains.c.base_seq == bases[chain].seq)
            .values(base_seq=end.seq, base_hash=end.hash, base_signature=signer.base(chain, end)),
        )
    for place, parts in taken.items():
        was = kept[place]
        now = without(signer, was, len(parts), sum(parts))
        await _one(
            connection,
            update(checkpoints)
            .where(checkpoints.c.number == was.number, checkpoints.c.signature == was.signature)
            .values(
                removed_lines=now.removed_lines,
                removed_sum=now.removed_sum,
                signature=now.signature,
            ),
        )
    await connection.execute(
        delete(events).where(events.c.id.in_(bindparam("ids", expanding=True))),
        {"ids": [row.id for row in chosen]},
    )


async def _one(connection: AsyncConnection, statement: Any) -> None:  # Any: an update
    if (await connection.execute(statement)).rowcount != 1:
        raise Clash("another one removes the same lines")


def to_checkpoint(row: Row[Any]) -> Checkpoint:  # Any: its columns
    return Checkpoint(**row._mapping)


def base_of(row: Row[Any]) -> Head:  # Any: a chain's columns
    """Where what is left of a chain begins."""
    return Head(row.base_seq, row.base_hash) if row.base_seq else Head(0, GENESIS)
