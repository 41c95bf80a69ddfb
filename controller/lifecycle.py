"""What is asked of workspaces: claim, release, extend, use; and how their ends are told.

What becomes of each is decided by the one task that owns it (:mod:`controller.keeping`). With
several controllers over one database each workspace has one keeper. Any of them serves its desktop
(:mod:`controller.elsewhere`); who changes its life takes the keeping over first.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial

import anyio
from pydantic import ValidationError

from controller.elsewhere import Elsewhere, why_not
from controller.events import Events
from controller.grouping import Grouped
from controller.keeping import Keeping
from controller.live import SYSTEM, Cluster, Handed, Live, begin, recipe, shape, why_ended
from controller.metrics import Metrics
from controller.reaper import Reaper
from controller.remembering import Remembered
from controller.replicas import BEAT_SECONDS, Replica
from controller.starting import Starting
from controller.store import Store
from controller.store.claims import Claimed, NewClaim
from controller.store.volumes import Owner
from controller.templates import Templates
from workspace.backends.base import Endpoint
from workspace.desktop import Desktop
from workspace.egress import Egress, EgressState, EgressUse
from workspace.errors import CarrelError, Unavailable, WorkspaceEnded, WorkspaceNotFound
from workspace.models import (
    DEFAULT_TENANT,
    Screen,
    State,
    Stats,
    Workspace,
    WorkspaceRequest,
)

SHUTDOWN_SECONDS = 10.0
TURNS = 20  # of the event loop, below a millisecond: from the answer of a claim to the next one
RELEASE_SECONDS = 30.0  # that another controller gets to end what it is ending
TRIES = 5  # to change one that other controllers take over at the same time
LOOK_AGAIN_SECONDS = 0.2
RESUME_SECONDS = 10.0
NOTICE_SECONDS = 2 * BEAT_SECONDS  # until who kept it before has seen that it does no more


@dataclass
class Lifecycle:
    """All workspaces, as one controller serves them; ``run`` it as long as it serves."""

    store: Store
    cluster: Cluster
    events: Events
    templates: Templates
    replica: str = "controller"
    # Whether they live on without this controller: its cluster does, so another one may find them.
    lives_on: bool = False
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self._claims: Grouped[NewClaim, Claimed] = Grouped(
            self.store.claims.make, what="The store of claims", group=100, turns=TURNS
        )
        self.keeping = Keeping(
            self.replica, self.store, self.cluster, self.events, self._claims, self.metrics
        )
        self._starting = Starting(self.keeping)
        self._elsewhere = Elsewhere(self.store, self.cluster)
        self.keeping.hand_on = self._elsewhere.keep
        self._tenants: Remembered[str] = Remembered(self.store.tenant_of, is_constant=True)
        self._taking = anyio.Lock()
        self.replicas = Replica(self.keeping, self._elsewhere)
        self.reaper = Reaper(self.keeping, self.replicas)
        self.store.leadership.name = self.replica
        self.metrics.states = self.states
        self.metrics.waiting = lambda: self.keeping.places.waiting

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Find what lives, serve, and release everything at the end, or leave it to others."""
        async with self._claims.run(), anyio.create_task_group() as tasks:
            self.keeping.tasks = tasks
            await self.replicas.beat()
            tasks.start_soon(self.replicas.keep_beating)
            try:
                await self.replicas.begin()
                await self.reaper.begin()
            except BaseException:  # what was found lives on: another try finds it again
                self.replicas.abandon()
                raise
            tasks.start_soon(self.replicas.run)
            tasks.start_soon(self.reaper.run)
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    if self.lives_on:
                        await self.replicas.leave()
                    else:
                        await self.keeping.release_all(SHUTDOWN_SECONDS)
                        await self.replicas.leave()
                    await self._elsewhere.close()
                tasks.cancel_scope.cancel()

    # What is asked of it.

    async def claim(
        self, request: WorkspaceRequest, *, actor: str, tenant: str = DEFAULT_TENANT
    ) -> Workspace:
        """A workspace; with ``request.wait`` it is ready when this returns.

        Cancelled while it waits, it leaves nothing behind, unless it has a key to ask again by.

        Raises:
            TemplateNotFound, NoCapacity, BackendUnavailable, StartFailed, SetupFailed.
            VolumeInUse: another workspace has the volume.
            InvalidRequest: its node has no such locale, time zone or keyboard layout.
        """
        template = recipe(self.templates.get(request.template), request)
        owner = Owner(tenant, actor)
        live = begin(request, template, owner=owner)
        if request.volume is None:
            live.shape = shape(template)
        elif request.key is None:  # with one, it may be this claim that has it
            await self.keeping.volumes.check(owner, request.volume)
        self.keeping.own(live, partial(self._starting.start, live, request, template))
        try:
            await (live.settled if request.wait else live.written).wait()
        except anyio.get_cancelled_exc_class():
            if request.key is None:
                live.end("released", WorkspaceEnded("Its caller went away before it was ready."))
            raise
        if live.known is not None:
            return await self._again(live.known, request)
        if live.end_state is None or (live.is_written and not request.wait):
            return self._shown(live)
        if live.is_written:  # else nothing was started
            await live.gone.wait()  # bounded by STOP_SECONDS and the database's timeout
        if live.end_state == "failed" and live.error is not None:
            raise live.error
        raise why_ended(live.workspace)

    async def _again(self, known: Workspace, request: WorkspaceRequest) -> Workspace:
        """The answer to a claim that was made before."""
        if request.wait:
            while known.state in ("queued", "starting"):  # its own time ends it
                known = await self.settled(known.id, 10)
        else:
            known = await self.get(known.id)
        if known.ended_at is not None:
            raise why_ended(known)
        return known

    async def release(self, workspace_id: str, *, actor: str) -> None:
        """End a workspace; returns when its sandbox is gone. Again is success.

        Raises:
            WorkspaceNotFound: there never was one of that id.
        """
        deadline = time.monotonic() + RELEASE_SECONDS
        while (live := await self._to_release(workspace_id, actor)) is not None:
            live.end("released", by=actor)
            await live.gone.wait()  # bounded by STOP_SECONDS and the database's timeout
            if not live.is_lost or time.monotonic() > deadline:  # else another one kept it by then
                return

    async def _to_release(self, workspace_id: str, actor: str) -> Live | None:
        """The one, kept here; None once it has ended, also by another controller's hand."""
        deadline = time.monotonic() + RELEASE_SECONDS
        while (live := self._here(workspace_id)) is None:
            workspace = await self.get(workspace_id)
            if workspace.ended_at is not None:
                return None
            if workspace.state != "releasing" or time.monotonic() > deadline:
                live = await self.replicas.take_over(workspace_id, release_by=actor)
                if live is not None or time.monotonic() > deadline:
                    return live
                continue  # another one was first
            await anyio.sleep(LOOK_AGAIN_SECONDS)  # its keeper is at it
        return live

    async def extend(self, workspace_id: str, ttl_seconds: float, *, actor: str) -> Workspace:
        """Let it live ``ttl_seconds`` from now, more or less than before."""
        for _ in range(TRIES):
            live = await self._get_live(workspace_id)
            await self.cluster.extend(live.workspace.sandbox, ttl_seconds)
            live.deadline = time.monotonic() + ttl_seconds
            live.change(expires_at=datetime.now(timezone.utc) + timedelta(seconds=ttl_seconds))
            await self.keeping.save(live)
            if not live.is_lost:
                break
        else:
            raise Unavailable("Other controllers change this workspace at the same time.")
        await self.events.record(
            "extend", actor=actor, workspace_id=workspace_id, ttl_seconds=ttl_seconds
        )
        return live.workspace

    async def set_egress(
        self, workspace_id: str, decide: Callable[[Workspace], Egress]
    ) -> Workspace:
        """Let it out by the rules that ``decide`` makes of it; in force when this returns.

        Raises:
            WorkspaceNotFound, NotReady, WorkspaceEnded; and what ``decide`` does.
        """
        for _ in range(TRIES):
            live = await self._get_live(workspace_id)
            if live.workspace.state not in ("ready", "paused"):
                raise await self._why_not_live(workspace_id)
            async with live.ruling:
                egress = decide(live.workspace)
                await self.cluster.set_egress(live.workspace.sandbox, egress=egress)
                live.change(egress=egress)
                await self.keeping.save(live)
            if not live.is_lost:
                return live.workspace
        raise Unavailable("Other controllers change this workspace at the same time.")

    async def egress(self, workspace_id: str) -> EgressState:
        """Its rules, and what came of them."""
        workspace = await self.get(workspace_id)
        use = EgressUse()
        if workspace.state in ("ready", "paused"):
            use = await self.cluster.egress(workspace.sandbox)
        return EgressState(egress=workspace.egress, secrets=workspace.secrets, use=use)

    async def of_sandbox(self, sandbox: str) -> str | None:
        """The id of the workspace that has, or had, a sandbox; None while it is warm."""
        if (live := self.keeping.of(sandbox)) is not None:
            return live.workspace.id
        workspace = await self.store.get_of(sandbox)
        return None if workspace is None else workspace.id

    async def note_screen(self, workspace_id: str, screen: Screen) -> None:
        """Have it told with the screen that it now has."""
        live = await self._get_live(workspace_id)
        live.change(screen=screen)
        await self.keeping.save(live)

    async def note_size(self, workspace_id: str, size: tuple[int, int]) -> None:
        """Likewise: its programs too can change its size, which an observation then tells."""
        live = self._here(workspace_id)
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
        live = self._here(workspace_id)
        if live is not None:
            return self._shown(live)
        workspace = await self.store.get(workspace_id[:100])
        if workspace is None:
            raise WorkspaceNotFound(f"There is no workspace {workspace_id[:100]!r}.")
        return workspace

    async def tenant_of(self, workspace_id: str) -> str | None:
        """Whose a workspace is, live or ended; None if there never was one of that id."""
        if (live := self.keeping.live.get(workspace_id)) is not None:
            return live.workspace.tenant
        return await self._tenants.get(workspace_id[:100])

    async def settled(self, workspace_id: str, seconds: float) -> Workspace:
        """Like :meth:`get`, once it has started or ended, or after that time."""
        with anyio.move_on_after(seconds):
            while (live := self._here(workspace_id)) is None:
                workspace = await self.get(workspace_id)
                if workspace.state not in ("queued", "starting"):
                    return workspace
                await anyio.sleep(LOOK_AGAIN_SECONDS)  # another controller starts it
            await live.settled.wait()
        return await self.get(workspace_id)

    async def pause(self, workspace_id: str, *, actor: str) -> Workspace:
        """Have it stand still until it is used or watched; again is success.

        Raises:
            WorkspaceNotFound, NotReady, WorkspaceEnded.
            Unsupported: its node cannot.
            Unavailable: it goes on.
        """
        notice = 0 if self._here(workspace_id) is not None else NOTICE_SECONDS
        live = await self._get_live(workspace_id)
        await self.keeping.idling.pause(live, actor=actor, notice_seconds=notice)
        if live.is_lost:  # another one kept it by then
            return await self.pause(workspace_id, actor=actor)
        return await self.get(workspace_id)

    async def resume(self, workspace_id: str, *, actor: str) -> Workspace:
        """Have it go on; again is success. Raises like :meth:`desktop`."""
        await self.handed(workspace_id, actor=actor)
        return await self.get(workspace_id)

    async def desktop(self, workspace_id: str, *, actor: str = SYSTEM) -> Desktop:
        """The client of a ready workspace's desktop; a paused one is resumed.

        Raises:
            WorkspaceNotFound, NotReady.
            WorkspaceEnded: the message says when and why.
            Unavailable: it is paused, and may still be.
        """
        return (await self.handed(workspace_id, actor=actor)).desktop

    async def endpoint(self, workspace_id: str, *, actor: str = SYSTEM) -> Endpoint:
        """Where its desktopd answers; like :meth:`desktop`."""
        return (await self.handed(workspace_id, actor=actor)).endpoint

    async def glance(self, workspace_id: str) -> Desktop:
        """The client for what is no use of the desktop: NotReady if it is paused."""
        reached = await self._reached(workspace_id)
        if reached is None:
            raise why_not(await self.get(workspace_id))
        return reached.desktop

    async def stats(self, workspace_id: str) -> Stats:
        await self._reached(workspace_id)
        return await self.cluster.stats((await self.get(workspace_id)).sandbox)

    async def lease(self, sandbox: str) -> float | None:
        """How long a sandbox may still live: seconds, or None if that is not decided here.

        Raises:
            WorkspaceEnded: it must end now; nobody wants it.
            Unavailable: nobody can tell.
        """
        live = self.keeping.of(sandbox)
        if live is not None and not live.is_lost:
            if live.end_state is not None:
                raise why_ended(live.workspace, live.end_state, live.error)
            return max(0.0, live.deadline - time.monotonic())
        # In this order: a claim makes of a warm one a workspace's.
        if await self.store.warm.has(sandbox):
            return None
        workspace = await self.store.get_of(sandbox)
        if workspace is None:
            raise WorkspaceEnded(f"No workspace has the sandbox {sandbox[:100]!r}.")
        if workspace.ended_at is not None:
            raise why_ended(workspace)
        return None  # its keeper knows

    async def page(
        self,
        states: Sequence[State] | None,
        *,
        limit: int,
        after: str | None,
        tenant: str | None = None,
    ) -> Sequence[Workspace]:
        """A page of a tenant's, or with None of all."""
        page = await self.store.page(states, limit=limit, after=after, tenant=tenant)
        lives = ((stored, self._here(stored.id)) for stored in page)
        return [stored if live is None else self._shown(live) for stored, live in lives]

    def states(self) -> Mapping[str, int]:
        """How many of the workspaces kept here are in each state."""
        names = ("queued", "starting", "ready", "paused", "releasing")
        counts: dict[str, int] = dict.fromkeys(names, 0)
        for live in self.keeping.live.values():
            if live.workspace.state in counts:
                counts[live.workspace.state] += 1
        return counts

    # Small ones.

    def _here(self, workspace_id: str) -> Live | None:
        """The one, if it is kept here."""
        live = self.keeping.live.get(workspace_id)
        return None if live is None or live.is_lost else live

    async def _kept(self, workspace_id: str) -> Live | None:
        """The one, kept here from now on if it was not; None if it has ended or never was."""
        if (live := self._here(workspace_id)) is not None:
            return live
        async with self._taking:  # many ask for one at once
            return self._here(workspace_id) or await self.replicas.take_over(workspace_id[:100])

    async def handed(self, workspace_id: str, *, actor: str = SYSTEM) -> Handed:
        """How it is reached, once it is not paused; raises like :meth:`desktop`."""
        deadline = time.monotonic() + RESUME_SECONDS
        while (reached := await self._reached(workspace_id)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(f"Workspace {workspace_id} is paused, and cannot be resumed.")
            live = await self._kept(workspace_id)
            if live is not None:
                await self.keeping.idling.resume(live, actor=actor)
            else:  # another controller was first
                await anyio.sleep(LOOK_AGAIN_SECONDS)
        if (live := self._here(workspace_id)) is not None:
            live.used_at = time.monotonic()
        return reached

    async def _reached(self, workspace_id: str) -> Handed | None:
        """How it is reached as it is; None while it is paused."""
        live = self._here(workspace_id)
        if live is None:
            return await self._elsewhere.desktop(workspace_id)
        if live.end_state is None and live.desktop is not None and live.endpoint is not None:
            if live.workspace.state == "ready":
                return Handed(live.endpoint, live.desktop, live.workspace.keep_frames)
            if live.workspace.state == "paused":
                return None
        raise await self._why_not_live(workspace_id)

    async def _get_live(self, workspace_id: str) -> Live:
        live = await self._kept(workspace_id)
        if live is None or live.end_state is not None:
            raise await self._why_not_live(workspace_id)
        return live

    async def _why_not_live(self, workspace_id: str) -> CarrelError:
        live = self._here(workspace_id)
        if live is not None and live.end_state is not None:
            return why_ended(live.workspace, live.end_state, live.error)
        return why_not(await self.get(workspace_id))

    def _shown(self, live: Live) -> Workspace:
        if live.ticket is None or live.workspace.state != "queued":
            return live.workspace
        return live.workspace.model_copy(update={"queue": live.ticket.place})
