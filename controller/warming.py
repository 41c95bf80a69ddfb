"""Keeps desktops warm: one controller leads, looks at what there is, plans, and does it.

The leader wakes as soon as a claim comes or a desktop goes, and every second in any case, for what
other controllers do. What is decided is :mod:`controller.pool`'s; how one desktop is brought up and
ended, :mod:`controller.warmed`'s. All it knows besides the store and the cluster is what failed
lately and how to reach what it has warmed; whoever leads next finds the rest.

While the store or the cluster does not answer nothing is planned; what is warm stays warm. At its
end the warm desktops are ended with their Ray, or left to the next leader if it is not its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from functools import partial

import anyio
from anyio.abc import TaskGroup

from controller.keeping import Keeping
from controller.live import SYSTEM, Handed, new_id, shape
from controller.pool import QUARANTINE_FAILURES, Start, back_off_seconds, plan
from controller.stock import CHANGED_AT, Failing, Stock, Stocktaking, told
from controller.store.warm import Warm
from controller.templates import Templates
from controller.tracing import connect
from controller.warmed import IDE_SECONDS, SETTLE_SECONDS, START_SECONDS, Warmed, Warmer
from workspace.errors import CarrelError
from workspace.fleet import PoolChange, PoolStatus
from workspace.models import Pool, Template

TICK_SECONDS = 1.0
IDLE_SECONDS = 5.0  # while no pool keeps anything
SHUTDOWN_SECONDS = 10.0
MOST_PAST = 10_000
REST = 4  # times what a pass took, until the next one
LEAST_REST_SECONDS = 0.05
MOST_WARMING_SECONDS = START_SECONDS + SETTLE_SECONDS + IDE_SECONDS + 30
NO_ROOM_SECONDS = 1.0  # without starts, after one that found no room though there seemed to be
_log = logging.getLogger(__name__)


class Warming:
    """The pools of one controller; ``run`` it inside its lifecycle."""

    def __init__(self, keeping: Keeping, templates: Templates, *, lives_on: bool) -> None:
        self._keeping = keeping
        self._store = keeping.store
        self._templates = templates
        self._lives_on = lives_on
        self._stocktaking = Stocktaking(keeping, templates)
        self._warmer = Warmer(keeping.store, keeping.cluster)
        self._own: dict[str, Warmed] = {}
        self._past: dict[str, None] = {}  # the last ones that it had
        self._seen: dict[str, float] = {}  # since when, what another one brings up
        self._failing: dict[str, Failing] = {}
        self._short_since: dict[str, float] = {}
        self._no_start_before = 0.0
        self._wake = anyio.Event()
        self._trouble = ""
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep desktops warm for as long as the block runs."""
        async with anyio.create_task_group() as self._tasks:
            looping = anyio.CancelScope()
            self._tasks.start_soon(self._run, looping)
            try:
                yield
            finally:
                looping.cancel()
                with anyio.CancelScope(shield=True):
                    await self._close()
                self._tasks.cancel_scope.cancel()

    # What the lifecycle asks.

    def taken(self, sandbox: str) -> Handed | None:
        own = self._own.get(sandbox)
        if own is None or own.is_ending:  # its connections are being closed
            return None
        self._forget(own)
        own.finish("taken")
        return own.handed

    def changed(self, template: str) -> None:
        self._wake.set()

    async def pool(self, template: Template) -> Pool:
        changes = await self._stocktaking.changes()
        return told(template, changes.get(template.name, {})).pool

    # What operators ask.

    async def statuses(self) -> list[PoolStatus]:
        """Every template's pool as it is now.

        Raises:
            Unavailable: the store or the cluster does not answer.
        """
        stock = await self._stocktaking.look(self._own, self._past, self._failing)
        found = plan(stock.wanted, stock.members, stock.rooms, stock.now).states
        return [self._counted(status) for status in found.values()]

    async def status(self, template: str) -> PoolStatus:
        """One template's.

        Raises:
            TemplateNotFound.
        """
        self._templates.get(template)
        return next(each for each in await self.statuses() if each.template == template)

    async def change(self, template: str, change: PoolChange, *, actor: str) -> PoolStatus:
        """Change what is given of a pool, and let it try again if it was quarantined.

        Raises:
            TemplateNotFound.
        """
        self._templates.get(template)
        given = change.model_dump(exclude_unset=True)
        unset = ("max", "idle_seconds")  # these may be none at all
        given = {name: value for name, value in given.items() if value is not None or name in unset}
        before = (await self._stocktaking.changes(fresh=True)).get(template, {})
        now = datetime.now(timezone.utc).isoformat()
        await self._store.operated.change_pool(template, {**before, **given, CHANGED_AT: now})
        await self._keeping.events.record("scale", actor=actor, template=template, **given)
        await self._stocktaking.changes(fresh=True)
        self._keeping.places.freed(template)
        self._wake.set()
        return await self.status(template)

    def _counted(self, status: PoolStatus) -> PoolStatus:
        served = self._keeping.metrics.claims
        name = status.template
        return status.model_copy(
            update={
                "hits": served[name, "warm"],
                "misses": served[name, "cold"] + served[name, "queued"],
            }
        )

    # The loop.

    async def _run(self, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                began = time.monotonic()
                self._wake = anyio.Event()
                is_idle = True
                try:
                    if await self._store.leadership.is_ours():
                        is_idle = await self._pass()
                    elif self._own:  # from when it led
                        self._let_go(await self._store.warm.all())
                    self._trouble = ""
                except CarrelError as error:
                    if error.message != self._trouble:
                        _log.warning("the pools are not looked after: %s", error.message)
                    self._trouble = error.message
                except Exception:  # the next pass comes, whatever this one ran into
                    _log.exception("looking after the pools failed")
                ended = time.monotonic()
                with anyio.move_on_after(IDLE_SECONDS if is_idle else TICK_SECONDS):
                    await self._wake.wait()
                rest = max(LEAST_REST_SECONDS, REST * (ended - began))
                await anyio.sleep(max(0.0, ended + rest - time.monotonic()))

    async def _pass(self) -> bool:
        """Look, plan, do; whether nothing is kept."""
        stock = await self._stocktaking.look(
            self._own, self._past, self._failing, whole=bool(self._own)
        )
        if stock.is_void:
            self._keeping.metrics.pools = ()
            return True
        self._let_go(stock.rows)
        strangers = [row for row in stock.rows if row.id not in self._own]
        if strangers and await self._take_over(strangers, stock):
            self._wake.set()  # and look again
            return False
        planned = plan(stock.wanted, stock.members, stock.rooms, stock.now)
        self._note(planned.states.values())
        for stop in planned.stops:
            _log.info("warm desktop %s is ended: %s", stop.id, stop.reason)
            if (own := self._own.get(stop.id)) is not None:
                own.finish()
            else:  # who brings it up finds its row gone
                await self._store.warm.drop(stop.id)
        if planned.starts and time.monotonic() >= self._no_start_before:
            await self._start(planned.starts, stock)
        return False

    async def _start(self, starts: Sequence[Start], stock: Stock) -> None:
        now = datetime.now(timezone.utc)
        rows = []
        for start in starts:
            template = stock.templates[start.template]
            rows.append(
                Warm(
                    new_id(), template.name, shape(template), "warming", self._keeping.replica, now
                )
            )
        await self._store.warm.add(rows)
        for row in rows:
            own = Warmed(row, of=stock.versions[row.template])
            self._look_after(own, stock.templates[row.template])

    def _look_after(self, own: Warmed, template: Template | None) -> None:
        assert self._tasks is not None, "it runs"
        self._own[own.row.id] = own
        self._tasks.start_soon(self._until_gone, own, template, name=f"warm {own.row.id}")

    async def _until_gone(self, own: Warmed, template: Template | None) -> None:
        name = own.row.template

        def is_warm() -> None:
            self._failing.pop(name, None)
            self._keeping.places.freed(shape=own.row.shape)
            self._wake.set()

        try:
            await self._warmer.look_after(
                own,
                template,
                is_warm=is_warm,
                failed=partial(self._failed, own),
                is_full=self._wait_for_room,
            )
        finally:
            self._forget(own)
            self._keeping.places.freed(name)
            self._wake.set()

    def _forget(self, own: Warmed) -> None:
        if self._own.get(own.row.id) is own:
            del self._own[own.row.id]
            self._past[own.row.id] = None
            if len(self._past) > MOST_PAST:
                del self._past[next(iter(self._past))]

    def _wait_for_room(self) -> None:
        self._no_start_before = time.monotonic() + NO_ROOM_SECONDS

    def _failed(self, own: Warmed, reason: str) -> None:
        name = own.row.template
        _log.warning("a warm desktop of template %s failed: %s", name, reason)
        self._keeping.metrics.pool_failures.labels(name).inc()
        now, before, count = time.monotonic(), self._failing.get(name), 1
        is_start = own.row.state == "warming"  # else it was warm, and the next one has to wait
        if before is not None and before.of == own.of:
            if now - before.at < back_off_seconds(before.count):
                return  # nothing was started since: it is the same trouble
            count = before.count + is_start
        self._failing[name] = Failing(count, now, reason, own.of)
        if is_start and count == QUARANTINE_FAILURES and self._tasks is not None:
            self._tasks.start_soon(self._tell_quarantine, name, reason)

    async def _tell_quarantine(self, name: str, reason: str) -> None:
        _log.error("template %s is quarantined: %s", name, reason)
        try:
            await self._keeping.events.record(
                "quarantine", actor=SYSTEM, template=name, reason=reason[:500]
            )
        except CarrelError as error:  # its state tells of it all the same
            _log.warning("the quarantine is not recorded: %s", error.message)

    # What this one did not start, or no longer has.

    def _let_go(self, rows: Iterable[Warm]) -> None:
        """Those whose row is gone were claimed through another controller, or dropped by it."""
        there = {row.id for row in rows}
        for sandbox, own in list(self._own.items()):
            if sandbox not in there and not own.is_ending:
                own.finish("left" if own.row.state == "warm" else "")

    async def _take_over(self, rows: Iterable[Warm], stock: Stock) -> bool:
        """Look after what another one left, and end what cannot be used; whether there was any."""
        alive = set(await self._store.replicas.beats()) - {self._keeping.replica}
        now = time.monotonic()  # the clocks by which rows are written may be set
        self._seen = {row.id: self._seen.get(row.id, now) for row in rows}

        def is_on_its_way(row: Warm) -> bool:
            age = now - self._seen[row.id]
            return row.state == "warming" and row.keeper in alive and age < MOST_WARMING_SECONDS

        left = [row for row in rows if not is_on_its_way(row)]
        if not left:
            return False
        usable = [row.id for row in left if row.state == "warm"]
        located_all = await asyncio.gather(*map(self._keeping.cluster.locate, usable))
        found = dict(zip(usable, located_all, strict=True))
        for row in left:
            own = Warmed(row, of=stock.versions.get(row.template, ("", "")))
            if (located := found.get(row.id)) is not None:
                own.node = located.node
                own.handed = Handed(located.endpoint, connect(located.endpoint))
            else:
                own.finish()
            self._look_after(own, None)
        return True

    # What is told.

    def _note(self, states: Iterable[PoolStatus]) -> None:
        states = [self._counted(each) for each in states]
        self._keeping.metrics.pools = states
        now = time.monotonic()
        for each in states:
            if each.warm < each.target:
                self._short_since.setdefault(each.template, now)
            elif (since := self._short_since.pop(each.template, None)) is not None and each.target:
                self._keeping.metrics.refills.observe(now - since)
        names = {each.template for each in states}
        self._short_since = {
            name: since for name, since in self._short_since.items() if name in names
        }

    async def _close(self) -> None:
        """End what is warm, or leave it if it lives on; what is on its way is ended."""
        for own in self._own.values():
            own.finish("left" if self._lives_on and own.row.state == "warm" else "")
        with anyio.move_on_after(SHUTDOWN_SECONDS) as scope:
            if not self._lives_on:
                await self._end_unseen()
            for own in list(self._own.values()):
                await own.gone.wait()
        if scope.cancelled_caught:
            _log.error("warm desktops were not ended in %.0f s", SHUTDOWN_SECONDS)

    async def _end_unseen(self) -> None:
        """What an earlier controller left, and this one had no time to take over."""
        try:
            rows = await self._store.warm.all()
        except CarrelError as error:  # the next one finds them
            _log.warning("warm desktops may be left: %s", error.message)
            return
        for row in rows:
            if row.id not in self._own and row.id not in self._past:
                own = Warmed(row)
                own.finish()
                self._look_after(own, None)
