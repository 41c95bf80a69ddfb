"""The workspaces that this controller keeps: one task owns each, from its claim to its end.

The task brings its desktop up (:mod:`controller.starting`), waits for the first of its ends
(released, deadline, died, shutdown), stops the sandbox and writes what became of it; so no two
hands ever move one workspace at once. The row is written before anything is started, so that
whatever dies leaves something to clean up by. What is written counts only while this controller is
the row's keeper: once another one is, the task lets go and touches nothing.

A stop that fails is logged; the actor's own deadline ends that sandbox.
"""

from __future__ import annotations

import logging
import time
from collections import deque
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
    Cluster,
    Handed,
    Live,
    NoPools,
    Pools,
    info,
    why_lost,
)
from controller.metrics import Metrics
from controller.places import Places
from controller.store import Store
from controller.store.claims import Claimed, NewClaim
from controller.tenants import Tenants
from controller.volumes import Volumes
from workspace import logs
from workspace.errors import (
    CarrelError,
    Internal,
    SetupFailed,
    Unavailable,
    WorkspaceEnded,
)
from workspace.models import ErrorInfo

STOP_SECONDS = 15.0
WATCH_AGAIN_SECONDS = 1.0
WRITE_AGAIN_SECONDS = 5.0
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
    tasks: TaskGroup | None = None
    # Where the connections of one that another controller keeps go on: calls may be under way.
    hand_on: Callable[[str, Handed], None] = lambda _sandbox, _handed: None
    is_leaving: bool = False  # this controller ends, and what lives is left to others

    def __post_init__(self) -> None:
        self.idling = Idling(self.cluster, self.events, self.save)
        self.volumes = Volumes(self.store, self.cluster, self.events)
        self.tenants = Tenants(self.store, self.events)

    def own(self, live: Live, start: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin the task that owns it; ``start`` brings it up, unless it is."""
        assert self.tasks is not None, "run the lifecycle first"
        self.live[live.workspace.id] = live
        self.note(live)
        self.tasks.start_soon(self._owner, live, start, name=f"workspace {live.workspace.id}")

    def note(self, live: Live) -> None:
        """Know it by the sandbox that it has now."""
        self._of[live.workspace.sandbox] = live

    def forget(self, sandbox: str) -> None:
        """It is no workspace's any more."""
        self._of.pop(sandbox, None)

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

    # Its task.

    async def _owner(self, live: Live, start: Callable[[], Awaitable[None]] | None) -> None:
        logs.belongs_to(live.workspace.id)
        try:
            with live.scope:
                if live.workspace.idle_seconds is None:
                    await self._serve(live, start)
                else:
                    async with anyio.create_task_group() as tasks:
                        until_idle = partial(self.idling.until_idle, live)
                        tasks.start_soon(self._or_fail, live, until_idle)
                        await self._serve(live, start)
        finally:
            if time.monotonic() >= live.deadline:
                live.end("released", WorkspaceEnded(TIME_UP))
            with anyio.CancelScope(shield=True):  # each step of it is bounded
                await (self._let_go(live) if live.is_lost else self._finish(live))

    async def _serve(self, live: Live, start: Callable[[], Awaitable[None]] | None) -> None:
        if start is not None:
            await self._or_fail(live, start)
        if live.end_state is None:
            live.settled.set()
        await self._or_fail(live, partial(self._until_dead, live))

    async def _or_fail(self, live: Live, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except CarrelError as error:
            live.end("failed", error)
        except Exception as error:  # one workspace's defect must not end the others
            _log.exception("workspace %s failed", live.workspace.id)
            live.end("failed", Internal(f"It failed: {type(error).__name__}."))

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
            handed = Handed(live.endpoint, live.desktop, live.workspace.keep_frames)
            self.hand_on(live.workspace.sandbox, handed)
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
        self.metrics.ended.labels(live.end_state).inc()
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
        if isinstance(live.error, SetupFailed):  # what its command wrote is nobody else's business
            reason["message"] = "A set-up command failed."
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
