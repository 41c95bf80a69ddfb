"""Tenants: what each may have, and has."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request

from controller.routes import caller, parts
from workspace.access import Quotas, Tenant, TenantList, TenantName

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])
_EXAMPLES = {
    "some": {"summary": "Five desktops at once", "value": {"workspaces": 5, "cpus": 10}},
    "none": {"summary": "No limits", "value": {}},
}
Name = Annotated[TenantName, Path(description="the tenant's name")]


@router.get("")
async def page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[TenantName | None, Query(description="the last page's 'after'")] = None,
) -> TenantList:
    """The tenants that there are, by name, a page at a time."""
    found = await parts(request).tenants.page(limit=limit, after=after)
    return TenantList(tenants=found, after=found[-1].name if len(found) == limit else None)


@router.get("/{name}")
async def get(request: Request, name: Name) -> Tenant:
    """What one may have, and has. One that nobody has named yet has nothing."""
    return await parts(request).tenants.get(name)


@router.put("/{name}")
async def put(
    request: Request,
    name: Name,
    body: Annotated[Quotas, Body(openapi_examples=_EXAMPLES)],
) -> Tenant:
    """What one may have from now on; what is not named it may have without limit."""
    return await parts(request).tenants.put(name, body, by=caller(request))
