"""Artifacts: what is kept of a desktop beyond its life.

Their bytes are content-addressed (:mod:`controller.artifacts.blobs`): many artifacts may share
them, and they go when the last one does. Saving writes the bytes, then the row, then answers; so
what was acknowledged survives the death of any process, and what a death leaves is bytes without a
row, which are swept up (:mod:`controller.artifacts.retention`). What is handed out is what was
saved, by its digest, or an error.
"""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

import anyio

from controller.artifacts.blobs import Blob, Blobs, digest_of
from controller.artifacts.quota import Quota
from controller.artifacts.spool import Spool
from controller.live import new_id
from controller.store import Store
from workspace.artifacts import Artifact, ArtifactKind
from workspace.errors import ArtifactDamaged, CarrelError, Unavailable, Unsupported

WHOLE_BYTES = 16 << 20  # checked before any of it is handed out; of more, its last piece is held
REMOVE_SECONDS = 20.0
BUSY_SECONDS = 10.0  # that bytes which are being removed are waited for
LOOK_AGAIN_SECONDS = 0.05
TRIES = 5
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff/]")
_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


class Artifacts:
    """The artifacts of one controller's workspaces; ``run`` it as long as it serves."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs | None,
        incoming: Path,
        quota: Quota,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``blobs``: where their bytes are kept; None: nowhere."""
        self.rows = store.artifacts
        self.quota = quota
        self.now = now
        self._blobs = blobs
        self._spool = Spool(incoming)

    @property
    def are_kept(self) -> bool:
        return self._blobs is not None

    @property
    def blobs(self) -> Blobs:
        """
        Raises:
            Unsupported: this controller keeps none.
        """
        if self._blobs is None:
            raise Unsupported(
                "This controller keeps no artifacts.",
                hint="Whoever runs it can set CARREL_ARTIFACTS; files can be read directly.",
            )
        return self._blobs

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """
        Raises:
            Unavailable: the folder cannot be used. What is elsewhere is not waited for.
        """
        if self._blobs is None:
            yield
            return
        await self._spool.begin()
        async with self._blobs.run(), anyio.create_task_group() as tasks:
            tasks.start_soon(self._look, self._blobs)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _look(self, blobs: Blobs) -> None:
        """Say in the log what is wrong with the place, rather than when something is saved."""
        try:
            await blobs.check()
        except CarrelError as error:
            _log.error("%s %s", error.message, error.hint)

    # Saving.

    async def save(
        self,
        pieces: AsyncIterator[bytes],
        *,
        workspace_id: str,
        kind: ArtifactKind,
        name: str,
        meta: dict[str, object] | None = None,
        is_once: bool = False,
    ) -> Artifact:
        """Keep what comes; with ``is_once`` the workspace's one of that kind with the same bytes,
        if it has one.

        Raises:
            TooLarge, DiskFull: there is no room for it, or none is left for this workspace.
            Unavailable: it cannot be kept now; nothing of it is.
            Unsupported: this controller keeps none.
        """
        blobs = self.blobs
        left = await self.quota.left(self.rows, workspace_id)
        held = self._spool.hold(pieces, limit=left.size, too_large=left.error)
        async with held as blob:
            if is_once and (known := await self.rows.find(workspace_id, kind, blob.digest)):
                return known
            return await self._keep(blobs, blob, self._row(blob, workspace_id, kind, name, meta))

    async def save_bytes(
        self,
        data: bytes,
        *,
        workspace_id: str,
        kind: ArtifactKind,
        name: str,
        meta: dict[str, object] | None = None,
    ) -> Artifact:
        """Like :meth:`save`."""
        blobs = self.blobs
        left = await self.quota.left(self.rows, workspace_id)
        if len(data) > left.size:
            raise left.error
        blob = Blob(digest_of(data), len(data), data)
        return await self._keep(blobs, blob, self._row(blob, workspace_id, kind, name, meta))

    def _row(
        self,
        blob: Blob,
        workspace_id: str,
        kind: ArtifactKind,
        name: str,
        meta: dict[str, object] | None,
    ) -> Artifact:
        plain = _CONTROL.sub("_", PurePosixPath(name).name or "file")[:255]
        return Artifact.model_validate(
            {
                "id": new_id(),
                "workspace_id": workspace_id,
                "kind": kind,
                "name": plain,
                "digest": blob.digest,
                "size": blob.size,
                "media_type": mimetypes.guess_type(plain)[0] or "application/octet-stream",
                "created_at": self.now(),
                "meta": meta or {},
            }
        )

    async def _keep(self, blobs: Blobs, blob: Blob, artifact: Artifact) -> Artifact:
        with self.quota.taken(artifact.workspace_id, blob.size):
            for _ in range(TRIES):
                if await self._reserved(blob) == 1 or not await blobs.has(blob.digest, blob.size):
                    await blobs.put(blob)
                if await self.rows.add(artifact):
                    return artifact
        raise Unavailable("The same bytes are saved and removed all the time.")

    async def _reserved(self, blob: Blob) -> int:
        with anyio.move_on_after(BUSY_SECONDS):
            while True:
                if uses := await self.rows.reserve(blob.digest, blob.size, now=self.now()):
                    return uses
                await anyio.sleep(LOOK_AGAIN_SECONDS)
        raise Unavailable(
            "Another artifact with the same bytes is being removed, and that takes long."
        )

    # Handing out.

    @asynccontextmanager
    async def open(self, artifact: Artifact) -> AsyncIterator[AsyncIterator[bytes]]:
        """Its bytes as they come.

        Those of a large one whose digest turns out to be another break off before they are whole.

        Raises:
            ArtifactDamaged: they are lost, or are not what was saved.
            Unavailable: they cannot be had now.
        """
        async with self.blobs.open(artifact.digest) as pieces:
            checked = _checked(pieces, artifact)
            if artifact.size > WHOLE_BYTES:
                yield checked
            else:
                whole = [piece async for piece in checked]
                yield _each(whole)

    async def read(self, artifact: Artifact) -> bytes:
        """All of a small one; raises like :meth:`open`."""
        async with self.open(artifact) as pieces:
            return b"".join([piece async for piece in pieces])

    # Removing.

    async def remove(self, artifact_id: str) -> None:
        """Its row, and its bytes if it was the last that had them; again is success."""
        gone = await self.rows.drop(artifact_id)
        if gone is not None:
            self.quota.forget(gone.workspace_id)
            await self.clear(gone.digest)

    async def clear(self, digest: str) -> bool:
        """Remove the bytes if no artifact has them; what fails of it is done by a later sweep.

        Whether they are gone, or somebody has them.
        """
        try:
            with anyio.fail_after(REMOVE_SECONDS):
                if await self.rows.begin_removal(digest, now=self.now()):
                    await self.finish(digest)
            return True
        except (CarrelError, TimeoutError) as error:
            _log.warning("the bytes %s stay for now: %s", digest, error)
            return False

    async def finish(self, digest: str) -> None:
        """Remove bytes that nobody can use any more."""
        await self.blobs.remove(digest)
        await self.rows.end_removal(digest)


async def _checked(pieces: AsyncIterator[bytes], artifact: Artifact) -> AsyncIterator[bytes]:
    """The pieces, the last of them once they are known to be what was saved."""
    sha, size, last = hashlib.sha256(), 0, b""
    async for piece in pieces:
        sha.update(piece)
        size += len(piece)
        if size > artifact.size:
            break
        if last:
            yield last
        last = piece
    if size != artifact.size or sha.hexdigest() != artifact.digest:
        _log.error("artifact %s: what is kept is not what was saved", artifact.id)
        raise ArtifactDamaged(f"What is kept of artifact {artifact.id} is not what was saved.")
    if last:
        yield last


async def _each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
