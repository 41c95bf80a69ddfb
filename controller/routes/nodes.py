"""Nodes: the machines that run desktops, and which of them get new ones; and all at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Path, Request

from controller.answers import raises
from controller.nodes import Nodes
from controller.routes import caller, parts
from workspace.errors import NotFound
from workspace.fleet import NodeChange, Status
from workspace.models import Node

router = APIRouter(prefix="/v1", tags=["nodes"])
_EXAMPLES = {
    "drain": {"summary": "No new desktops there", "value": {"draining": True}},
    "undrain": {"summary": "Back into service", "value": {"draining": False}},
}
NodeId = Annotated[str, Path(description="the node's id", max_length=100)]


@router.get("/nodes")
async def nodes(request: Request) -> Sequence[Node]:
    """The machines that run desktops."""
    return await _nodes(request).all()


@router.patch("/nodes/{node_id}", responses=raises(NotFound))
async def change(
    request: Request,
    node_id: NodeId,
    body: Annotated[NodeChange, Body(openapi_examples=_EXAMPLES)],
) -> Node:
    """Have it get no new desktops (its warm ones are ended, the claimed ones live on); or again."""
    return await _nodes(request).change(node_id, body, actor=caller(request).name)


@router.get("/status")
async def status(request: Request) -> Status:
    """Controllers, nodes, pools, the queue and strays, at a glance."""
    seen, oidc = await _nodes(request).status(), parts(request).auth.oidc
    if oidc is None or not oidc.trouble:
        return seen
    trouble = f"The OpenID provider does not answer: {oidc.trouble}"
    return seen.model_copy(update={"troubles": [*seen.troubles, trouble]})


def _nodes(request: Request) -> Nodes:
    own = parts(request)
    return Nodes(own.lifecycle, own.pools, own.tail)
