"""The routes of /v1, a module for each kind; a route's body is one line over what does it.

:class:`Parts` is what they work with, put on the application when it is made. Who may call what
was decided by :class:`controller.gate.Gate` before a route is reached.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from fastapi import Path
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, HTTPConnection

from controller import access
from controller.access import Caller
from controller.artifacts import Artifacts
from controller.artifacts.frames import Frames
from controller.auth import Auth
from controller.control import Controls
from controller.events import Events
from controller.keyring import ADMIN
from controller.lifecycle import Lifecycle
from controller.live import Cluster
from controller.ports.forwarding import Forwarding
from controller.ports.origins import Origins
from controller.requests import Requests
from controller.settings import Settings
from controller.store import Seen, Store
from controller.tail import Tail
from controller.templates import Templates
from controller.tenants import Tenants
from controller.tools import Tools
from controller.warming import Warming
from workspace.desktop import Desktop
from workspace.errors import CarrelError, Unauthorized, Unavailable
from workspace.models import Workspace

ADMITTED_AGAIN_SECONDS = 1.0
RECORD_SECONDS = 10.0  # the log's own limits come first
Id = Annotated[str, Path(description="the workspace's id", examples=["k7mq2xw9ra"])]


@dataclass(frozen=True)
class Parts:
    """What the routes work with."""

    settings: Settings
    auth: Auth
    cluster: Cluster
    events: Events
    lifecycle: Lifecycle
    store: Store
    templates: Templates
    pools: Warming
    controls: Controls
    requests: Requests
    artifacts: Artifacts
    frames: Frames
    tail: Tail
    origins: Origins
    forwarding: Forwarding
    tools: Tools

    @property
    def tenants(self) -> Tenants:
        return self.lifecycle.keeping.tenants

    def shown(self, workspace: Workspace, to: Caller) -> Workspace:
        """A workspace as ``to`` may see it: only who may let others in gets a link for them."""
        workspace = workspace.model_copy(update={"control": self.controls.who(workspace.id)})
        if not access.may_share(to, workspace.tenant):
            return workspace
        return workspace.model_copy(update={"watch_url": self.auth.watch_url(workspace)})


def parts(connection: HTTPConnection) -> Parts:
    found = connection.scope["app"].state.parts
    assert isinstance(found, Parts)
    return found


def caller(connection: HTTPConnection) -> Caller:
    """Who asks; the gate let nobody else through."""
    found = connection.scope["caller"]
    assert isinstance(found, Caller)
    return found


async def count(connection: HTTPConnection, who: Caller) -> None:
    """Count a request of whoever asks by a key.

    Raises:
        RateLimited: its tenant's keys may not ask that often.
    """
    if who.role != "link" and who.name != ADMIN:
        await parts(connection).tenants.count(who, time.monotonic())


async def until_refused(connection: HTTPConnection) -> None:
    """Return once what proved who asks is good no more: its key or link was revoked, or is over.

    For what goes on after it was let in. While nobody can tell, it goes on.
    """
    auth, who = parts(connection).auth, caller(connection)
    while True:
        await anyio.sleep(ADMITTED_AGAIN_SECONDS)
        with suppress(Unavailable):
            if not await auth.still_admits(who):
                return


async def while_admitted(
    connection: HTTPConnection,
    work: Coroutine[Any, Any, None],  # Any: asyncio's own
) -> None:
    """Do ``work`` for as long as its caller is admitted.

    Raises:
        Unauthorized: it is no more.
    """
    doing = asyncio.ensure_future(work)
    refused = asyncio.ensure_future(until_refused(connection))
    try:
        await asyncio.wait((doing, refused), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (doing, refused):
            task.cancel()
        ends = await asyncio.gather(doing, refused, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
    if doing.cancelled():
        raise Unauthorized("This key or link is good no more.")


def seen_by(connection: HTTPConnection, workspace_id: str | None = None) -> Seen:
    """Which events the caller gets to see, in lists and live: of one workspace, or of all.

    Of one, the gate has looked whose it is. Of all: those of the caller's tenant, for an admin of
    every one; what is of no workspace (templates, pools, nodes, keys) operators are told.
    """
    who = caller(connection)
    if workspace_id is not None or who.role == "admin":
        return Seen(workspace_id)
    return Seen(tenant=who.tenant, with_common=who.sees_all)


async def desktop(connection: HTTPConnection, workspace_id: str) -> Desktop:
    """The desktop that a path names; raises like :meth:`Lifecycle.desktop`."""
    lifecycle = parts(connection).lifecycle
    return await lifecycle.desktop(workspace_id, actor=caller(connection).name)


@asynccontextmanager
async def recorded(
    connection: HTTPConnection,
    workspace_id: str | None,
    kind: str,
    **data: Any,  # Any: JSON values
) -> AsyncIterator[dict[str, Any]]:
    """Record what the block does, and how it ended, before anybody is answered.

    Raises:
        Unavailable: it was done, or failed, and could not be recorded.
    """
    try:
        yield data
    except CarrelError as error:
        data["error"] = error.code
        raise
    except (anyio.get_cancelled_exc_class(), ClientDisconnect):
        data["error"] = "caller_gone"
        raise
    finally:
        with anyio.move_on_after(RECORD_SECONDS, shield=True) as scope:
            await parts(connection).events.record(
                kind, actor=caller(connection).name, workspace_id=workspace_id, **data
            )
        if scope.cancelled_caught:
            raise Unavailable(
                "The log of events does not answer.",
                hint="What was asked may have been done: look before you repeat it.",
            )


def dumped(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()
