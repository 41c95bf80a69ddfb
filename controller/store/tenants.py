"""Tenants: what each may have, what it has, and whether a claim is still within that.

A claim is checked in the transaction that makes it, while the tenant's row is held: so that of any
number of controllers no two let in what only one may (SQLite has one, which makes claims one group
after the other). A tenant that has no quotas is not asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta, timezone
from typing import Literal, NamedTuple

from sqlalchemy import Select, case, extract, func, literal, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store.doing import Doing
from controller.store.tables import UtcTime, keys, tenants, workspaces
from workspace.access import Quotas, Tenant, Used
from workspace.errors import QuotaExceeded
from workspace.models import DEFAULT_TENANT, Workspace

AGAIN_SECONDS = 30  # until a desktop may have been released: nobody knows
_PAGE = 1000
_NONE = Quotas()


class Left(NamedTuple):
    """What a tenant may have, and what it has."""

    quotas: Quotas
    used: Used


class Tenants:
    """The tenants of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def quotas(self, name: str) -> Quotas:
        """What one may have; of one that nobody set anything of, all there is."""
        rows = await self._doing.rows(select(tenants.c.quotas).where(tenants.c.name == name))
        return Quotas.model_validate(rows[0].quotas) if rows else _NONE

    async def put(self, name: str, quotas: Quotas) -> None:
        """Have it have these, in place of what was."""
        given = quotas.model_dump(exclude_none=True)
        new = self._doing.insert(tenants).values(name=name, quotas=given)
        put = new.on_conflict_do_update(
            index_elements=[tenants.c.name], set_={"quotas": new.excluded.quotas}
        )
        await self._doing.do(lambda it: it.execute(put))

    async def days(self, of: Literal["artifact_days", "event_days"]) -> Mapping[str, float]:
        """How long each keeps its own, of those for which that is set; 0 is for ever."""
        found: dict[str, float] = {}
        after = ""
        while True:
            asked = select(tenants).where(tenants.c.name > after).order_by(tenants.c.name)
            rows = await self._doing.rows(asked.limit(_PAGE))
            for row in rows:
                days = getattr(Quotas.model_validate(row.quotas), of)
                if days is not None:
                    found[row.name] = days
            if len(rows) < _PAGE:
                return found
            after = rows[-1].name

    async def page(self, *, limit: int, after: str | None = None) -> list[Tenant]:
        """Those that have quotas, good keys or workspaces that live, and the default, by name."""
        named = union(
            select(literal(DEFAULT_TENANT).label("name")),
            select(tenants.c.name),
            select(keys.c.tenant).where(keys.c.revoked_at.is_(None)),
            select(workspaces.c.tenant).where(workspaces.c.ended_at.is_(None)),
        ).subquery()
        asked = select(named.c.name).order_by(named.c.name).limit(limit)
        if after is not None:
            asked = asked.where(named.c.name > after)
        return await self._told([row.name for row in await self._doing.rows(asked)])

    async def get(self, name: str) -> Tenant:
        """One, whether anything is known of it or not."""
        return (await self._told([name]))[0]

    async def _told(self, names: Collection[str]) -> list[Tenant]:
        rows = await self._doing.rows(select(tenants).where(tenants.c.name.in_(names)))
        quotas = {row.name: Quotas.model_validate(row.quotas) for row in rows}
        now = datetime.now(timezone.utc)
        used = {row.tenant: _used(row) for row in await self._doing.rows(_using(names))}
        hours = {
            row.tenant: _hours(row.seconds) for row in await self._doing.rows(_spent(names, now))
        }
        return [
            Tenant(
                name=name,
                quotas=quotas.get(name, _NONE),
                used=used.get(name, Used()).model_copy(
                    update={"desktop_hours": hours.get(name, 0.0)}
                ),
            )
            for name in names
        ]


