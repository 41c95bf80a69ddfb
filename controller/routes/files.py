"""Files of a desktop: streamed both ways, never held here."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from controller.answers import BYTES, OF_DESKTOP, Responses
from controller.problems import response
from controller.routes import Id, desktop, parts, recorded
from controller.streams import Download, Upload
from workspace.errors import CarrelError, DiskFull
from workspace.models import FileInfo, FileList, FileMove

router = APIRouter(prefix="/v1/workspaces/{workspace_id}", tags=["files"], responses=OF_DESKTOP)
CHECKED_BYTES = 16 << 20
FilePath = Annotated[
    str, Query(min_length=1, max_length=4096, description="relative ones start in /home/user")
]
_ATTACHMENT: Responses = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file's bytes"}
}


@router.get("/files", response_class=Response, responses=_ATTACHMENT)
async def read(request: Request, workspace_id: Id, path: FilePath) -> Response:
    """A file's bytes, as an attachment."""
    target = await desktop(request, workspace_id)

    @asynccontextmanager
    async def reading() -> AsyncIterator[AsyncIterator[bytes]]:
        async with recorded(request, workspace_id, "file_read", path=path):
            async with target.open_file(path) as chunks:
                yield chunks

    return Download(reading(), path=path)


@router.put("/files", response_model=FileInfo, openapi_extra=BYTES)
async def write(
    request: Request,
    workspace_id: Id,
    path: FilePath,
    mode: Annotated[str, Query(pattern=r"^[0-7]{3,4}$", description="octal")] = "644",
) -> FileInfo | Response:
    """Write a file whole; it appears only when it is complete."""
    body = Upload(request.receive)
    try:
        target = await desktop(request, workspace_id)
        await _check_size(request, workspace_id)
        async with recorded(request, workspace_id, "file_write", path=path) as told:
            hashed = hashlib.sha256()
            info = await target.write_file(path, _hashing(body, hashed), mode=mode)
            told |= {"size": info.size, "sha256": hashed.hexdigest()}
            return info
    except CarrelError as error:
        refusal = response(error)
        if request.headers.get("expect", "").lower() == "100-continue":
            refusal.headers["Connection"] = "close"  # it waits for our word before it sends
        else:
            await body.drain()
        return refusal


async def _hashing(body: Upload, hashed: hashlib._Hash) -> AsyncIterator[bytes]:
    async for piece in body:
        hashed.update(piece)
        yield piece


async def _check_size(request: Request, workspace_id: str) -> None:
    """Refuse what could never fit before any of it is sent on."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    if size < CHECKED_BYTES:
        return
    own = parts(request)
    workspace = await own.lifecycle.get(workspace_id)
    template = await anyio.to_thread.run_sync(own.templates.get, workspace.template)
    if size > template.disk_mib << 20:
        raise DiskFull(f"{size} bytes do not fit: the desktop's disk has {template.disk_mib} MiB.")


@router.delete("/files", status_code=204)
async def remove(
    request: Request, workspace_id: Id, path: FilePath, recursive: bool = False
) -> None:
    """Remove a file, or with ``recursive`` a whole folder."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "file_remove", path=path):
        await target.remove(path, recursive=recursive)


@router.get("/files/stat")
async def stat(request: Request, workspace_id: Id, path: FilePath) -> FileInfo:
    """What a path is."""
    return await (await desktop(request, workspace_id)).stat(path)


@router.get("/files/list")
async def page(
    request: Request,
    workspace_id: Id,
    path: FilePath = "/home/user",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: str | None = None,
) -> FileList:
    """A folder's entries by name, a page at a time."""
    return await (await desktop(request, workspace_id)).list_files(path, limit=limit, after=after)


@router.put("/files/directory")
async def make_directory(request: Request, workspace_id: Id, path: FilePath) -> FileInfo:
    """Make a folder, and those above it."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "directory", path=path):
        return await target.make_directory(path)


@router.post("/files/move")
async def move(request: Request, workspace_id: Id, body: FileMove) -> FileInfo:
    """Move or rename."""
    target = await desktop(request, workspace_id)
    told = {"source": body.source, "destination": body.destination}
    async with recorded(request, workspace_id, "file_move", **told):
        return await target.move_file(body.source, body.destination, overwrite=body.overwrite)
