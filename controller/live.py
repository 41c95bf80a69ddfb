"""A live workspace as the controller holds it, what it needs of the cluster, and how ends are told.

Decides nothing and waits for nothing: :mod:`controller.lifecycle` does.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Literal, NamedTuple, Protocol

import anyio

from controller.places import Ticket
from controller.store.volumes import Owner
from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.backends.footprint import Footprint
from workspace.desktop import Desktop
from workspace.egress import Egress, EgressUse, Secret
from workspace.errors import CarrelError, DesktopLost, WorkspaceEnded, from_wire
from workspace.models import (
    ErrorInfo,
    KeepFrames,
    Node,
    Pool,
    Stats,
    Template,
    Workspace,
    WorkspaceRequest,
)

# Who did what no caller asked for.
SYSTEM = "controller"
_log = logging.getLogger(__name__)
# No letter or figure that is easily taken for another.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class Located(Protocol):
    """Where a live desktop is."""

    @property
    def workspace_id(self) -> str: ...
    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def node(self) -> str: ...
    @property
    def node_name(self) -> str: ...
    @property
    def remaining_seconds(self) -> float: ...


class Hands(Protocol):
    """What the controller needs of :class:`ray_cluster.volumes.Volumes`."""

    async def remove(self, volume_id: str, *, node: str) -> None: ...
    def export(self, volume_id: str, *, node: str) -> AbstractAsyncContextManager[Endpoint]: ...


class Cluster(Protocol):
    """What the controller needs of :class:`ray_cluster.cluster.Cluster`."""

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        ttl_seconds: float,
        timeout_seconds: float,
        background: bool = False,
        node: str | None = None,
        volume: Mount | None = None,
        avoid: Collection[str] = (),
        placed: Callable[[], None] | None = None,
        whose: Mapping[str, str] | None = None,
    ) -> Located: ...
    def takes(self, template: Template) -> Footprint: ...
    async def claimed(
        self, workspace_id: str, ttl_seconds: float, *, whose: Mapping[str, str] | None = None
    ) -> None: ...
    async def locate(self, workspace_id: str) -> Located | None: ...
    async def extend(self, workspace_id: str, ttl_seconds: float) -> None: ...
    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None: ...
    async def egress(self, workspace_id: str) -> EgressUse: ...
    async def pause(self, workspace_id: str) -> PauseResult: ...
    async def resume(self, workspace_id: str) -> None: ...
    async def stop(self, workspace_id: str) -> None: ...
    async def find(self) -> Mapping[str, Located]: ...
    async def ended(self, workspace_id: str) -> ErrorInfo: ...
    async def stats(self, workspace_id: str) -> Stats: ...
    async def nodes(self) -> Sequence[Node]: ...
    async def names(self) -> set[str]: ...
    async def left(self) -> Mapping[str, set[str]]: ...
    async def clear(self, node: str, sandboxes: Collection[str]) -> None: ...
    @property
    def volumes(self) -> Hands: ...


class Handed(NamedTuple):
    """A warm desktop as who warmed it hands it over, or a workspace's, as it is reached."""

    endpoint: Endpoint
    desktop: Desktop
    keep_frames: KeepFrames = "none"


class Pools(Protocol):
    """What the lifecycle needs of those who keep desktops warm."""

    def taken(self, sandbox: str) -> Handed | None:
        """A claim has it now. What is known here of how to reach it."""
        ...

    def changed(self, template: str) -> None:
        """A claim came, or a desktop went: there may be something to do."""
        ...

    async def pool(self, template: Template) -> Pool:
        """What its pool is now told."""
        ...


class NoPools:
    """Nothing is kept warm."""

    def taken(self, sandbox: str) -> Handed | None:
        return None

    def changed(self, template: str) -> None:
        pass

    async def pool(self, template: Template) -> Pool:
        return template.pool


@dataclass(eq=False)
class Pausing:
    """One pause, from when it is written to when it is done or given up."""

    is_wanted: anyio.Event = field(default_factory=anyio.Event)  # somebody came meanwhile
    over: anyio.Event = field(default_factory=anyio.Event)
    may_stand: bool = False  # the cluster was told to
    is_done: bool = False


