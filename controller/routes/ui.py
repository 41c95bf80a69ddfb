"""What is on a desktop's screen by accessibility."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from controller.answers import OF_DESKTOP, Responses
from controller.routes import Id, desktop, dumped
from controller.streams import until_gone
from workspace import elements
from workspace.actions import ImageFormat
from workspace.errors import InvalidRequest

router = APIRouter(prefix="/v1/workspaces/{workspace_id}", tags=["ui"], responses=OF_DESKTOP)
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_TREE: Responses = {
    200: {"content": {"text/plain": {}}, "description": "The elements, each after its parent"}
}


@router.get("/ui", response_model=elements.ElementTree, responses=_TREE)
async def tree(
    request: Request,
    workspace_id: Id,
    format: elements.TreeFormat = "json",
    window: elements.WindowId | None = None,
    max_nodes: elements.MaxNodes = 3000,
    max_depth: elements.MaxDepth = 60,
    seconds: elements.TreeSeconds = 1.0,
    all: Annotated[bool, Query(description="also what is there for layout only")] = False,
) -> Response:
    """What can be seen, as a tree of elements; their ids are what actions take as `element`."""
    target = await desktop(request, workspace_id)
    reading = target.elements(
        window=window, max_nodes=max_nodes, max_depth=max_depth, seconds=seconds, everything=all
    )
    found = await until_gone(request.receive, reading)
    if format == "text":
        return Response(found.as_text(), media_type="text/plain", headers=_HEADERS)
    return Response(dumped(found), media_type="application/json")


@router.get("/ui/find")
async def find(
    request: Request,
    workspace_id: Id,
    role: elements.Words | None = None,
    name: elements.Words | None = None,
    text: elements.Words | None = None,
    window: elements.WindowId | None = None,
    limit: elements.MaxElements = 20,
    seconds: elements.TreeSeconds = 1.0,
) -> elements.ElementTree:
    """The elements of a role, with words in their name or text; none is no error."""
    if role is None and name is None and text is None:
        raise InvalidRequest("Give a role, a name, a text, or several of them.")
    target = await desktop(request, workspace_id)
    finding = target.find_elements(
        role=role, name=name, text=text, window=window, limit=limit, seconds=seconds
    )
    return await until_gone(request.receive, finding)


@router.get("/ui/marks", response_model=elements.Marks)
async def marks(
    request: Request,
    workspace_id: Id,
    format: ImageFormat = "jpeg",
    quality: Annotated[int, Query(ge=1, le=100)] = 80,
    scale: Annotated[float, Query(gt=0, le=1)] = 1.0,
    window: elements.WindowId | None = None,
    limit: elements.MaxElements = 200,
) -> Response:
    """A picture with a numbered box over what can be clicked: number 12 is the element `e12`."""
    target = await desktop(request, workspace_id)
    marking = target.marks(format=format, quality=quality, scale=scale, window=window, limit=limit)
    # Not FastAPI's own validation: it would take the picture for base64 again.
    return Response(
        dumped(await until_gone(request.receive, marking)), media_type="application/json"
    )
