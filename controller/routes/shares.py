"""Links that let whoever has them watch one desktop, or also control it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Request, Response

from controller.answers import OF_WORKSPACE, raises
from controller.routes import Id, caller, parts
from workspace.access import NewShare, Share, ShareRequest
from workspace.errors import WorkspaceEnded

router = APIRouter(
    prefix="/v1/workspaces/{workspace_id}/shares", tags=["shares"], responses=OF_WORKSPACE
)
_EXAMPLES = {
    "watch": {"summary": "To watch, for an hour", "value": {"mode": "view"}},
    "control": {"summary": "To help out", "value": {"mode": "control", "ttl_seconds": 900}},
}
ShareId = Annotated[str, Path(description="the link's id", pattern=r"^[a-z0-9]{1,20}$")]


@router.post("", status_code=201, responses=raises(WorkspaceEnded))
async def make(
    request: Request,
    response: Response,
    workspace_id: Id,
    body: Annotated[ShareRequest, Body(openapi_examples=_EXAMPLES)],
) -> NewShare:
    """Make one. Its ``url`` is told this once."""
    own = parts(request)
    await own.lifecycle.get(workspace_id)
    response.headers["Cache-Control"] = "no-store"
    return await own.auth.links.make(workspace_id, body, by=caller(request))


@router.get("")
async def page(request: Request, workspace_id: Id) -> list[Share]:
    """The links that still open it, the newest hundred; without what proves them."""
    own = parts(request)
    await own.lifecycle.get(workspace_id)
    return await own.auth.links.of(workspace_id)


@router.delete("/{share}", status_code=204)
async def revoke(request: Request, workspace_id: Id, share: ShareId) -> None:
    """Have it open nothing from now on; who watches by it is cut off. Again is 204 again."""
    own = parts(request)
    await own.lifecycle.get(workspace_id)
    await own.auth.links.revoke(workspace_id, share, by=caller(request))
