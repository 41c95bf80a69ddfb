"""Tenants: what each may have, as operators of the whole set it, and how often its keys may ask.

What a tenant may have is remembered for moments, so that a claim of one without quotas costs
nothing; a claim of one with quotas is checked by the store in its own transaction.
"""

from __future__ import annotations

from collections import OrderedDict

from controller.access import Caller
from controller.events import Events
from controller.remembering import Remembered
from controller.store import Store
from workspace.access import Quotas, Tenant
from workspace.errors import RateLimited

MINUTE = 60.0
MOST = 10_000  # keys that are counted


class Tenants:
    """The tenants of one controller's store."""

    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events
        self._known: Remembered[Quotas] = Remembered(store.tenants.quotas)
        self._rates = Rates()

    async def quotas(self, name: str) -> Quotas:
        """What one may have; as it was set a moment ago, if another controller was told.

        Raises:
            Unavailable: nobody can tell.
        """
        return await self._known.get(name) or Quotas()

    async def page(self, *, limit: int, after: str | None) -> list[Tenant]:
        return await self._store.tenants.page(limit=limit, after=after)

    async def get(self, name: str) -> Tenant:
        return await self._store.tenants.get(name)

    async def put(self, name: str, quotas: Quotas, *, by: Caller) -> Tenant:
        """Have it have these. What it has already is left to it."""
        try:
            await self._store.tenants.put(name, quotas)
        finally:  # it may have been done though it failed
            self._known.forget(name)
        given = quotas.model_dump(exclude_none=True)
        await self._events.record("quotas", actor=by.name, tenant=name, **given)
        return await self.get(name)

    async def count(self, caller: Caller, now: float) -> None:
        """One more request of a caller's, at a moment of a clock that only goes forward.

        Raises:
            RateLimited: it is one too many.
        """
        limit = (await self.quotas(caller.tenant)).requests_per_minute
        if limit is None:
            return
        wait = self._rates.take(f"{caller.tenant}/{caller.name}", limit, now)
        if wait > 0:
            raise RateLimited(
                f"{limit} requests a minute are what a key of tenant {caller.tenant!r} has.",
                details={"retry_after_seconds": round(wait, 3)},
            )


class Rates:
    """How often each asked lately: so many a minute, all at once or one after the other.

    Pure. By the generic cell rate algorithm (ITU-T I.371): of each one moment is kept.
    """

    def __init__(self) -> None:
        self._due: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str, a_minute: int, now: float) -> float:
        """0 if it may now, and it is counted; else how many seconds until it may."""
        each = MINUTE / a_minute
        due = max(self._due.get(name, now), now)
        wait = due - now - (MINUTE - each)
        if wait > 1e-9:
            return wait
        self._due[name] = due + each
        self._due.move_to_end(name)
        while len(self._due) > MOST:
            self._due.popitem(last=False)
        return 0.0
