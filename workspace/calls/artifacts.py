"""Artifacts of a controller: what is kept of desktops, also of those that have ended."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import httpx

from workspace import transport
from workspace.artifacts import (
    ARTIFACT_ID,
    Artifact,
    ArtifactKind,
    ArtifactList,
    ArtifactRequest,
)
from workspace.calls.volumes import Caller
from workspace.errors import ArtifactNotFound, WorkspaceNotFound
from workspace.models import WORKSPACE_ID
from workspace.transport import asked

MAX_LISTED = 10_000
KEEP_SECONDS = 600.0  # a large file
PIECE_SECONDS = 60.0  # until one begins to come, or goes on
REMOVE_SECONDS = 60.0


class ArtifactCalls:
    """The artifacts that this key may see."""

    async def artifacts(
        self: Caller, workspace_id: str, *, kind: ArtifactKind | None = None
    ) -> Sequence[Artifact]:
        """What is kept of a workspace, oldest first; of very many the first ``MAX_LISTED``.

        Raises:
            WorkspaceNotFound.
        """
        found: list[Artifact] = []
        params: dict[str, str | int] = {"limit": 1000} | ({"kind": kind} if kind else {})
        while len(found) < MAX_LISTED:
            body = await self._call("GET", _of(workspace_id), params=params)
            page = ArtifactList.model_validate_json(body)
            found += page.artifacts
            if page.after is None:
                break
            params["after"] = page.after
        return found

    async def artifact(self: Caller, artifact_id: str) -> Artifact:
        """What it is.

        Raises:
            ArtifactNotFound.
        """
        return Artifact.model_validate_json(await self._call("GET", _path(artifact_id) + "/info"))

    async def keep_file(
        self: Caller, workspace_id: str, path: str, *, name: str | None = None
    ) -> Artifact:
        """Keep a file of a desktop as it is now, beyond the desktop's life.

        Raises:
            FileMissing, IsADirectory.
            TooLarge, DiskFull: there is no room for it among the artifacts.
            Unavailable: it cannot be kept now; nothing of it is.
        """
        body = asked(ArtifactRequest, path=path, name=name).model_dump()
        told = await self._call("POST", _of(workspace_id), json=body, seconds=KEEP_SECONDS)
        return Artifact.model_validate_json(told)

    def open_artifact(
        self: Caller, artifact_id: str
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Its bytes as they come: ``async with carrel.open_artifact(id) as chunks``.

        Raises:
            ArtifactNotFound.
            ArtifactDamaged: what is kept is not what was saved.
            DesktopLost: it broke off; what came is not whole.
        """
        return _bytes(self._http, _path(artifact_id))

    async def save_artifact(self: Caller, artifact_id: str, path: str | os.PathLike[str]) -> int:
        """Write it to a file here, which is there once it is whole; its size in bytes.

        Raises: what :meth:`open_artifact` does.
        """
        size, partial = 0, anyio.Path(f"{os.fspath(path)}.part")
        async with _bytes(self._http, _path(artifact_id)) as chunks:
            try:
                async with await anyio.open_file(partial, "wb") as file:
                    async for chunk in chunks:
                        size += await file.write(chunk)
                await partial.replace(os.fspath(path))
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await partial.unlink(missing_ok=True)
                raise
        return size

    async def remove_artifact(self: Caller, artifact_id: str) -> None:
        """Remove it.

        Raises:
            ArtifactNotFound.
        """
        await self._call("DELETE", _path(artifact_id), seconds=REMOVE_SECONDS)


@asynccontextmanager
async def _bytes(http: httpx.AsyncClient, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
    timeout = transport.timeout(PIECE_SECONDS)
    async with transport.stream(http, "GET", path, timeout=timeout) as response:
        yield response.aiter_bytes()


def _path(artifact_id: str) -> str:
    if re.fullmatch(ARTIFACT_ID, artifact_id) is None:
        raise ArtifactNotFound(f"There is no artifact {artifact_id[:80]!r}.")
    return f"/v1/artifacts/{artifact_id}"


def _of(workspace_id: str) -> str:
    if re.fullmatch(WORKSPACE_ID, workspace_id) is None:
        raise WorkspaceNotFound(f"There is no desktop {workspace_id[:80]!r}.")
    return f"/v1/workspaces/{workspace_id}/artifacts"
