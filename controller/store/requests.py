"""What agents have asked people for, and what came of it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Row, delete, select, update

from controller.store.doing import Doing
from controller.store.tables import requests, workspaces
from workspace.control import AnswerHuman, HumanRequest, Returned

_WAITS = ("open", "taken")


class Requests:
    """The requests of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def add(self, request: HumanRequest) -> None:
        values = request.model_dump(mode="python", exclude={"ticket", "did"})
        new = self._doing.insert(requests).values(id=request.ticket, did=[], **values)
        await self._doing.do(lambda it: it.execute(new.on_conflict_do_nothing()))

    async def remove(self, ticket: str) -> None:
        """One that was never told of."""
        statement = delete(requests).where(requests.c.id == ticket)
        await self._doing.do(lambda it: it.execute(statement))

    async def get(self, ticket: str) -> HumanRequest | None:
        if "\0" in ticket:  # PostgreSQL refuses to be asked
            return None
        rows = await self._doing.rows(select(requests).where(requests.c.id == ticket))
        return _request(rows[0]) if rows else None

    async def waiting(
        self, *, limit: int, workspace_id: str | None = None, tenant: str | None = None
    ) -> list[HumanRequest]:
        """Those that wait for a person, the oldest first; of desktops that have not ended."""
        statement = (
            select(requests)
            .join(workspaces, workspaces.c.id == requests.c.workspace_id)
            .where(
                requests.c.state.in_(_WAITS),
                requests.c.expires_at > _now(),
                workspaces.c.ended_at.is_(None),
            )
            .order_by(requests.c.created_at, requests.c.id)
            .limit(limit)
        )
        if workspace_id is not None:
            statement = statement.where(requests.c.workspace_id == workspace_id)
        if tenant is not None:
            statement = statement.where(workspaces.c.tenant == tenant)
        return [_request(row) for row in await self._doing.rows(statement)]

    async def taken(self, workspace_id: str, by: str | None) -> None:
        """A person has control of the desktop now; with None nobody has any more."""
        state = "open" if by is None else "taken"
        statement = (
            update(requests)
            .where(requests.c.workspace_id == workspace_id, requests.c.state.in_(_WAITS))
            .values(state=state, taken_by=by)
        )
        await self._doing.do(lambda it: it.execute(statement))

    async def did(self, workspace_id: str, returned: Returned, *, limit: int) -> None:
        """Keep what a person did for the request that waits, if one does."""
        found = await self.waiting(limit=1, workspace_id=workspace_id)
        if not found:
            return
        whole = [*found[0].did, *returned.did]
        did = [deed.model_dump(mode="json") for deed in whole[:limit]]
        more = found[0].more + returned.more + len(whole) - len(did)
        statement = update(requests).where(requests.c.id == found[0].ticket)
        kept = statement.values(did=did, more=more)
        await self._doing.do(lambda it: it.execute(kept))

    async def answer(self, ticket: str, answer: AnswerHuman, *, by: str) -> bool:
        """Whether it was still to be answered."""
        statement = (
            update(requests)
            .where(
                requests.c.id == ticket,
                requests.c.state.in_(_WAITS),
                requests.c.expires_at > _now(),
            )
            .values(state=answer.outcome, note=answer.note, answered_by=by, answered_at=_now())
        )
        return await self._changed(statement)

    async def expire(self, ticket: str) -> bool:
        """Whether it waited until now."""
        statement = (
            update(requests)
            .where(requests.c.id == ticket, requests.c.state.in_(_WAITS))
            .values(state="expired")
        )
        return await self._changed(statement)

    async def _changed(self, statement: Any) -> bool:  # Any: an update of requests
        done = await self._doing.do(lambda it: it.execute(statement), is_repeatable=False)
        return bool(done.rowcount)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _request(row: Row[Any]) -> HumanRequest:  # Any: a row's columns, validated here
    values = dict(row._mapping)
    return HumanRequest.model_validate({"ticket": values.pop("id"), **values})
