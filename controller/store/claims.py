"""Claims: a group of them is one transaction, whichever replica asks.

Each takes a desktop that is warm, or writes the row of one that is to be started; its key, if it
has one, makes the second time an answer instead of a second desktop. The row, the key and the lines
of the log are kept together or not at all. A warm desktop's row is deleted by who takes it, so that
two can never have the same: PostgreSQL passes over rows that another transaction is taking.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

from sqlalchemy import bindparam, delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store import tenants
from controller.store.appending import append
from controller.store.chain import NewEvent
from controller.store.doing import Clash, Doing
from controller.store.rows import columns, to_workspace
from controller.store.tables import warm, workspaces
from controller.store.warm import Warm, to_warm
from workspace.errors import QuotaExceeded
from workspace.models import Workspace

TRIES = 5  # of a group of which another replica was writing a key
_ADD = insert(workspaces).inline()
_OLDEST = (
    select(warm.c.id)
    .where(warm.c.state == "warm", warm.c.shape == bindparam("of_shape"))
    .order_by(warm.c.created_at)
    .limit(bindparam("most"))
)
_TAKE = delete(warm).where(warm.c.id.in_(_OLDEST)).returning(*warm.c)
# On PostgreSQL; what is picked as a part of its own, so that it is looked up once.
_PICKED = _OLDEST.with_for_update(skip_locked=True).cte("picked")
_TAKE_PAST_LOCKED = delete(warm).where(warm.c.id.in_(select(_PICKED.c.id))).returning(*warm.c)


@dataclass(frozen=True)
class NewClaim:
    """One that is asked for."""

    workspace: Workspace  # as it begins if no warm one is there
    owner: str
    keeper: str
    key: str | None = None
    shape: str | None = None  # of the warm desktops that would do; None: none would
    is_prepared: bool = True  # a warm one is ready as it is
    is_limited: bool = False  # its tenant has quotas


class Claimed(NamedTuple):
    """What became of it."""

    workspace: Workspace
    how: Literal["warm", "cold", "known", "refused"]
    refusal: QuotaExceeded | None = None


class Claims:
    """The claims of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing, *, notifies: bool, appended: Callable[[], None]) -> None:
        self._transact = doing.transact
        self._is_postgres = doing.is_postgres
        self._notifies = notifies
        self._appended = appended

    async def make(self, claims: Sequence[NewClaim]) -> list[Claimed]:
        """One answer for each, in their order."""
        for tries_left in reversed(range(TRIES)):
            try:
                made = await self._transact(lambda it: self._make(it, claims))
                self._appended()
                return made
            except Clash:  # another replica writes one of the keys: it is there by now
                if not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def take(self, workspace: Workspace, *, shape: str, keeper: str) -> Workspace | None:
        """A warm desktop for one that waits in the queue; None while there is none.

        What is returned is kept, if the keeper still is it.
        """

        async def work(connection: AsyncConnection) -> Workspace | None:
            taken = await self._take(connection, shape, 1)
            if not taken:
                return None
            changed = workspace.model_copy(
                update={"sandbox": taken[0].id, "node": taken[0].node, "state": "starting"}
            )
            written = await connection.execute(
                update(workspaces)
                .where(workspaces.c.id == workspace.id, workspaces.c.keeper == keeper)
                .where(workspaces.c.ended_at.is_(None))
                .values(**columns(changed))
            )
            if not written.rowcount:
                raise LookupError("it is another's by now")
            return changed

        try:
            return await self._transact(work)
        except LookupError:
            return None

    async def _make(self, connection: AsyncConnection, claims: Sequence[NewClaim]) -> list[Claimed]:
        known = await self._known(connection, claims)
        new: list[NewClaim] = []
        for claim in claims:
            if claim.key is None:
                new.append(claim)
            elif (name := _name(claim)) not in known:
                known[name] = claim.workspace
                new.append(claim)
        made = await self._refused(connection, new)
        new = [claim for claim in new if claim.workspace.id not in made]
        free = await self._take_all(connection, new)
        for claim in new:
            ready = free[claim.shape].pop() if claim.shape and free[claim.shape] else None
            made[claim.workspace.id] = _claimed(claim, ready)
        if new:
            rows = [_row(claim, made[claim.workspace.id].workspace) for claim in new]
            await connection.execute(_ADD, rows)
            lines = [line for claim in new for line in _lines(claim, made[claim.workspace.id])]
            await append(connection, lines, notifies=self._notifies, begins=True)
        return [made.get(claim.workspace.id) or _again(claim, made, known) for claim in claims]

    async def _refused(
        self, connection: AsyncConnection, claims: Sequence[NewClaim]
    ) -> dict[str, Claimed]:
        """Those of them that are more than their tenants may have."""
        names = {claim.workspace.tenant for claim in claims if claim.is_limited}
        if not names:
            return {}
        now = datetime.now(timezone.utc)
        left = dict(await tenants.held(connection, names, now))
        refused: dict[str, Claimed] = {}
        for claim in claims:
            tenant = claim.workspace.tenant
            if tenant not in left:
                continue
            try:
                used = tenants.admit(left[tenant], claim.workspace, now)
                left[tenant] = left[tenant]._replace(used=used)
            except QuotaExceeded as error:
                refused[claim.workspace.id] = Claimed(claim.workspace, "refused", error)
        return refused

    async def _known(
        self, connection: AsyncConnection, claims: Sequence[NewClaim]
    ) -> dict[tuple[str, str, str], Workspace]:
        names = [_name(claim) for claim in claims if claim.key is not None]
        if not names:
            return {}
        name = tuple_(workspaces.c.tenant, workspaces.c.owner, workspaces.c.claim_key)
        rows = (await connection.execute(select(workspaces).where(name.in_(names)))).all()
        return {(row.tenant, row.owner, row.claim_key): to_workspace(row) for row in rows}

    async def _take_all(
        self, connection: AsyncConnection, claims: Sequence[NewClaim]
    ) -> defaultdict[str, list[Warm]]:
        """For each shape as many as are asked for, if there are; the oldest last."""
        wanted: defaultdict[str, int] = defaultdict(int)
        for claim in claims:
            if claim.shape is not None:
                wanted[claim.shape] += 1
        taken: defaultdict[str, list[Warm]] = defaultdict(list)
        for shape in sorted(wanted):
            found = await self._take(connection, shape, wanted[shape])
            taken[shape] = sorted(found, key=lambda it: it.created_at, reverse=True)
        return taken

    async def _take(self, connection: AsyncConnection, shape: str, count: int) -> list[Warm]:
        statement = _TAKE_PAST_LOCKED if self._is_postgres else _TAKE
        found = await connection.execute(statement, {"of_shape": shape, "most": count})
        return [to_warm(row) for row in found.all()]


