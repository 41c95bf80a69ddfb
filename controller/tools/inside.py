"""Tool servers inside of desktops: started when they are first asked, each over a WebSocket.

desktopd starts one process for a connection and ends it with that. This room has one connection to
a server of a desktop, which all of its callers share; it is closed after a minute without a call,
because it counts as use of the desktop as long as it is open. A process that ended is started anew
by the next call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from websockets.exceptions import ConnectionClosed

from controller.lifecycle import Lifecycle
from controller.tools.health import Health
from controller.tools.link import Link, Server
from controller.watch import dial
from workspace.errors import CarrelError, NotFound, ToolsDown
from workspace.models import ToolProgram, Workspace

REST_SECONDS = 60.0
TAKEN = ("desktop_id",)
MOST = 300  # servers of desktops that are remembered


class OverLines(Protocol):
    """What speaks MCP with a process, a line for each message."""

    def __call__(
        self, receive: Callable[[], Awaitable[str | None]], send: Callable[[str], Awaitable[None]]
    ) -> AbstractAsyncContextManager[Server]: ...


class Inside:
    """Of one controller. ``tasks`` is where the connections live."""

    tasks: TaskGroup

    def __init__(
        self,
        lifecycle: Lifecycle,
        over_lines: Callable[[], OverLines],
        *,
        probe_seconds: float,
        rest_seconds: float = REST_SECONDS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._lifecycle = lifecycle
        self._over_lines = over_lines
        self._probe_seconds = probe_seconds
        self._rest_seconds = rest_seconds
        self._changed = changed
        self._links: OrderedDict[tuple[str, str], Link] = OrderedDict()
        # How a template's server was in the desktop of a tenant that used it last. By tenant:
        # what a desktop says is its tenant's own affair.
        self._last: OrderedDict[tuple[str, str], Health] = OrderedDict()

    def health(self, workspace_id: str, name: str) -> Health:
        """How the server of a desktop was when it was last used."""
        link = self._links.get((workspace_id, name))
        return link.health if link is not None else Health()

    def last(self, tenant: str, program: ToolProgram) -> Health:
        """How a server that is started so was in the tenant's desktop that used it last."""
        return self._last.get((tenant, program.model_dump_json())) or Health()

    async def linked(
        self, workspace: Workspace, name: str, program: ToolProgram, *, actor: str, patience: float
    ) -> Link:
        """The connection to a server of a desktop, once it is known how that is.

        One that ended less than ``patience`` seconds ago is left as it is.
        """
        key = (workspace.id, name)
        link = self._links.get(key)
        if link is None or link.ended_for > patience:
            link = Link(
                f"{name} of {workspace.id}",
                partial(self._opened, workspace.id, name, actor),
                probe_seconds=self._probe_seconds,
                rests_after=self._rest_seconds,
                taken=TAKEN,
                changed=self._changed,
                health=link.health if link is not None else None,
            )
            self._links[key] = link
            self._last[workspace.tenant, program.model_dump_json()] = link.health
            self._forget()
            self.tasks.start_soon(link.run)
        await link.known()
        return link

    def _forget(self) -> None:
        """Drop what was used the longest ago and has no connection."""
        while len(self._last) > MOST:
            self._last.popitem(last=False)
        for key in list(self._links):
            if len(self._links) <= MOST:
                return
            if self._links[key].ended_for > 0:
                del self._links[key]

    @asynccontextmanager
    async def _opened(self, workspace_id: str, name: str, actor: str) -> AsyncIterator[Server]:
        endpoint = await self._lifecycle.endpoint(workspace_id, actor=actor)
        try:
            socket = await dial(endpoint, f"/tools/{name}", [])
        except NotFound as error:
            raise ToolsDown(
                f"Desktop {workspace_id} was started without it.", hint="Create a new desktop."
            ) from error
        said = ""

        async def receive() -> str | None:
            nonlocal said
            while True:
                try:
                    message = await socket.recv()
                except ConnectionClosed as error:
                    said = error.rcvd.reason if error.rcvd is not None else "the desktop is gone"
                    return None
                if isinstance(message, str):
                    return message

        async def send(line: str) -> None:
            try:
                await socket.send(line)
            except ConnectionClosed as error:
                raise anyio.BrokenResourceError from error

        async with socket:
            try:
                async with self._over_lines()(receive, send) as server:
                    yield server
            except CarrelError as error:
                if said:
                    raise ToolsDown(f"It ended: {said}.") from error
                raise
