"""Bytes on their way to where artifacts are kept: counted, hashed, and held until they are whole.

What is small is held in memory, what is larger in a file; so a blob is named by its digest before
any of it is sent, and can be sent again. However it ends, nothing of it is left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import anyio
from anyio.to_thread import run_sync

from controller.artifacts.blobs import Blob
from controller.artifacts.folder import emptied, failure
from workspace.errors import CarrelError

HELD_BYTES = 1 << 20  # in memory; then it is written


class Spool:
    """A folder of files that are coming in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def begin(self) -> None:
        """Have it empty: what is there, a killed controller left.

        Raises:
            Unavailable: it cannot be made, or is another user's.
        """
        await run_sync(emptied, self._folder)

    @asynccontextmanager
    async def hold(
        self, pieces: AsyncIterator[bytes], *, limit: int, too_large: CarrelError
    ) -> AsyncIterator[Blob]:
        """All of them as one blob, for as long as the block runs.

        Raises:
            DiskFull: there is no room for it here.
            CarrelError: ``too_large``, if they are more bytes than ``limit``.
        """
        path = self._folder / token_hex(16)
        try:
            try:
                blob = await self._taken(path, pieces, limit, too_large)
            except OSError as error:
                raise failure(f"the folder {self._folder}", error) from error
            yield blob
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(_forget, path)

    async def _taken(
        self, path: Path, pieces: AsyncIterator[bytes], limit: int, too_large: CarrelError
    ) -> Blob:
        held, size, sha = bytearray(), 0, hashlib.sha256()
        async for piece in pieces:
            size += len(piece)
            if size > limit:
                raise too_large
            held += piece
            if len(held) >= HELD_BYTES:
                await run_sync(_append, path, held, sha.update)
                held = bytearray()
        if size < HELD_BYTES:
            sha.update(held)
            return Blob(sha.hexdigest(), size, bytes(held))
        await run_sync(_append, path, held, sha.update)
        await run_sync(_sync, path)
        return Blob(sha.hexdigest(), size, path)


def _append(path: Path, data: bytearray, hashed: Callable[[bytearray], object]) -> None:
    hashed(data)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
