"""Workspaces: ask for one, look, extend, release."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query, Request

from controller import egress
from controller.answers import OF_DESKTOP, OF_WORKSPACE
from controller.routes import Id, caller, parts
from controller.streams import until_gone
from workspace.models import (
    LIVE_STATES,
    Extend,
    State,
    Stats,
    WaitSeconds,
    Workspace,
    WorkspaceList,
    WorkspaceRequest,
)

router = APIRouter(prefix="/v1/workspaces", tags=["workspaces"])
_EXAMPLES = {
    "plain": {"summary": "A desktop for ten minutes", "value": {"ttl_seconds": 600}},
    "able": {
        "summary": "Whatever has VS Code, for ten minutes",
        "value": {"capabilities": ["vscode"], "ttl_seconds": 600},
    },
    "prepared": {
        "summary": "Prepared before it is handed over",
        "value": {
            "template": "desktop",
            "name": "invoice run",
            "metadata": {"team": "billing"},
            "screen": {"width": 1600, "height": 1000},
            "theme": "dark",
            "timezone": "Europe/Berlin",
            "environment": {"EDITOR": "mousepad"},
            "setup": ["mkdir -p ~/work", "echo ready > ~/work/state"],
        },
    },
}


@router.post("", status_code=201, responses=OF_DESKTOP)
async def create(
    request: Request,
    body: Annotated[WorkspaceRequest, Body(openapi_examples=_EXAMPLES)],
) -> Workspace:
    """Ask for a desktop; answers when it is ready to act, or at once with ``"wait": false``.

    A caller that hangs up while it waits leaves no desktop behind.
    """
    who, own = caller(request), parts(request)
    body = own.templates.chosen(body)
    egress.check(body, own.templates.get(body.template), who)
    claiming = own.lifecycle.claim(body, actor=who.name, tenant=who.tenant)
    return own.shown(await until_gone(request.receive, claiming), who)


@router.get("")
async def page(
    request: Request,
    state: Annotated[
        State | Literal["live", "all"], Query(description="live: all that have not ended")
    ] = "live",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="the last page's 'after'")] = None,
) -> WorkspaceList:
    """The workspaces of the caller's tenant (of all, for an operator), newest first, in pages."""
    who, own = caller(request), parts(request)
    tenant = None if who.sees_all else who.tenant
    states: dict[str, list[State] | None] = {"live": sorted(LIVE_STATES), "all": None}
    wanted: list[State] | None = states.get(state, [state])  # type: ignore[list-item]  # the two that are no State are keys
    found = await own.lifecycle.page(wanted, limit=limit, after=after, tenant=tenant)
    return WorkspaceList(
        workspaces=[own.shown(workspace, who) for workspace in found],
        after=found[-1].id if len(found) == limit else None,
    )


@router.get("/{workspace_id}", responses=OF_WORKSPACE)
async def get(
    request: Request,
    workspace_id: Id,
    wait_seconds: Annotated[
        WaitSeconds, Query(description="until it has started or ended, at most")
    ] = 0,
) -> Workspace:
    """One workspace, live or ended."""
    own = parts(request)
    found = own.lifecycle.settled(workspace_id, wait_seconds)
    return own.shown(await until_gone(request.receive, found), caller(request))


@router.delete("/{workspace_id}", status_code=204, responses=OF_WORKSPACE)
async def release(request: Request, workspace_id: Id) -> None:
    """Give it back: it is destroyed when this answers. Again is 204 again."""
    await parts(request).lifecycle.release(workspace_id, actor=caller(request).name)


@router.post("/{workspace_id}/extend", responses=OF_DESKTOP)
async def extend(request: Request, workspace_id: Id, body: Extend) -> Workspace:
    """Let it live that long from now."""
    who, own = caller(request), parts(request)
    return own.shown(
        await own.lifecycle.extend(workspace_id, body.ttl_seconds, actor=who.name), who
    )


@router.post("/{workspace_id}/pause", responses=OF_DESKTOP)
async def pause(request: Request, workspace_id: Id) -> Workspace:
    """Have it stand still, using no processor, until it is used or watched. Its time goes on."""
    who, own = caller(request), parts(request)
    return own.shown(await own.lifecycle.pause(workspace_id, actor=who.name), who)


@router.post("/{workspace_id}/resume", responses=OF_DESKTOP)
async def resume(request: Request, workspace_id: Id) -> Workspace:
    """Have it go on; whatever is done in it does so too."""
    who, own = caller(request), parts(request)
    return own.shown(await own.lifecycle.resume(workspace_id, actor=who.name), who)


@router.get("/{workspace_id}/stats", responses=OF_DESKTOP)
async def stats(request: Request, workspace_id: Id) -> Stats:
    """What it uses now."""
    return await parts(request).lifecycle.stats(workspace_id)
