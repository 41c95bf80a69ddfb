"""Tools beside the desktop: MCP servers that a tenant has registered, and those inside of desktops.

Every controller looks after every registered server itself, and tells of it as it sees it; which
there are it reads from the store again and again, so that what another one was told counts here
seconds later. Calls come through :meth:`Tools.call`, whoever makes them, and are in the log before
they are answered: who called what, and how that went; not with which arguments.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timezone
from functools import partial
from typing import NamedTuple, Protocol

import anyio
from anyio.abc import TaskGroup

from controller.access import Caller
from controller.events import Events
from controller.lifecycle import Lifecycle
from controller.live import new_id
from controller.sealing import Sealer
from controller.store import Store
from controller.store.tools import ToolsRow
from controller.tools.inside import REST_SECONDS, Inside, OverLines
from controller.tools.link import PROBE_SECONDS, Link, Server
from workspace.errors import CarrelError, Forbidden, ToolsNotFound
from workspace.models import ToolProgram, Workspace
from workspace.tools import Json, ToolAnswer, ToolServer, ToolsRequest

READ_SECONDS = 5.0
CALL_PATIENCE = 1.0  # so often, at most, calls start a server that ends at once
_log = logging.getLogger(__name__)


class Connecting(Protocol):
    """What speaks MCP."""

    @property
    def over_lines(self) -> OverLines: ...
    def over_http(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[Server]: ...


class _Remote(NamedTuple):
    """A registered server, and what holds the connection to it."""

    row: ToolsRow
    link: Link
    scope: anyio.CancelScope


class Tools:
    """The tool servers of one controller's store; usable while ``run`` is entered."""

    def __init__(
        self,
        store: Store,
        events: Events,
        lifecycle: Lifecycle,
        sealer: Sealer,
        connecting: Callable[[], Connecting],
        *,
        probe_seconds: float = PROBE_SECONDS,
        rest_seconds: float = REST_SECONDS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._rows = store.tools
        self._events = events
        self._lifecycle = lifecycle
        self._sealer = sealer
        self._connecting = connecting
        self._probe_seconds = probe_seconds
        self._changed = changed
        self._remotes: dict[str, _Remote] = {}  # by the row's id
        self._changes = 0  # of what is registered, made here
        self._inside = Inside(
            lifecycle,
            lambda: connecting().over_lines,
            probe_seconds=probe_seconds,
            rest_seconds=rest_seconds,
            changed=changed,
        )
        self._tasks: TaskGroup

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Look after them as long as the block runs."""
        async with anyio.create_task_group() as tasks:
            self._tasks = self._inside.tasks = tasks
            tasks.start_soon(self._follow)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                changes = self._changes
                rows = await self._rows.all()
                if changes != self._changes:
                    continue  # what was read may be from before the change
                self._match(rows)
            except CarrelError as error:
                _log.warning("the tool servers cannot be read: %s", error.message)
            await anyio.sleep(READ_SECONDS)

    def _match(self, rows: Sequence[ToolsRow]) -> None:
        """Look after these and no others."""
        wanted = {row.id: row for row in rows}
        for known in list(self._remotes):
            if known not in wanted:
                self._drop(known)
        for row in rows:
            if row.id not in self._remotes:
                self._begin(row)

    def _begin(self, row: ToolsRow) -> _Remote:
        link = Link(
            f"{row.name} of {row.tenant}",
            partial(self._opened, row),
            probe_seconds=self._probe_seconds,
            changed=self._changed,
        )
        self._remotes[row.id] = remote = _Remote(row, link, anyio.CancelScope())

        async def hold() -> None:
            with remote.scope:
                await link.run()

        self._tasks.start_soon(hold)
        return remote

    def _drop(self, row_id: str) -> None:
        self._remotes.pop(row_id).scope.cancel()
        self._changed()

    @asynccontextmanager
    async def _opened(self, row: ToolsRow) -> AsyncIterator[Server]:
        headers = {row.header: self._sealer.open(row.sealed, of=_of(row))} if row.sealed else {}
        async with self._connecting().over_http(row.url, headers) as server:
            yield server

    # What is registered.

    async def add(self, asked: ToolsRequest, *, by: Caller) -> ToolServer:
        """Register one.

        Raises:
            Forbidden: it is to be another tenant's, and ``by`` is no admin.
            Conflict: the tenant has one of that name, or as many as it may.
        """
        tenant = _tenant(by, asked.tenant)
        row = ToolsRow(
            new_id(),
            tenant,
            asked.name,
            asked.url,
            asked.header if asked.secret is not None else "",
            "",
            datetime.now(timezone.utc),
            by.name,
        )
        if asked.secret is not None:
            secret = asked.secret.get_secret_value()
            row = row._replace(sealed=self._sealer.seal(secret, of=_of(row)))
        self._changes += 1
        await self._rows.add(row)
        await self._events.record(
            "tools_added", actor=by.name, name=row.name, tenant=tenant, url=row.url
        )
        remote = self._remotes.get(row.id) or self._begin(row)
        self._changes += 1
        return _shown(remote.row, remote.link)

    async def remove(self, name: str, *, by: Caller, tenant: str | None = None) -> None:
        """Forget one, here at once and at other controllers within seconds.

        Raises:
            ToolsNotFound: the tenant has none of that name.
        """
        of = _tenant(by, tenant)
        if not await self._rows.remove(of, name):
            raise _no_such(name)
        for row_id, remote in list(self._remotes.items()):
            if (remote.row.tenant, remote.row.name) == (of, name):
                self._drop(row_id)
        self._changes += 1
        await self._events.record("tools_removed", actor=by.name, name=name, tenant=of)

    async def all(self, tenant: str, *, with_tools: bool) -> list[ToolServer]:
        """A tenant's, and those of the templates, by name; of one name the registered one."""
        found = {row.name: self._remote(row, with_tools) for row in await self._rows.of(tenant)}
        for template in self._lifecycle.templates.all():
            for name, program in template.tools.items():
                if name not in found:
                    server = ToolServer(
                        name=name, kind="template", tenant=tenant, template=template.name
                    )
                    health = self._inside.last(tenant, program)
                    found[name] = health.told(server, with_tools=with_tools)
        return [found[name] for name in sorted(found)]

    async def get(self, name: str, tenant: str) -> ToolServer:
        """One, with its tools.

        Raises:
            ToolsNotFound: there is none of that name.
        """
        for server in await self.all(tenant, with_tools=True):
            if server.name == name:
                return server
        raise _no_such(name)

    def _remote(self, row: ToolsRow, with_tools: bool) -> ToolServer:
        remote = self._remotes.get(row.id) or self._begin(row)
        return _shown(row, remote.link, with_tools=with_tools)

    async def of_workspace(self, workspace_id: str) -> list[ToolServer]:
        """Those of a desktop, by name, with how each was when it was last used."""
        workspace = await self._lifecycle.get(workspace_id)
        return [
            self._inside.health(workspace_id, name).told(
                ToolServer(name=name, kind="template", template=workspace.template),
                with_tools=True,
            )
            for name in sorted(self._programs(workspace))
        ]

    def _programs(self, workspace: Workspace) -> Mapping[str, ToolProgram]:
        try:
            return self._lifecycle.templates.get(workspace.template).tools
        except CarrelError:  # it was removed since
            return {}

    # Calls.

    async def call(
        self, name: str, tool: str, arguments: Json, *, by: Caller, workspace_id: str | None = None
    ) -> ToolAnswer:
        """What a tool answers, of a registered server or of one inside of a desktop.

        Raises:
            ToolsNotFound, ToolNotFound, ToolsDown, InvalidRequest, TooLarge, TimedOut: see Link.
        """
        if workspace_id is not None:
            link = await self._started(workspace_id, name, by, CALL_PATIENCE)
        else:
            link = await self._registered(name, by.tenant)
        return await link.call(tool, arguments)

    async def look(self, workspace_id: str, name: str, *, by: Caller) -> ToolServer:
        """Start the server of a desktop if it is not, and tell what it offers.

        Raises:
            ToolsNotFound: that desktop has none of that name.
        """
        await self._started(workspace_id, name, by, self._probe_seconds)
        found = await self.of_workspace(workspace_id)
        return next(server for server in found if server.name == name)

    async def _started(self, workspace_id: str, name: str, by: Caller, patience: float) -> Link:
        workspace = await self._lifecycle.get(workspace_id)
        program = self._programs(workspace).get(name)
        if program is None:
            raise _no_such(name)
        return await self._inside.linked(workspace, name, program, actor=by.name, patience=patience)

    async def _registered(self, name: str, tenant: str) -> Link:
        row = await self._rows.get(tenant, name)
        if row is None:
            raise _no_such(name)
        link = (self._remotes.get(row.id) or self._begin(row)).link
        await link.known()
        return link


def _shown(row: ToolsRow, link: Link, *, with_tools: bool = False) -> ToolServer:
    server = ToolServer(
        name=row.name,
        tenant=row.tenant,
        url=row.url,
        header=row.header,
        created_at=row.created_at,
        created_by=row.created_by,
    )
    return link.health.told(server, with_tools=with_tools)


def _tenant(by: Caller, asked: str | None) -> str:
    """Whose it is to be."""
    if asked is None or asked == by.tenant:
        return by.tenant
    if by.role != "admin":
        raise Forbidden(f"Only an admin does that for tenant {asked!r}.")
    return asked


def _of(row: ToolsRow) -> str:
    """What its secret is bound to: whose it is, and where it goes."""
    return f"tool server {row.tenant}/{row.name} at {row.url}"


def _no_such(name: str) -> ToolsNotFound:
    return ToolsNotFound(f"There is no tool server {name[:60]!r}.")
