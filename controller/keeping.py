"""The workspaces that this controller keeps: one task owns each, from its claim to its end.

The task starts the sandbox or takes a warm one, waits for the first of its ends (released,
deadline, died, shutdown), stops the sandbox and writes what became of it; so no two hands ever move
one workspace at once. The row is written before anything is started, so that whatever dies leaves
something to clean up by. What is written counts only while this controller is the row's keeper:
once another one is, the task lets go and touches nothing.

A stop that fails is logged; the actor's own deadline ends that sandbox.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial

import anyio
from anyio.abc import TaskGroup

from controller.events import Events
from controller.grouping import Grouped
from controller.idling import Idling
from controller.live import (
    SYSTEM,
    Cluster,
    Handed,
    Live,
    NoPools,
    Pools,
    info,
    why_lost,
)
from controller.metrics import How, Metrics
from controller.places import Places, Ticket, Turn
from controller.store import Store
from controller.store.claims import Claimed, NewClaim
from controller.volumes import Volumes
from workspace.desktop import Desktop, connect
from workspace.errors import (
    CarrelError,
    Internal,
    NoCapacity,
    SetupFailed,
    Unavailable,
    WorkspaceEnded,
)
from workspace.models import ErrorInfo, ProcessResult, Template, WorkspaceRequest

START_SECONDS = 120.0
SETUP_SECONDS = 600.0
STOP_SECONDS = 15.0
WATCH_AGAIN_SECONDS = 1.0
WRITE_AGAIN_SECONDS = 5.0
OUTPUT_TAIL = 2000
MOST_UNSURE = 10_000
TIME_UP = "Its time was up."
_log = logging.getLogger(__name__)


@dataclass
class Keeping:
    """All workspaces that one controller keeps, by id."""

    replica: str
    store: Store
    cluster: Cluster
    events: Events
    claims: Grouped[NewClaim, Claimed]
    metrics: Metrics = field(default_factory=Metrics)
    pools: Pools = field(default_factory=NoPools)
    places: Places = field(default_factory=Places)
    live: dict[str, Live] = field(default_factory=dict)
    _of: dict[str, Live] = field(default_factory=dict)  # by the sandboxes that each has had
    # Claims that were said to have failed and may have been kept: see the reaper.
    unsure: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_UNSURE))
    _counting: defaultdict[str, anyio.Lock] = field(  # by template
        default_factory=lambda: defaultdict(anyio.Lock)
    )
    tasks: TaskGroup | None = None
    # Where the connections of one that another controller keeps go on: calls may be under way.
    hand_on: Callable[[str, Handed], None] = lambda _sandbox, _handed: None
    is_leaving: bool = False  # this controller ends, and what lives is left to others

    def __post_init__(self) -> None:
        self.idling = Idling(self.cluster, self.events, self.save)
        self.volumes = Volumes(self.store, self.cluster, self.events)

    def own(self, live: Live, start: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin the task that owns it; ``start`` brings it up, unless it is."""
        assert self.tasks is not None, "run the lifecycle first"
        self.live[live.workspace.id] = self._of[live.workspace.sandbox] = live
        self.tasks.start_soon(self._owner, live, start, name=f"workspace {live.workspace.id}")

    def of(self, sandbox: str) -> Live | None:
        """The one with that sandbox."""
        live = self._of.get(sandbox)
        return live if live is not None and live.workspace.sandbox == sandbox else None

    async def save(self, live: Live) -> None:
        """Write what it is by now; one at a time, so that the newest is written last."""
        async with live.saving:
            if not await self.store.save(live.workspace, keeper=self.replica):
                _log.warning("workspace %s is kept by another controller", live.workspace.id)
                live.lose()

    # Its beginning.

    async def start(self, live: Live, request: WorkspaceRequest, template: Template) -> None:
        """Make the claim, and bring up what it got."""
        began = time.monotonic()
        is_prepared = not (request.environment or request.setup)
        if (await self.pools.pool(template)).max is not None:
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
                self.metrics.waits.observe(waited)
        self.metrics.claims[template.name, served] += 1
        live.endpoint, live.desktop = handed
        if request.environment:
            await handed.desktop.set_environment(request.environment)
        for index, command in enumerate(request.setup):
            await _set_up(handed.desktop, command, f"{index + 1} of {len(request.setup)}")
        took = time.monotonic() - began
        self.metrics.observe_start(took)
        if live.workspace.state == "ready":  # it was, and it was written so
            return
        live.change(state="ready", ready_at=datetime.now(timezone.utc))
        await self.save(live)
        await self.events.record(
            "ready", actor=SYSTEM, workspace_id=live.workspace.id, seconds=round(took, 3)
        )

    async def _claim(
        self, live: Live, request: WorkspaceRequest, template: Template, is_prepared: bool
    ) -> str:
        new = NewClaim(
            live.workspace,
            owner=live.owner,
            keeper=self.replica,
            key=request.key,
            # Those who wait come first.
            shape=None if self.places.is_waited_for(live.shape) else live.shape,
            is_prepared=is_prepared,
        )
        with anyio.CancelScope(shield=True):  # bounded by the database: it must be known
            try:
                claimed = await self.claims.do(new)
            except CarrelError:
                self.unsure.append(live.workspace.id)
                raise
        if claimed.how == "known":
            live.known = claimed.workspace
            live.end("released")
            return claimed.how
        live.workspace = claimed.workspace
        self._of[live.workspace.sandbox] = live
        live.is_written = live.is_placed = True
        self.pools.changed(template.name)
        return claimed.how

    async def _take(self, live: Live) -> Handed | None:
        """The warm desktop that the claim got; None if it is gone."""
        sandbox = live.workspace.sandbox
        handed = self.pools.taken(sandbox)
        if handed is None:  # another controller warmed it
            located = await self.cluster.locate(sandbox)
            if located is None:
                _log.warning("the warm desktop %s is gone: another one is started", sandbox)
                del self._of[sandbox]
                live.change(sandbox=live.workspace.id, state="starting", ready_at=None, node=None)
                await self.save(live)
                return None
            handed = Handed(located.endpoint, connect(located.endpoint))
        live.endpoint, live.desktop = handed
        assert self.tasks is not None, "it runs"
        self.tasks.start_soon(self._tell, live)
        return handed

    async def _tell(self, live: Live) -> None:
        """Tell a warm desktop's node of its claim. Should that fail, its lease tells it later."""
        left = live.deadline - time.monotonic()
        await self.quietly(self.cluster.claimed(live.workspace.sandbox, left), "telling its node")

    async def _placed(
        self, live: Live, request: WorkspaceRequest, template: Template
    ) -> tuple[Handed, float | None]:
        """Start one; if there is no place for it, once there is, and how long that took."""
        began = time.monotonic()
        until = began + request.queue_seconds
        waited: float | None = None
        with self.places.ticket(live.owner, until, template.name, live.shape) as ticket:
            live.ticket = ticket
            turn: Turn | None = None if self.places.has_next else "place"
            lack = NoCapacity("Other claims wait for a place already.")
            while True:
                if turn == "place":
                    try:
                        return await self._start_now(live, template, ticket), waited
                    except NoCapacity as error:
                        lack = error
                await self._queued(live, is_news=waited is None)
                turn = await ticket.turn()
                if turn is None:
                    raise lack
                waited = time.monotonic() - began
                if (handed := await self._warm_by_now(live)) is not None:
                    return handed, waited

    async def _start_now(self, live: Live, template: Template, ticket: Ticket) -> Handed:
        await self._count_in(live, template)
        place = await self.volumes.take(live.workspace, owner=live.owner)
        located = await self.cluster.start(
            live.workspace.sandbox,
            template,
            ttl_seconds=max(0.0, live.deadline - time.monotonic()),
            timeout_seconds=START_SECONDS,
            avoid=await self.store.operated.draining(),
            placed=ticket.placed,
            **place,
        )
        await self.volumes.note_ready(live.workspace)
        live.change(node=located.node_name or None)
        return Handed(located.endpoint, connect(located.endpoint))

    async def _count_in(self, live: Live, template: Template) -> None:
        """Make it one of its template's, unless there would be too many.

        One after the other, so that of many at once the first ones that fit go on. Should another
        controller count one in at that moment, both may step back, and try again.
        """
        async with self._counting[template.name]:
            if live.workspace.state == "queued":
                live.change(state="starting")
                await self.save(live)
            most = (await self.pools.pool(template)).max
            if most is None or await self.store.count(template.name) <= most:
                return
            live.change(state="queued")
            await self.save(live)
        self.places.full(template.name)
        raise NoCapacity(f"All {most} desktops that template {template.name!r} may have are taken.")

    async def _queued(self, live: Live, *, is_news: bool) -> None:
        if live.workspace.state != "queued":
            live.change(state="queued")
            await self.save(live)
        if is_news:  # no other try in vain is worth a line of the log
            self.pools.changed(live.workspace.template)
            await self.events.record("queued", actor=SYSTEM, workspace_id=live.workspace.id)

    async def _warm_by_now(self, live: Live) -> Handed | None:
        if live.shape is None:
            return None
        taken = await self.store.claims.take(live.workspace, shape=live.shape, keeper=self.replica)
        if taken is None:
            return None
        live.workspace = taken
        self._of[taken.sandbox] = live
        self.pools.changed(taken.template)
        return await self._take(live)

    # Its task.

    async def _owner(self, live: Live, start: Callable[[], Awaitable[None]] | None) -> None:
        try:
            with live.scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._until_deadline, live)
                    if live.workspace.idle_seconds is not None:
                        until_idle = partial(self.idling.until_idle, live)
                        tasks.start_soon(self._or_fail, live, until_idle)
                    if start is not None:
                        await self._or_fail(live, start)
                    if live.end_state is None:
                        live.settled.set()
                    await self._or_fail(live, partial(self._until_dead, live))
        finally:
            with anyio.CancelScope(shield=True):  # each step of it is bounded
                await (self._let_go(live) if live.is_lost else self._finish(live))

    async def _or_fail(self, live: Live, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except CarrelError as error:
            live.end("failed", error)
        except Exception as error:  # one workspace's defect must not end the others
            _log.exception("workspace %s failed", live.workspace.id)
            live.end("failed", Internal(f"It failed: {type(error).__name__}."))

    async def _until_deadline(self, live: Live) -> None:
        while (left := live.deadline - time.monotonic()) > 0:
            live.extended = anyio.Event()
            with anyio.move_on_after(left):
                await live.extended.wait()
        live.end("released", WorkspaceEnded(TIME_UP))

    async def _until_dead(self, live: Live) -> None:
        end = await self._end_of(live.workspace.sandbox)
        if end.code == "deadline_passed":  # by the actor's own clock
            live.end("released", WorkspaceEnded(TIME_UP))
        elif end.code == "released":
            live.end("released", WorkspaceEnded("It was released by its node."))
        else:
            live.end("failed", why_lost(end))

    async def _end_of(self, sandbox: str) -> ErrorInfo:
        """Why it ended, once it has; a cluster that cannot tell for a while is asked again."""
        while True:
            try:
                return await self.cluster.ended(sandbox)
            except Unavailable as error:
                _log.warning("cannot watch sandbox %s: %s", sandbox, error.message)
                await anyio.sleep(WATCH_AGAIN_SECONDS)

    # Its end.

    def fail_all(self, error: CarrelError) -> None:
        """End every workspace for the same reason."""
        for live in list(self.live.values()):
            live.end("failed", error)

    async def release_all(self, seconds: float) -> None:
        """End every workspace at once; what is not gone after ``seconds`` is left to its actor."""
        left = list(self.live.values())
        for live in left:
            live.end("released", WorkspaceEnded("The controller was shut down."))
        with anyio.move_on_after(seconds) as scope:
            for live in left:
                await live.gone.wait()
        if scope.cancelled_caught:
            still = [live.workspace.id for live in left if not live.gone.is_set()]
            _log.error("not released in %.0f s: %s", seconds, ", ".join(still))

    async def _let_go(self, live: Live) -> None:
        """Another controller keeps it. What it has ended meanwhile may have been starting here."""
        if live.desktop is not None and live.endpoint is not None and not self.is_leaving:
            self.hand_on(live.workspace.sandbox, Handed(live.endpoint, live.desktop))
        elif live.desktop is not None:
            await self.quietly(live.desktop.aclose(), "closing its connections")
        if not self.is_leaving:
            await self.quietly(self._stop_if_ended(live), "stopping its sandbox")
        self._forget(live)

    async def _finish(self, live: Live) -> None:
        """Stop the sandbox and write what became of the workspace. Nothing is raised."""
        live.change(state="releasing")
        if live.end_state is None:  # its task was cancelled from outside
            live.end_state = "failed"
            live.error = Internal("The controller stopped looking after it.")
        if not live.is_written:  # its caller need not wait for a database that is away
            live.written.set()
            live.settled.set()
        else:
            await self.quietly(self.save(live), "writing its release")
        if live.is_lost:  # it was another's all the while
            return await self._let_go(live)
        if live.is_placed:
            await self.quietly(self.volumes.note_end(live.workspace), "noting its volume's size")
            await self.quietly(self.cluster.stop(live.workspace.sandbox), "stopping its sandbox")
        if live.desktop is not None:
            await self.quietly(live.desktop.aclose(), "closing its connections")
        live.change(
            state=live.end_state,
            ended_at=datetime.now(timezone.utc),
            error=info(live.error),
        )
        if not live.is_written:
            return self._forget(live)
        is_kept = await self.quietly(self.save(live), "writing its end")
        if live.is_lost:  # another one ended it meanwhile, and tells of it
            return self._forget(live)
        self.metrics.ended[live.end_state] += 1
        is_told = await self.quietly(self._record_end(live), "recording its end")
        if (is_kept and is_told) or self.tasks is None:
            return self._forget(live)
        # It is told from here until it can be written.
        self.tasks.start_soon(self._write_later, live, is_kept)
        self._announce(live)

    async def _stop_if_ended(self, live: Live) -> None:
        now = await self.store.get(live.workspace.id)
        if now is not None and now.ended_at is not None:
            await self.cluster.stop(live.workspace.sandbox)

    def _forget(self, live: Live) -> None:
        if self.live.get(live.workspace.id) is live:
            del self.live[live.workspace.id]
        for sandbox in (live.workspace.id, live.workspace.sandbox):
            if self._of.get(sandbox) is live:
                del self._of[sandbox]
        self._announce(live)

    def _announce(self, live: Live) -> None:
        live.written.set()
        live.settled.set()
        live.gone.set()
        self.places.freed(live.workspace.template)
        self.pools.changed(live.workspace.template)

    async def _record_end(self, live: Live) -> None:
        assert live.end_state is not None, "it has ended"
        reason = {"code": live.error.code, "message": live.error.message} if live.error else {}
        await self.events.record(
            live.end_state, actor=live.ended_by, workspace_id=live.workspace.id, **reason
        )

    async def _write_later(self, live: Live, is_kept: bool) -> None:
        async def record() -> None:  # what failed to be recorded may have been
            if not await self.store.has_event(live.workspace.id, str(live.end_state)):
                await self._record_end(live)

        is_told = False
        while not (is_kept and is_told):
            await anyio.sleep(WRITE_AGAIN_SECONDS)
            is_kept = is_kept or await self.quietly(self.save(live), "writing its end")
            is_told = is_kept and await self.quietly(record(), "recording its end")
        self._forget(live)

    async def quietly(self, work: Awaitable[None], what: str) -> bool:
        """Do one step of an end: whether it was done. Others come, whatever became of it."""
        with anyio.move_on_after(STOP_SECONDS) as scope:
            try:
                await work
                return True
            except Exception:  # the next step comes, whatever this one ran into
                _log.exception("%s failed", what)
        if scope.cancelled_caught:
            _log.error("%s took longer than %.0f s", what, STOP_SECONDS)
        return False


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
