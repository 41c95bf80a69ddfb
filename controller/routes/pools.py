"""Pools: how many desktops of each template are kept warm."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Request

from controller.answers import raises
from controller.routes import caller, parts
from workspace.errors import NotFound
from workspace.fleet import PoolChange, PoolStatus

router = APIRouter(prefix="/v1/pools", tags=["pools"])
_EXAMPLES = {
    "more": {"summary": "Twenty at hand", "value": {"warm": 20, "max": 200}},
    "again": {"summary": "Let a quarantined one try again", "value": {}},
}
Name = Annotated[str, Path(description="the template's name", max_length=100)]


@router.get("")
async def pools(request: Request) -> list[PoolStatus]:
    """Every template's pool, as it is now."""
    return await parts(request).pools.statuses()


@router.get("/{template}", responses=raises(NotFound))
async def pool(request: Request, template: Name) -> PoolStatus:
    """One template's pool, as it is now."""
    return await parts(request).pools.status(template)


@router.patch("/{template}", responses=raises(NotFound))
async def change(
    request: Request,
    template: Name,
    body: Annotated[PoolChange, Body(openapi_examples=_EXAMPLES)],
) -> PoolStatus:
    """Change what is given of it; the rest stays. A quarantine ends, whatever is given."""
    return await parts(request).pools.change(template, body, actor=caller(request).name)