async def held(
    connection: AsyncConnection, names: Collection[str], now: datetime
) -> Mapping[str, Left]:
    """What tenants may have and have, which nobody else changes before the transaction ends."""
    asked = select(tenants).where(tenants.c.name.in_(names)).order_by(tenants.c.name)
    rows = (await connection.execute(asked.with_for_update())).all()  # SQLite knows no such words
    quotas = {row.name: Quotas.model_validate(row.quotas) for row in rows}
    limited = {name for name, each in quotas.items() if each.limits_claims}
    if not limited:
        return {}
    used = {row.tenant: _used(row) for row in (await connection.execute(_using(limited))).all()}
    timed = {name for name in limited if quotas[name].desktop_hours is not None}
    if timed:
        for row in (await connection.execute(_spent(timed, now))).all():
            so_far = used.get(row.tenant, Used())
            used[row.tenant] = so_far.model_copy(update={"desktop_hours": _hours(row.seconds)})
    return {name: Left(quotas[name], used.get(name, Used())) for name in limited}


def admit(left: Left, workspace: Workspace, now: datetime) -> Used:
    """What the tenant has with one more.

    Raises:
        QuotaExceeded: that would be too much.
    """
    quotas, used = left
    more = Used(
        workspaces=used.workspaces + 1,
        cpus=used.cpus + (workspace.cpus or 0.0),
        memory_mib=used.memory_mib + (workspace.memory_mib or 0),
        desktop_hours=used.desktop_hours,
    )
    for name, unit in (("workspaces", "desktops"), ("cpus", "cpus"), ("memory_mib", "MiB")):
        limit = getattr(quotas, name)
        if limit is not None and getattr(more, name) > limit:
            raise _exceeded(
                f"Tenant {workspace.tenant!r} may have {limit:g} {unit} at once, and has "
                f"{getattr(used, name):g}.",
                AGAIN_SECONDS,
            )
    if quotas.desktop_hours is not None and used.desktop_hours >= quotas.desktop_hours:
        raise _exceeded(
            f"Tenant {workspace.tenant!r} has used the {quotas.desktop_hours:g} desktop-hours "
            "that it may have this month.",
            (_next_month(now) - now).total_seconds(),
        )
    return more


def _exceeded(message: str, seconds: float) -> QuotaExceeded:
    return QuotaExceeded(message, details={"retry_after_seconds": round(seconds)})


def _using(names: Collection[str]) -> Select[tuple[str, int, float, int]]:
    """What tenants have at once."""
    return (
        select(
            workspaces.c.tenant,
            func.count().label("workspaces"),
            func.coalesce(func.sum(workspaces.c.cpus), 0.0).label("cpus"),
            func.coalesce(func.sum(workspaces.c.memory_mib), 0).label("memory_mib"),
        )
        .where(workspaces.c.ended_at.is_(None), workspaces.c.tenant.in_(names))
        .group_by(workspaces.c.tenant)
    )


def _spent(names: Collection[str], now: datetime) -> Select[tuple[str, float]]:
    """How many seconds of this month tenants' desktops have lived."""
    since = literal(_month(now), UtcTime)
    begun = case((workspaces.c.created_at > since, workspaces.c.created_at), else_=since)
    ended = func.coalesce(workspaces.c.ended_at, literal(now, UtcTime))
    lived = extract("epoch", ended) - extract("epoch", begun)
    return (
        select(workspaces.c.tenant, func.sum(lived).label("seconds"))
        .where(workspaces.c.tenant.in_(names))
        .where(workspaces.c.ended_at.is_(None) | (workspaces.c.ended_at > since))
        .group_by(workspaces.c.tenant)
    )


def _used(row: object) -> Used:
    return Used.model_validate(row, from_attributes=True)


def _hours(seconds: float | None) -> float:
    return round(max(0.0, float(seconds or 0)) / 3600, 3)


def _month(now: datetime) -> datetime:
    return now.astimezone(timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(now: datetime) -> datetime:
    return _month(_month(now) + timedelta(days=32))