class Live:
    """A live workspace, as its owner task holds it."""

    def __init__(self, workspace: Workspace, seconds: float, *, owner: str = "") -> None:
        self.workspace = workspace
        self.owner = owner
        self.endpoint: Endpoint | None = None
        self.desktop: Desktop | None = None
        self.saving = anyio.Lock()
        self.scope = anyio.CancelScope(deadline=time.monotonic() + seconds)
        self.ruling = anyio.Lock()  # held by who changes its rules of egress
        self.turned = anyio.Event()  # its state has changed; then there is another one
        self.turning = anyio.Lock()  # held by who pauses or resumes it
        self.pausing: Pausing | None = None  # the last one
        self.used_at = time.monotonic()  # as far as it is known here
        self.is_written = False
        self.is_placed = False  # something of it may live
        self.is_lost = False  # another replica keeps it
        self.shape: str | None = None  # of the warm desktops that would do
        self.ticket: Ticket | None = None  # where it stands in the queue
        self.known: Workspace | None = None  # what its key was given before
        self.written = anyio.Event()  # its row and its claim are kept, or it ended before
        self.settled = anyio.Event()  # ready, or ended before it was
        self.gone = anyio.Event()
        self.end_state: Literal["released", "failed"] | None = None
        self.error: CarrelError | None = None
        self.ended_by = SYSTEM

    @property
    def deadline(self) -> float:
        """When its owner ends it, by :func:`time.monotonic`; it may be changed at any time."""
        return self.scope.deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.scope.deadline = deadline

    def end(
        self,
        state: Literal["released", "failed"],
        error: CarrelError | None = None,
        *,
        by: str = SYSTEM,
    ) -> None:
        """Have its owner end it; the first reason counts."""
        if self.end_state is None:
            self.end_state, self.error, self.ended_by = state, error, by
            self.scope.cancel()

    def lose(self) -> None:
        """Have its owner let go of it, as it is."""
        self.is_lost = True
        self.scope.cancel()

    def change(self, **changes: object) -> None:
        self.workspace = self.workspace.model_copy(update=changes)
        if "state" in changes:
            if self.workspace.state == "ready":
                self.used_at = time.monotonic()
            self.turned.set()
            self.turned = anyio.Event()


def recipe(template: Template, request: WorkspaceRequest) -> Template:
    """The template with what the request wants otherwise."""
    wanted = ("theme", "locale", "timezone", "keyboard")
    changes = {name: value for name in wanted if (value := getattr(request, name)) is not None}
    if request.screen is not None:
        screen = request.screen.model_dump(exclude_none=True)
        changes["screen"] = template.screen.model_copy(update=screen)
    return template.model_copy(update=changes)


def shape(template: Template) -> str:
    """What a desktop of it was started as: only the same can stand in for it."""
    fixed = template.model_dump_json(
        exclude={
            "description",
            "capabilities",
            "pool",
            "idle_seconds",
            "when_idle",
            "keep_frames",
            "egress_max",
        },
    )
    return hashlib.sha256(fixed.encode()).hexdigest()[:32]


def new_id() -> str:
    """One that cannot be guessed."""
    number, letters = secrets.randbelow(len(_ALPHABET) ** 10), []
    for _ in range(10):
        number, place = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[place])
    return "".join(letters)


def begin(request: WorkspaceRequest, template: Template, *, owner: Owner) -> Live:
    """A workspace that is about to start."""
    now = datetime.now(timezone.utc)
    name = new_id()
    workspace = Workspace(
        id=name,
        tenant=owner.tenant,
        sandbox=name,
        name=request.name,
        state="starting",
        template=template.name,
        screen=template.screen,
        created_at=now,
        expires_at=now + timedelta(seconds=request.ttl_seconds),
        metadata=request.metadata,
        volume=request.volume,
        cpus=template.cpus,
        memory_mib=template.memory_mib,
        idle_seconds=request.idle_seconds or template.idle_seconds,
        when_idle=request.when_idle or template.when_idle,
        keep_frames=request.keep_frames or template.keep_frames,
        egress=template.egress if request.egress is None else request.egress,
        secrets=[secret.use for secret in request.secrets],
    )
    return Live(workspace, request.ttl_seconds, owner=owner.name)


def info(error: CarrelError | None) -> ErrorInfo | None:
    if error is None:
        return None
    return ErrorInfo(code=error.code, message=error.message, hint=error.hint)


def why_ended(
    workspace: Workspace,
    state: Literal["released", "failed"] | None = None,
    error: CarrelError | None = None,
) -> WorkspaceEnded:
    """Why and when a workspace ended, for those who still ask for it."""
    when = f" at {workspace.ended_at:%H:%M:%S} UTC" if workspace.ended_at else ""
    why = error.message if error else workspace.error.message if workspace.error else ""
    how = state or workspace.state
    return WorkspaceEnded(
        f"Workspace {workspace.id} {'failed' if how == 'failed' else 'was released'}{when}"
        + (f": {why}" if why else ".")
    )


def why_lost(end: ErrorInfo) -> CarrelError:
    """What is told of a desktop that ended by itself, by the cluster's words."""
    if end.code == "node_lost":
        _log.error("a desktop's actor died: %s", end.message)
        return DesktopLost(
            "Its node, or what owned it there, died.", hint=WorkspaceEnded.default_hint
        )
    return from_wire(
        {**end.model_dump(), "hint": end.hint or WorkspaceEnded.default_hint}, status=500
    )
