"""Tools beside the desktop: which MCP servers there are, how they are, and calls of their tools."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import JsonValue, SecretStr, TypeAdapter

from workspace.errors import ToolsNotFound, WorkspaceNotFound
from workspace.models import TOOLS_NAME, WORKSPACE_ID
from workspace.tools import (
    CALL_SECONDS,
    ToolAnswer,
    ToolCall,
    ToolServer,
    ToolServerList,
    ToolsRequest,
)
from workspace.transport import asked

START_SECONDS = 45.0  # until a server inside of a desktop has started, or has not
MAX_LISTED = 10_000
_SERVERS = TypeAdapter(list[ToolServer])


class Caller(Protocol):
    """What the client of a controller has for its calls."""

    async def _call(self, method: str, url: str, *, seconds: float = ..., **options: Any) -> bytes:
        """One request. Any: httpx's own options."""


class ToolCalls:
    """The tool servers of this key's tenant, and those inside of desktops."""

    async def tools(self: Caller, *, listed: bool = False) -> Sequence[ToolServer]:
        """All of them, by name, and how each is; with ``listed`` also what each offers."""
        found: list[ToolServer] = []
        after: str | None = None
        while len(found) < MAX_LISTED:
            params: dict[str, str | int] = {"limit": 1000} | ({"after": after} if after else {})
            if listed:
                params["tools"] = "true"
            page = ToolServerList.model_validate_json(
                await self._call("GET", "/v1/tools", params=params)
            )
            found += page.servers
            after = page.after
            if after is None:
                break
        return found

    async def tool_server(self: Caller, name: str) -> ToolServer:
        """One, and what it offers.

        Raises:
            ToolsNotFound.
        """
        return ToolServer.model_validate_json(await self._call("GET", _path(name)))

    async def add_tools(
        self: Caller,
        name: str,
        url: str,
        *,
        secret: str | None = None,
        header: str = "Authorization",
        tenant: str | None = None,
    ) -> ToolServer:
        """Register an MCP server over streamable HTTP; for operators.

        ``secret`` is sent to it as ``header`` ("Bearer ..."), and is never shown.

        Raises:
            Conflict: there is one of that name.
        """
        given = None if secret is None else SecretStr(secret)
        wanted = asked(
            ToolsRequest, name=name, url=url, header=header, secret=given, tenant=tenant
        ).model_dump(exclude={"secret"})
        body = wanted | {"secret": secret}
        return ToolServer.model_validate_json(await self._call("POST", "/v1/tools", json=body))

    async def remove_tools(self: Caller, name: str, *, tenant: str | None = None) -> None:
        """Forget a registered one, and its secret.

        Raises:
            ToolsNotFound.
        """
        params = {} if tenant is None else {"tenant": tenant}
        await self._call("DELETE", _path(name), params=params)

    async def tools_of(self: Caller, workspace_id: str) -> Sequence[ToolServer]:
        """The servers inside of a desktop, and how each was when it was last used."""
        return _SERVERS.validate_json(await self._call("GET", _inside(workspace_id)))

    async def start_tools(self: Caller, workspace_id: str, name: str) -> ToolServer:
        """Start a server inside of a desktop, if it is not, and tell what it offers.

        Raises:
            ToolsNotFound: that desktop has none of that name.
        """
        url = _path(name, workspace_id)
        return ToolServer.model_validate_json(await self._call("POST", url, seconds=START_SECONDS))

    async def call_tool(
        self: Caller,
        server: str,
        tool: str,
        arguments: Mapping[str, JsonValue] | None = None,
        *,
        workspace_id: str | None = None,
    ) -> ToolAnswer:
        """Call a tool of a registered server, or of one inside of a desktop.

        What it answers is its own word: data, not to be trusted. Nothing is retried.

        Raises:
            ToolsNotFound, ToolNotFound: there is no such server, or no such tool of it.
            ToolsDown: its server does not answer.
            InvalidRequest: the arguments are not what the tool takes.
        """
        call = asked(ToolCall, tool=tool, arguments=dict(arguments or {})).model_dump()
        url = f"{_path(server, workspace_id)}/calls"
        seconds = CALL_SECONDS + START_SECONDS
        return ToolAnswer.model_validate_json(
            await self._call("POST", url, json=call, seconds=seconds)
        )


def _path(name: str, workspace_id: str | None = None) -> str:
    if re.fullmatch(TOOLS_NAME, name) is None:
        raise ToolsNotFound(f"There is no tool server {name[:60]!r}.")
    return f"/v1/tools/{name}" if workspace_id is None else f"{_inside(workspace_id)}/{name}"


def _inside(workspace_id: str) -> str:
    if re.fullmatch(WORKSPACE_ID, workspace_id) is None:
        raise WorkspaceNotFound(f"There is no desktop {workspace_id[:80]!r}.")
    return f"/v1/workspaces/{workspace_id}/tools"
