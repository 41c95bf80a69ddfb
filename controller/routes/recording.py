"""The recording of a desktop's screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from controller.answers import OF_DESKTOP, Responses
from controller.routes import Id, desktop, parts, recorded
from controller.streams import Download, until_gone
from workspace.models import Recording, RecordingRequest

router = APIRouter(
    prefix="/v1/workspaces/{workspace_id}/recording", tags=["recording"], responses=OF_DESKTOP
)
_KEPT = ("started_at", "seconds", "frames", "width", "height", "fps", "reason")
_MP4: Responses = {
    200: {"content": {"application/octet-stream": {}}, "description": "The MP4's bytes"}
}


@router.post("")
async def start(
    request: Request, workspace_id: Id, body: RecordingRequest | None = None
) -> Recording:
    """Record the screen as an MP4, until it is stopped or reaches a limit."""
    wanted = body or RecordingRequest()
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "recording_start", **wanted.model_dump()):
        return await target.start_recording(**wanted.model_dump())


@router.get("")
async def status(request: Request, workspace_id: Id) -> Recording:
    """The recording that runs, or the last one."""
    return await (await desktop(request, workspace_id)).recording()


@router.post("/stop")
async def stop(
    request: Request,
    workspace_id: Id,
    keep: Annotated[
        bool, Query(description="keep it as an artifact, which outlives the desktop")
    ] = False,
) -> Recording:
    """End the recording; its file is complete then. Again is the same again."""
    target = await desktop(request, workspace_id)

    async def stopping() -> Recording:
        async with recorded(request, workspace_id, "recording_stop") as told:
            done = await target.stop_recording()
            told |= {"reason": done.reason, "seconds": done.seconds, "size": done.size}
            if not keep:
                return done
            async with target.open_recording() as pieces:
                kept = await parts(request).artifacts.save(
                    pieces,
                    workspace_id=workspace_id,
                    kind="recording",
                    name=f"{workspace_id}-{done.started_at:%Y%m%dT%H%M%S}.mp4",
                    meta=done.model_dump(mode="json", include=set(_KEPT)),
                    is_once=True,
                )
            told |= {"artifact": kept.id, "digest": kept.digest}
            return done.model_copy(update={"artifact": kept.id})

    return await until_gone(request.receive, stopping())


@router.get("/file", response_class=Response, responses=_MP4)
async def download(request: Request, workspace_id: Id) -> Response:
    """The MP4 of a recording that has ended, as an attachment."""
    target = await desktop(request, workspace_id)

    @asynccontextmanager
    async def reading() -> AsyncIterator[AsyncIterator[bytes]]:
        async with recorded(request, workspace_id, "recording_read"):
            async with target.open_recording() as chunks:
                yield chunks

    return Download(reading(), path=f"{workspace_id}.mp4")


@router.delete("", status_code=204)
async def remove(request: Request, workspace_id: Id) -> None:
    """End the recording if it runs, and remove its file from the desktop."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "recording_remove"):
        await target.remove_recording()
