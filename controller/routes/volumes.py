"""Volumes: homes that outlive the workspaces they are mounted in. Each caller has its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from controller.answers import Responses, raises
from controller.routes import caller, parts, recorded
from controller.store.volumes import Owner
from controller.streams import Download
from workspace.errors import Conflict, DesktopLost, NotFound, TimedOut, Unsupported
from workspace.models import Volume, VolumeList, VolumeName

# The node that one lies on is asked, and may be gone.
_OF_NODE = raises(NotFound, Conflict, Unsupported, DesktopLost, TimedOut)
router = APIRouter(prefix="/v1/volumes", tags=["volumes"])
Name = Annotated[VolumeName, Path(description="the volume's name")]
_TAR: Responses = _OF_NODE | {
    200: {"content": {"application/octet-stream": {}}, "description": "A tar of all in it"}
}


@router.get("")
async def page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[VolumeName | None, Query(description="the last page's 'after'")] = None,
) -> VolumeList:
    """The caller's volumes by name, a page at a time."""
    own = parts(request).lifecycle.keeping.volumes
    found = await own.page(_owner(request), limit=limit, after=after)
    return VolumeList(volumes=found, after=found[-1].name if len(found) == limit else None)


@router.get("/{name}", responses=raises(NotFound))
async def get(request: Request, name: Name) -> Volume:
    """One volume, and which workspace has it."""
    return await parts(request).lifecycle.keeping.volumes.get(_owner(request), name)


@router.delete("/{name}", status_code=204, responses=_OF_NODE)
async def remove(
    request: Request,
    name: Name,
    forget: Annotated[
        bool, Query(description="also if its node is gone; what lies there then stays")
    ] = False,
) -> None:
    """Remove a volume and all in it; 409 while a workspace has it."""
    volumes = parts(request).lifecycle.keeping.volumes
    async with recorded(request, None, "volume_removed", volume=name):
        await volumes.remove(_owner(request), name, forget=forget)


@router.get("/{name}/export", response_class=Response, responses=_TAR)
async def export(request: Request, name: Name) -> Response:
    """All that is in it, as a tar; 409 while a workspace has it. Nobody can claim it meanwhile."""
    volumes = parts(request).lifecycle.keeping.volumes

    @asynccontextmanager
    async def reading() -> AsyncIterator[AsyncIterator[bytes]]:
        async with recorded(request, None, "volume_exported", volume=name):
            async with volumes.export(_owner(request), name) as pieces:
                yield pieces

    return Download(reading(), path=f"{name}.tar")


def _owner(request: Request) -> Owner:
    who = caller(request)
    return Owner(who.tenant, who.name)