def _name(claim: NewClaim) -> tuple[str, str, str]:
    """Whose key it is, and which."""
    return claim.workspace.tenant, claim.owner, str(claim.key)


def _again(
    claim: NewClaim,
    made: Mapping[str, Claimed],
    known: Mapping[tuple[str, str, str], Workspace],
) -> Claimed:
    """The answer to a key that came before, if only a moment ago."""
    before = known[_name(claim)]
    first = made.get(before.id)
    if first is not None and first.refusal is not None:
        return first
    return Claimed(before, "known")


def _claimed(claim: NewClaim, ready: Warm | None) -> Claimed:
    if ready is None:
        return Claimed(claim.workspace, "cold")
    # Any: its fields.
    changes: dict[str, Any] = {"sandbox": ready.id, "node": ready.node, "state": "starting"}
    if claim.is_prepared:
        changes |= {"state": "ready", "ready_at": datetime.now(timezone.utc)}
    return Claimed(claim.workspace.model_copy(update=changes), "warm")


def _row(claim: NewClaim, made: Workspace) -> dict[str, Any]:  # Any: column values
    own = {"owner": claim.owner, "keeper": claim.keeper, "claim_key": claim.key}
    return {**columns(made), **own}


def _lines(claim: NewClaim, made: Claimed) -> list[NewEvent]:
    workspace = made.workspace
    claimed = {"template": workspace.template, "warm": made.how == "warm"}
    lines = [NewEvent(workspace.created_at, workspace.id, claim.owner, "claim", claimed)]
    if workspace.ready_at is not None:
        took = (workspace.ready_at - workspace.created_at).total_seconds()
        ready = {"seconds": round(took, 3)}
        lines.append(NewEvent(workspace.ready_at, workspace.id, "controller", "ready", ready))
    return lines
