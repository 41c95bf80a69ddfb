"""The life of a workspace: claim, release, deadline, death, and finding them again.

Every live workspace has one task that owns it. It starts the sandbox, waits for the first of its
ends (released, deadline, died, shutdown), stops the sandbox and writes what became of it; so no two
hands ever move one workspace at once. The row is written before anything is started, so that
whatever dies leaves something to clean up by.

Which one wins: the cluster says what lives, the store says what was promised. At start,
:meth:`Lifecycle.run` adopts what both know, ends what only the cluster knows, and marks as failed
what only the store knows. A stop that fails is logged; the actor's own deadline ends that sandbox.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial

import anyio
from anyio.abc import TaskGroup
from pydantic import ValidationError

from controller.events import Events
from controller.live import SYSTEM, Cluster, Live, begin, info, recipe, why_ended, why_lost
from controller.metrics import Metrics
from controller.store import Store
from controller.templates import Templates
from workspace.backends.base import Endpoint
from workspace.desktop import Desktop, connect
from workspace.errors import (
    CarrelError,
    Internal,
    NotReady,
    SetupFailed,
    StartFailed,
    Unavailable,
    WorkspaceEnded,
    WorkspaceNotFound,
)
from workspace.models import (
    LIVE_STATES,
    ErrorInfo,
    ProcessResult,
    Screen,
    State,
    Stats,
    Template,
    Workspace,
    WorkspaceRequest,
)

START_SECONDS = 120.0
SETUP_SECONDS = 600.0
STOP_SECONDS = 15.0
SHUTDOWN_SECONDS = 10.0
WATCH_AGAIN_SECONDS = 1.0
WRITE_AGAIN_SECONDS = 5.0
OUTPUT_TAIL = 2000
TIME_UP = "Its time was up."
_log = logging.getLogger(__name__)


@dataclass
class Lifecycle:
    """All workspaces of one controller; ``run`` it as long as it serves."""

    store: Store
    cluster: Cluster
    events: Events
    templates: Templates
    metrics: Metrics = field(default_factory=Metrics)
    _live: dict[str, Live] = field(default_factory=dict)
    _tasks: TaskGroup | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Find what lives, serve, and release everything at the end."""
        async with anyio.create_task_group() as self._tasks:
            await self._recover()
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await self.release_all(SHUTDOWN_SECONDS)
                self._tasks.cancel_scope.cancel()

    # What is asked of it.

    async def claim(self, request: WorkspaceRequest, *, actor: str) -> Workspace:
        """Start a workspace; with ``request.wait`` it is ready when this returns.

        Cancelled while it waits, it leaves nothing behind.

        Raises:
            TemplateNotFound, NoCapacity, BackendUnavailable, StartFailed, SetupFailed.
            InvalidRequest: its node has no such locale, time zone or keyboard layout.
        """
        named = await anyio.to_thread.run_sync(self.templates.get, request.template)
        template = recipe(named, request)
        live = begin(request, template)
        self.metrics.claims += 1
        self._own(live, partial(self._start, live, request, template, actor))
        try:
            await (live.settled if request.wait else live.written).wait()
        except anyio.get_cancelled_exc_class():
            live.end("released", WorkspaceEnded("Its caller went away before it was ready."))
            raise
        if live.end_state is None or (live.is_written and not request.wait):
            return live.workspace
        if live.is_written:  # else nothing was started
            await live.gone.wait()  # bounded by STOP_SECONDS and the database's timeout
        if live.end_state == "failed" and live.error is not None:
            raise live.error
        raise why_ended(live.workspace)

    async def release(self, workspace_id: str, *, actor: str) -> None:
        """End a workspace; returns when its sandbox is gone. Again is success.

        Raises:
            WorkspaceNotFound: there never was one of that id.
        """
        live = self._live.get(workspace_id)
        if live is None:
            await self.get(workspace_id)
            return
        live.end("released", by=actor)
        await live.gone.wait()  # bounded by STOP_SECONDS and the database's timeout

    async def extend(self, workspace_id: str, ttl_seconds: float, *, actor: str) -> Workspace:
        """Let it live ``ttl_seconds`` from now, more or less than before."""
        live = await self._get_live(workspace_id)
        await self.cluster.extend(workspace_id, ttl_seconds)
        live.deadline = time.monotonic() + ttl_seconds
        live.change(expires_at=datetime.now(timezone.utc) + timedelta(seconds=ttl_seconds))
        live.extended.set()
        await self._save(live)
        await self.events.record(
            "extend", actor=actor, workspace_id=workspace_id, ttl_seconds=ttl_seconds
        )
        return live.workspace

    async def note_screen(self, workspace_id: str, screen: Screen) -> None:
        """Have it told with the screen that it now has."""
        live = await self._get_live(workspace_id)
        live.change(screen=screen)
        await self._save(live)

    async def note_size(self, workspace_id: str, size: tuple[int, int]) -> None:
        """Likewise: its programs too can change its size, which an observation then tells."""
        live = self._live.get(workspace_id)
        if live is None or size == (live.workspace.screen.width, live.workspace.screen.height):
            return
        width, height = size
        try:
            screen = Screen(width=width, height=height, dpi=live.workspace.screen.dpi)
        except ValidationError:
            return  # what no screen has
        await self.note_screen(workspace_id, screen)

    async def get(self, workspace_id: str) -> Workspace:
        """
        Raises:
            WorkspaceNotFound: there never was one of that id.
        """
        live = self._live.get(workspace_id)
        if live is not None:
            return live.workspace
        workspace = await self.store.get(workspace_id[:100])
        if workspace is None:
            raise WorkspaceNotFound(f"There is no workspace {workspace_id[:100]!r}.")
        return workspace

    async def settled(self, workspace_id: str, seconds: float) -> Workspace:
        """Like :meth:`get`, once it has started or ended, or after that time."""
        live = self._live.get(workspace_id)
        if live is not None:
            with anyio.move_on_after(seconds):
                await live.settled.wait()
        return await self.get(workspace_id)

    async def desktop(self, workspace_id: str) -> Desktop:
        """The client of a ready workspace's desktop.

        Raises:
            WorkspaceNotFound, NotReady.
            WorkspaceEnded: the message says when and why.
        """
        live = self._live.get(workspace_id)
        if live is not None and live.end_state is None and live.workspace.state == "ready":
            assert live.desktop is not None, "it is connected before it is ready"
            return live.desktop
        raise await self._why_not_live(workspace_id)

    async def endpoint(self, workspace_id: str) -> Endpoint:
        """Where a ready workspace's desktopd answers; raises like :meth:`desktop`."""
        await self.desktop(workspace_id)
        endpoint = self._live[workspace_id].endpoint
        assert endpoint is not None, "a desktop has an endpoint"
        return endpoint

    async def stats(self, workspace_id: str) -> Stats:
        await self.desktop(workspace_id)
        return await self.cluster.stats(workspace_id)

    async def page(
        self, states: Sequence[State] | None, *, limit: int, after: str | None
    ) -> Sequence[Workspace]:
        page = await self.store.page(states, limit=limit, after=after)
        return [self._now(workspace) for workspace in page]

    def states(self) -> Mapping[str, int]:
        """How many live workspaces are in each state."""
        counts: dict[str, int] = dict.fromkeys(("starting", "ready", "releasing"), 0)
        for live in self._live.values():
            if live.workspace.state in counts:
                counts[live.workspace.state] += 1
        return counts

    async def release_all(self, seconds: float) -> None:
        """End every workspace at once; what is not gone after ``seconds`` is left to its actor."""
        left = list(self._live.values())
        for live in left:
            live.end("released", WorkspaceEnded("The controller was shut down."))
        with anyio.move_on_after(seconds) as scope:
            for live in left:
                await live.gone.wait()
        if scope.cancelled_caught:
            still = [live.workspace.id for live in left if not live.gone.is_set()]
            _log.error("not released in %.0f s: %s", seconds, ", ".join(still))

    # The task that owns a workspace.

    def _own(self, live: Live, start: Callable[[], Awaitable[None]] | None = None) -> None:
        assert self._tasks is not None, "run the lifecycle first"
        self._live[live.workspace.id] = live
        self._tasks.start_soon(self._owner, live, start, name=f"workspace {live.workspace.id}")

    async def _owner(self, live: Live, start: Callable[[], Awaitable[None]] | None) -> None:
        try:
            with live.scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._until_deadline, live)
                    if start is not None:
                        await self._or_fail(live, start)
                    if live.end_state is None:
                        live.settled.set()
                    await self._or_fail(live, partial(self._until_dead, live))
        finally:
            with anyio.CancelScope(shield=True):  # each step of it is bounded
                await self._finish(live)

    async def _or_fail(self, live: Live, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except CarrelError as error:
            live.end("failed", error)
        except Exception as error:  # one workspace's defect must not end the others
            _log.exception("workspace %s failed", live.workspace.id)
            live.end("failed", Internal(f"It failed: {type(error).__name__}."))

    async def _start(
        self, live: Live, request: WorkspaceRequest, template: Template, actor: str
    ) -> None:
        began = time.monotonic()
        await self.store.add(live.workspace, owner=actor)
        await self.events.record(
            "claim", actor=actor, workspace_id=live.workspace.id, template=template.name
        )
        live.is_written = True
        live.written.set()
        located = await self.cluster.start(
            live.workspace.id,
            template,
            ttl_seconds=request.ttl_seconds,
            timeout_seconds=START_SECONDS,
        )
        live.endpoint = located.endpoint
        live.desktop = desktop = connect(located.endpoint)
        if request.environment:
            await desktop.set_environment(request.environment)
        for index, command in enumerate(request.setup):
            await _set_up(desktop, command, f"{index + 1} of {len(request.setup)}")
        took = time.monotonic() - began
        live.change(
            state="ready", ready_at=datetime.now(timezone.utc), node=located.node_name or None
        )
        await self._save(live)
        await self.events.record(
            "ready", actor=SYSTEM, workspace_id=live.workspace.id, seconds=round(took, 3)
        )
        self.metrics.observe_start(took)

    async def _until_deadline(self, live: Live) -> None:
        while (left := live.deadline - time.monotonic()) > 0:
            live.extended = anyio.Event()
            with anyio.move_on_after(left):
                await live.extended.wait()
        live.end("released", WorkspaceEnded(TIME_UP))

    async def _until_dead(self, live: Live) -> None:
        end = await self._end_of(live.workspace.id)
        if end.code == "deadline_passed":  # by the actor's own clock
            live.end("released", WorkspaceEnded(TIME_UP))
        elif end.code == "released":
            live.end("released", WorkspaceEnded("It was released by its node."))
        else:
            live.end("failed", why_lost(end))

    async def _end_of(self, workspace_id: str) -> ErrorInfo:
        """Why it ended, once it has; a cluster that cannot tell for a while is asked again."""
        while True:
            try:
                return await self.cluster.ended(workspace_id)
            except Unavailable as error:
                _log.warning("cannot watch workspace %s: %s", workspace_id, error.message)
                await anyio.sleep(WATCH_AGAIN_SECONDS)

    async def _finish(self, live: Live) -> None:
        """Stop the sandbox and write what became of the workspace. Nothing is raised."""
        workspace_id = live.workspace.id
        live.change(state="releasing")
        if live.end_state is None:  # its task was cancelled from outside
            live.end_state = "failed"
            live.error = Internal("The controller stopped looking after it.")
        if not live.is_written:  # its caller need not wait for a database that is away
            live.written.set()
            live.settled.set()
        await self._quietly(self._save(live), "writing its release")
        await self._quietly(self.cluster.stop(workspace_id), "stopping its sandbox")
        if live.desktop is not None:
            await self._quietly(live.desktop.aclose(), "closing its connections")
        live.change(
            state=live.end_state,
            ended_at=datetime.now(timezone.utc),
            error=info(live.error),
        )
        self.metrics.ended[live.end_state] += 1
        is_kept = await self._quietly(self._save(live), "writing its end")
        is_told = await self._quietly(self._record_end(live), "recording its end")
        if (is_kept and is_told) or not live.is_written or self._tasks is None:
            del self._live[workspace_id]
        else:  # it is told from here until it can be written
            self._tasks.start_soon(self._write_later, live, is_kept)
        live.written.set()
        live.settled.set()
        live.gone.set()

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
            is_kept = is_kept or await self._quietly(self._save(live), "writing its end")
            is_told = is_kept and await self._quietly(record(), "recording its end")
        del self._live[live.workspace.id]

    async def _save(self, live: Live) -> None:
        """Write what it is by now; one at a time, so that the newest is written last."""
        async with live.saving:
            await self.store.save(live.workspace)

    async def _quietly(self, work: Awaitable[None], what: str) -> bool:
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

    # After a restart.

    async def _recover(self) -> None:
        found = dict(await self.cluster.find())
        for workspace in await self._unfinished():
            located = found.pop(workspace.id, None)
            left = (workspace.expires_at - datetime.now(timezone.utc)).total_seconds()
            live = Live(workspace, left)
            live.is_written = True
            if located is not None and workspace.state == "ready":
                live.endpoint = located.endpoint
                live.desktop = connect(located.endpoint)
            elif workspace.state == "releasing":
                live.end("released", WorkspaceEnded("The controller ended while it was released."))
            elif left <= 0:
                live.end("released", WorkspaceEnded(TIME_UP))
            elif workspace.state == "starting":
                live.end("failed", StartFailed("The controller ended while it was starting."))
            else:
                live.end("failed", WorkspaceEnded("It was gone when the controller came back."))
            self._own(live)
        for workspace_id in found:  # an actor that no row knows: nobody could ever release it
            _log.warning("stopping the stray desktop %s", workspace_id)
            await self._quietly(self.cluster.stop(workspace_id), "stopping a stray desktop")
            await self.events.record("stray", actor=SYSTEM, workspace_id=workspace_id)

    async def _unfinished(self) -> Sequence[Workspace]:
        states: list[State] = ["starting", "ready", "releasing"]
        found: list[Workspace] = []
        while page := await self.store.page(
            states, limit=500, after=found[-1].id if found else None
        ):
            found += page
        return found

    # Small ones.

    def _now(self, stored: Workspace) -> Workspace:
        live = self._live.get(stored.id)
        return stored if live is None else live.workspace

    async def _get_live(self, workspace_id: str) -> Live:
        live = self._live.get(workspace_id)
        if live is None or live.end_state is not None:
            raise await self._why_not_live(workspace_id)
        return live

    async def _why_not_live(self, workspace_id: str) -> CarrelError:
        workspace = await self.get(workspace_id)
        live = self._live.get(workspace_id)
        if live is not None and live.end_state is not None:
            return why_ended(live.workspace, live.end_state, live.error)
        if workspace.state in LIVE_STATES:
            return NotReady(f"Workspace {workspace_id} is {workspace.state}.")
        return why_ended(workspace)


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
