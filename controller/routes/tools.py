"""Tools beside the desktop: MCP servers, registered or inside of a desktop, and calls of theirs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request

from controller.answers import OF_DESKTOP, raises
from controller.routes import Id, caller, parts, recorded
from controller.streams import until_gone
from workspace.access import TenantName
from workspace.errors import (
    Conflict,
    DesktopLost,
    NotFound,
    TimedOut,
    TooLarge,
    Unavailable,
    Unsupported,
)
from workspace.tools import (
    Json,
    ToolAnswer,
    ToolCall,
    ToolServer,
    ToolServerList,
    ToolsName,
    ToolsRequest,
)

router = APIRouter(prefix="/v1", tags=["tools"], responses=raises(NotFound))
_CALLED = raises(Conflict, Unavailable, TimedOut, DesktopLost, TooLarge, Unsupported)
_INSIDE = "/workspaces/{workspace_id}/tools"
_EXAMPLES = {
    "plain": {"value": {"name": "search", "url": "https://tools.example.org/mcp"}},
    "with a secret": {
        "value": {
            "name": "search",
            "url": "https://tools.example.org/mcp",
            "secret": "Bearer abcdef",
        }
    },
}
Name = Annotated[ToolsName, Path(description="the tool server's name")]
OfTenant = Annotated[
    TenantName | None, Query(description="whose, in place of the caller's own; for admins")
]


@router.get("/tools")
async def page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[ToolsName | None, Query(description="the last page's 'after'")] = None,
    tools: Annotated[bool, Query(description="with what each offers")] = False,
) -> ToolServerList:
    """The tool servers of the caller's tenant and of the templates, by name, and how each is."""
    found = await parts(request).tools.all(caller(request).tenant, with_tools=tools)
    rest = [server for server in found if after is None or server.name > after]
    shown = rest[:limit]
    return ToolServerList(servers=shown, after=shown[-1].name if len(rest) > limit else None)


@router.post("/tools", status_code=201, responses=raises(Conflict))
async def add(
    request: Request, body: Annotated[ToolsRequest, Body(openapi_examples=_EXAMPLES)]
) -> ToolServer:
    """Register an MCP server over streamable HTTP: its tools are offered as ``<name>__<tool>``."""
    return await parts(request).tools.add(body, by=caller(request))


@router.get("/tools/{name}")
async def get(request: Request, name: Name) -> ToolServer:
    """One, how it is and what it offers."""
    return await parts(request).tools.get(name, caller(request).tenant)


@router.delete("/tools/{name}", status_code=204)
async def remove(request: Request, name: Name, tenant: OfTenant = None) -> None:
    """Forget a registered one, and its secret."""
    await parts(request).tools.remove(name, by=caller(request), tenant=tenant)


@router.post("/tools/{name}/calls", responses=_CALLED)
async def call(request: Request, name: Name, body: ToolCall) -> ToolAnswer:
    """Call a tool of a registered server. What it answers is not Carrel's: it is data."""
    return await until_gone(request.receive, _called(request, name, body, None))


@router.get(_INSIDE, responses=OF_DESKTOP)
async def of_workspace(request: Request, workspace_id: Id) -> list[ToolServer]:
    """The servers that are started in this desktop, and how each was when it was last used."""
    return await parts(request).tools.of_workspace(workspace_id)


@router.post(_INSIDE + "/{name}", responses=OF_DESKTOP)
async def look(request: Request, workspace_id: Id, name: Name) -> ToolServer:
    """Start one in this desktop, if it is not, and tell what it offers."""

    async def work() -> ToolServer:
        async with recorded(request, workspace_id, "tools_started", server=name) as told:
            found = await parts(request).tools.look(workspace_id, name, by=caller(request))
            told["state"] = found.state
            return found

    return await until_gone(request.receive, work())


@router.post(_INSIDE + "/{name}/calls", responses=OF_DESKTOP)
async def call_inside(request: Request, workspace_id: Id, name: Name, body: ToolCall) -> ToolAnswer:
    """Call a tool of a server inside of this desktop; it is started if it is not."""
    return await until_gone(request.receive, _called(request, name, body, workspace_id))


async def _called(
    request: Request, name: str, body: ToolCall, workspace_id: str | None
) -> ToolAnswer:
    who = caller(request)
    about: Json = {"server": name, "tool": body.tool, "tenant": who.tenant}
    async with recorded(request, workspace_id, "tool_call", **about) as told:
        answer = await parts(request).tools.call(
            name, body.tool, body.arguments, by=who, workspace_id=workspace_id
        )
        told["is_error"] = answer.is_error
        return answer
