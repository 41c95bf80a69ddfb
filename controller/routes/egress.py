"""The way out of a desktop: its rules, as they are and otherwise, and what came of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from controller import egress
from controller.answers import OF_DESKTOP
from controller.routes import Id, caller, parts, recorded
from workspace.egress import EgressChange, EgressState

router = APIRouter(
    prefix="/v1/workspaces/{workspace_id}/egress", tags=["egress"], responses=OF_DESKTOP
)
_EXAMPLES = {
    "list": {
        "summary": "These, and nothing else",
        "value": {"egress": ["pkg.example.net", "*.example.com"]},
    },
    "more": {"summary": "One more", "value": {"allow": ["github.com:22"]}},
    "none": {"summary": "Nothing any more", "value": {"egress": "none"}},
}


@router.get("")
async def get(request: Request, workspace_id: Id) -> EgressState:
    """What it may reach, and how much went through since it started."""
    return await parts(request).lifecycle.egress(workspace_id)


@router.post("")
async def change(
    request: Request,
    workspace_id: Id,
    body: Annotated[EgressChange, Body(openapi_examples=_EXAMPLES)],
) -> EgressState:
    """Let it reach other hosts, at once; what is open and no longer permitted is broken off.

    Wider than its template's ``egress_max`` takes an operator.
    """
    who, own = caller(request), parts(request)
    async with recorded(request, workspace_id, "egress_rules") as line:
        made = await own.lifecycle.set_egress(
            workspace_id, lambda workspace: egress.decide(workspace, body, own.templates, who)
        )
        line["egress"] = made.egress
    return await own.lifecycle.egress(workspace_id)
