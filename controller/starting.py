"""The beginning of a workspace: its claim, and the desktop that it gets, warm or started for it.

Where there is no room, and while others wait that came before, a claim stands in the queue
(:mod:`controller.places`). What is raised here ends the workspace as failed: who owns it sees to
that (:mod:`controller.keeping`).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from datetime import datetime, timezone

import anyio

from controller.keeping import Keeping
from controller.live import SYSTEM, Handed, Live
from controller.metrics import How
from controller.places import Ticket, Turn
from controller.store.claims import NewClaim
from controller.store.volumes import Owner
from controller.tracing import connect
from workspace.desktop import Desktop
from workspace.errors import CarrelError, NoCapacity, SetupFailed
from workspace.models import ProcessResult, Template, WorkspaceRequest

START_SECONDS = 120.0
SETUP_SECONDS = 600.0
OUTPUT_TAIL = 2000
_log = logging.getLogger(__name__)


class Starting:
    """Brings up the workspaces of one controller."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._counting: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)  # by template

    async def start(self, live: Live, request: WorkspaceRequest, template: Template) -> None:
        """Make the claim, and bring up what it got."""
        began = time.monotonic()
        own_rules = live.workspace.egress != template.egress or bool(request.secrets)
        is_prepared = not (request.environment or request.setup or own_rules)
        if (await self._keeping.pools.pool(template)).max is not None:
            live.change(state="queued")  # it is none of the template's until it may be one
        how = await self._claim(live, request, template, is_prepared)
        if how == "known":
            return
        handed = await self._take(live) if how == "warm" else None
        live.written.set()  # what is ready by its row can be used from here on
        served: How = "cold" if handed is None else "warm"
        if handed is None:
            handed, waited = await self._placed(live, request, template)
            if waited is not None:
                served = "queued"
                self._keeping.metrics.waits.observe(waited)
        self._keeping.metrics.claims[template.name, served] += 1
        live.endpoint, live.desktop = handed.endpoint, handed.desktop
        if own_rules:  # a warm one was started with its template's
            await self._keeping.cluster.set_egress(
                live.workspace.sandbox, egress=live.workspace.egress, secrets=request.secrets
            )
        if request.environment:
            await handed.desktop.set_environment(request.environment)
        for index, command in enumerate(request.setup):
            await _set_up(handed.desktop, command, f"{index + 1} of {len(request.setup)}")
        took = time.monotonic() - began
        self._keeping.metrics.observe_start(took)
        if live.workspace.state == "ready":  # it was, and it was written so
            return
        live.change(state="ready", ready_at=datetime.now(timezone.utc))
        await self._keeping.save(live)
        await self._keeping.events.record(
            "ready", actor=SYSTEM, workspace_id=live.workspace.id, seconds=round(took, 3)
        )

    async def _claim(
        self, live: Live, request: WorkspaceRequest, template: Template, is_prepared: bool
    ) -> str:
        quotas = await self._keeping.tenants.quotas(live.workspace.tenant)
        new = NewClaim(
            live.workspace,
            owner=live.owner,
            keeper=self._keeping.replica,
            key=request.key,
            # Those who wait come first.
            shape=None if self._keeping.places.is_waited_for(live.shape) else live.shape,
            is_prepared=is_prepared,
            is_limited=quotas.limits_claims,
        )
        with anyio.CancelScope(shield=True):  # bounded by the database: it must be known
            try:
                claimed = await self._keeping.claims.do(new)
            except CarrelError:
                self._keeping.unsure.append(live.workspace.id)
                raise
        if claimed.how == "known":
            live.known = claimed.workspace
            live.end("released")
            return claimed.how
        if claimed.refusal is not None:
            raise claimed.refusal
        live.workspace = claimed.workspace
        self._keeping.note(live)
        live.is_written = live.is_placed = True
        self._keeping.pools.changed(template.name)
        return claimed.how

    async def _take(self, live: Live) -> Handed | None:
        """The warm desktop that the claim got; None if it is gone."""
        sandbox = live.workspace.sandbox
        handed = self._keeping.pools.taken(sandbox)
        if handed is None:  # another controller warmed it
            located = await self._keeping.cluster.locate(sandbox)
            if located is None:
                _log.warning("the warm desktop %s is gone: another one is started", sandbox)
                self._keeping.forget(sandbox)
                live.change(sandbox=live.workspace.id, state="starting", ready_at=None, node=None)
                await self._keeping.save(live)
                return None
            handed = Handed(located.endpoint, connect(located.endpoint))
        live.endpoint, live.desktop = handed.endpoint, handed.desktop
        assert self._keeping.tasks is not None, "it runs"
        self._keeping.tasks.start_soon(self._tell, live)
        return handed

    async def _tell(self, live: Live) -> None:
        """Tell a warm desktop's node of its claim. Should that fail, its lease tells it later."""
        left, whose = live.deadline - time.monotonic(), _whose(live)
        sandbox = live.workspace.sandbox
        await self._keeping.quietly(
            self._keeping.cluster.claimed(sandbox, left, whose=whose), "telling its node"
        )

    async def _placed(
        self, live: Live, request: WorkspaceRequest, template: Template
    ) -> tuple[Handed, float | None]:
        """Start one; if there is no place for it, once there is, and how long that took."""
        began = time.monotonic()
        until = began + request.queue_seconds
        waited: float | None = None
        tenant = live.workspace.tenant
        # A volume's claim may be on its node alone: that there is no room says nothing of others.
        kind = template.name
        if live.workspace.volume is not None:
            kind = f"{kind}/{live.workspace.volume}"
        with self._keeping.places.ticket(tenant, until, kind, live.shape) as ticket:
            live.ticket = ticket
            turn: Turn | None = None if self._keeping.places.comes_after(kind) else "place"
            lack = NoCapacity("Other claims wait for a place already.")
            while True:
                if turn == "place":
                    try:
                        return await self._start_now(live, template, ticket), waited
                    except NoCapacity as error:
                        lack = error
                        if error.has_room_for_others:  # they need not wait for what this one does
                            self._keeping.places.full(kind)
                await self._queued(live, is_news=waited is None)
                turn = await ticket.turn()
                if turn is None:
                    raise lack
                waited = time.monotonic() - began
                if (handed := await self._warm_by_now(live)) is not None:
                    return handed, waited

    async def _start_now(self, live: Live, template: Template, ticket: Ticket) -> Handed:
        await self._count_in(live, template, ticket)
        owner = Owner(live.workspace.tenant, live.owner)
        place = await self._keeping.volumes.take(
            live.workspace,
            owner=owner,
            labels=template.node_labels,
            takes=self._keeping.cluster.takes(template),
        )
        located = await self._keeping.cluster.start(
            live.workspace.sandbox,
            template.model_copy(update={"egress": live.workspace.egress}),
            ttl_seconds=max(0.0, live.deadline - time.monotonic()),
            timeout_seconds=START_SECONDS,
            avoid=await self._keeping.store.operated.draining(),
            placed=ticket.placed,
            whose=_whose(live),
            **place,
        )
        await self._keeping.volumes.note_ready(live.workspace)
        live.change(node=located.node_name or None)
        return Handed(located.endpoint, connect(located.endpoint))

    async def _count_in(self, live: Live, template: Template, ticket: Ticket) -> None:
        """Make it one of its template's, unless there would be too many.

        One after the other, so that of many at once the first ones that fit go on. Should another
        controller count one in at that moment, both may step back, and try again.
        """
        async with self._counting[template.name]:
            if live.workspace.state == "queued":
                live.change(state="starting")
                await self._keeping.save(live)
            most = (await self._keeping.pools.pool(template)).max
            if most is None or await self._keeping.store.count(template.name) <= most:
                return
            live.change(state="queued")
            await self._keeping.save(live)
        self._keeping.places.full(ticket.template)
        raise NoCapacity(f"All {most} desktops that template {template.name!r} may have are taken.")

    async def _queued(self, live: Live, *, is_news: bool) -> None:
        if live.workspace.state != "queued":
            live.change(state="queued")
            await self._keeping.save(live)
        if is_news:  # no other try in vain is worth a line of the log
            self._keeping.pools.changed(live.workspace.template)
            await self._keeping.events.record(
                "queued", actor=SYSTEM, workspace_id=live.workspace.id
            )

    async def _warm_by_now(self, live: Live) -> Handed | None:
        if live.shape is None:
            return None
        taken = await self._keeping.store.claims.take(
            live.workspace, shape=live.shape, keeper=self._keeping.replica
        )
        if taken is None:
            return None
        live.workspace = taken
        self._keeping.note(live)
        self._keeping.pools.changed(taken.template)
        return await self._take(live)


async def _set_up(desktop: Desktop, command: str, which: str) -> None:
    try:
        result = await desktop.run(command, timeout_seconds=SETUP_SECONDS)
    except CarrelError as error:
        raise SetupFailed(f"Set-up command {which} failed: {error.message}") from error
    if result.exit_code != 0:
        raise SetupFailed(
            f"Set-up command {which} ended with exit code {result.exit_code}: {_tail(result)}"
        )


def _tail(result: ProcessResult) -> str:
    return (result.stdout + result.stderr)[-OUTPUT_TAIL:].strip() or "it wrote nothing"


def _whose(live: Live) -> dict[str, str]:
    """What a desktop's node is told of who has it."""
    return {"workspace": live.workspace.id, "tenant": live.workspace.tenant}
