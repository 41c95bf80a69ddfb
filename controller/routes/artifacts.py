"""Artifacts: what is kept of desktops. They are there after their workspaces have ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import Response

from controller.answers import OF_DESKTOP, OF_WORKSPACE, Responses, raises
from controller.artifacts import WHOLE_BYTES
from controller.routes import Id, caller, desktop, parts, recorded
from controller.store.artifacts import no_such
from controller.streams import Download, until_gone
from workspace.artifacts import (
    ARTIFACT_ID,
    Artifact,
    ArtifactKind,
    ArtifactList,
    ArtifactRequest,
)
from workspace.errors import ArtifactDamaged

router = APIRouter(prefix="/v1", tags=["artifacts"], responses=OF_WORKSPACE)
ArtifactId = Annotated[
    str, Path(pattern=ARTIFACT_ID, description="the artifact's id", examples=["p3v8ztk2mh"])
]
_EXAMPLES = {
    "file": {"summary": "A result that outlives the desktop", "value": {"path": "report.pdf"}}
}
_BYTES: Responses = raises(ArtifactDamaged) | {
    200: {
        "content": {
            "application/octet-stream": {},
            "image/jpeg": {},
            "image/png": {},
            "image/webp": {},
        },
        "description": "Its bytes: a frame to be shown, everything else as an attachment",
    }
}


@router.get("/workspaces/{workspace_id}/artifacts")
async def page(
    request: Request,
    workspace_id: Id,
    kind: ArtifactKind | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[
        str | None, Query(pattern=ARTIFACT_ID, description="the last page's 'after'")
    ] = None,
) -> ArtifactList:
    """What is kept of a workspace, live or ended, oldest first, a page at a time."""
    own = parts(request)
    await own.lifecycle.get(workspace_id)
    found = await own.artifacts.rows.page(workspace_id, kind, limit=limit, after=after)
    return ArtifactList(artifacts=found, after=found[-1].id if len(found) == limit else None)


@router.post("/workspaces/{workspace_id}/artifacts", status_code=201, responses=OF_DESKTOP)
async def save(
    request: Request,
    workspace_id: Id,
    body: Annotated[ArtifactRequest, Body(openapi_examples=_EXAMPLES)],
) -> Artifact:
    """Keep a file of the desktop, as it is now; it outlives the desktop."""
    target = await desktop(request, workspace_id)

    async def saving() -> Artifact:
        async with recorded(request, workspace_id, "artifact_save", path=body.path) as told:
            async with target.open_file(body.path) as pieces:
                kept = await parts(request).artifacts.save(
                    pieces,
                    workspace_id=workspace_id,
                    kind="file",
                    name=body.name or body.path,
                    meta={"path": body.path},
                )
            told |= {"artifact": kept.id, "digest": kept.digest, "size": kept.size}
            return kept

    return await until_gone(request.receive, saving())


@router.get("/artifacts/{artifact_id}", response_class=Response, responses=_BYTES)
async def read(request: Request, artifact_id: ArtifactId) -> Response:
    """Its bytes, as they were saved, or an error: a frame as a picture, else an attachment."""
    artifact = await _artifact(request, artifact_id)
    own = parts(request).artifacts
    if artifact.kind == "frame" and artifact.size <= WHOLE_BYTES:
        data = await own.read(artifact)
        if media_type := picture_type(data):
            return Response(data, media_type=media_type, headers=_SHOWN)

    @asynccontextmanager
    async def reading() -> AsyncIterator[AsyncIterator[bytes]]:
        told = {"artifact": artifact.id, "digest": artifact.digest}
        async with recorded(request, artifact.workspace_id, "artifact_read", **told):
            async with own.open(artifact) as pieces:
                yield pieces

    return Download(reading(), path=artifact.name, size=artifact.size)


@router.get("/artifacts/{artifact_id}/info")
async def info(request: Request, artifact_id: ArtifactId) -> Artifact:
    """What it is."""
    return await _artifact(request, artifact_id)


@router.delete("/artifacts/{artifact_id}", status_code=204)
async def remove(request: Request, artifact_id: ArtifactId) -> None:
    """Remove it; its bytes too, if no other artifact has the same."""
    artifact = await _artifact(request, artifact_id)
    told = {"artifact": artifact.id, "artifact_kind": artifact.kind, "digest": artifact.digest}
    async with recorded(request, artifact.workspace_id, "artifact_remove", **told):
        await parts(request).artifacts.remove(artifact.id)


async def _artifact(request: Request, artifact_id: str) -> Artifact:
    """The one; another tenant's is told as one that never was."""
    own, who = parts(request), caller(request)
    artifact = await own.artifacts.rows.get(artifact_id)
    tenant = await own.lifecycle.tenant_of(artifact.workspace_id)
    if tenant != who.tenant and who.role != "admin":
        raise no_such(artifact_id)
    return artifact


# A picture that Carrel itself encoded: it may be shown, and do nothing else.
_SHOWN = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def picture_type(data: bytes) -> str | None:
    """The media type of an encoded picture, by its first bytes; None of anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None
