"""What there is to run, templates, and the log of what happened."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Body, Query, Request

from controller.answers import OF_WORKSPACE, raises
from controller.routes import Id, caller, parts, seen_by
from controller.store import Seen
from workspace.errors import Conflict
from workspace.models import EventList, Template

router = APIRouter(prefix="/v1", tags=["cluster"])
_EXAMPLES = {
    "small": {
        "summary": "A small desktop with a terminal open",
        "value": {
            "name": "small",
            "screen": {"width": 1024, "height": 768},
            "memory_mib": 1024,
            "startup": ["xfce4-terminal"],
        },
    }
}
After = Annotated[int, Query(ge=0, le=2**62, description="the last page's 'after'")]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/templates")
async def templates(request: Request) -> list[Template]:
    """The recipes: the built-in ones and those in the templates folder."""
    return await anyio.to_thread.run_sync(parts(request).templates.all)


@router.post("/templates", status_code=201, responses=raises(Conflict))
async def add_template(
    request: Request,
    body: Annotated[Template, Body(openapi_examples=_EXAMPLES)],
) -> Template:
    """Keep a new recipe, as a file in the templates folder."""
    own = parts(request)
    template = await anyio.to_thread.run_sync(own.templates.add, body)
    await own.events.record("template", actor=caller(request).name, template=template.name)
    return template


@router.get("/events")
async def events(request: Request, after: After = 0, limit: Limit = 100) -> EventList:
    """The log, oldest first, a page at a time: of the caller's tenant, of all for an admin.

    What is of no workspace (templates, pools, nodes, keys) operators are told.
    """
    return await _page(request, seen_by(request), after, limit)


@router.get("/workspaces/{workspace_id}/events", responses=OF_WORKSPACE)
async def workspace_events(
    request: Request, workspace_id: Id, after: After = 0, limit: Limit = 100
) -> EventList:
    """What was done to one workspace, oldest first, a page at a time."""
    await parts(request).lifecycle.get(workspace_id)
    return await _page(request, seen_by(request, workspace_id), after, limit)


async def _page(request: Request, seen: Seen, after: int, limit: int) -> EventList:
    found = await parts(request).store.events(seen, after=after, limit=limit)
    return EventList(events=found, after=found[-1].id if found else after)
