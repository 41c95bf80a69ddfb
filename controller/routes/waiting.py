"""Waiting for things in a desktop."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from controller.answers import OF_DESKTOP
from controller.routes import Id, desktop
from controller.streams import until_gone
from workspace.waits import Wait, Waited

router = APIRouter(prefix="/v1/workspaces/{workspace_id}", tags=["waiting"], responses=OF_DESKTOP)
_EXAMPLES = {
    "file": {
        "summary": "A download that is complete",
        "value": {"type": "file_exists", "path": "Downloads/*.pdf", "stable_ms": 500},
    },
    "window": {"value": {"type": "window_opens", "title": "Save as", "seconds": 10}},
    "screen": {"value": {"type": "region_stable", "stable_ms": 500}},
}


@router.post("/wait")
async def wait(
    request: Request,
    workspace_id: Id,
    body: Annotated[Wait, Body(openapi_examples=_EXAMPLES)],
) -> Waited:
    """Answer as soon as it is so; 504 after ``seconds``, with what there was instead."""
    target = await desktop(request, workspace_id)
    return await until_gone(request.receive, target.wait_for(body))
