"""Artifacts' bytes in a folder of this machine: ``ab/cd/abcd...``, for a controller that is alone.

A blob is written in a folder beside them, forced to the disk and then renamed: it is there whole or
not at all, whatever dies in between. What was being written then is removed at the next start.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from anyio.to_thread import run_sync

from controller.artifacts.blobs import PIECE_BYTES, Blob, Found, checked, is_digest
from workspace.errors import ArtifactDamaged, CarrelError, DiskFull, Unavailable
from workspace.folders import private_folder

_NEW = "new"  # no part of a digest
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Folder:
    """A folder of blobs; see :class:`controller.artifacts.blobs.Blobs`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def place(self) -> str:
        return f"the folder {self._root}"

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """
        Raises:
            Unavailable: it cannot be made, or is another user's.
        """
        await run_sync(private_folder, self._root)
        await run_sync(emptied, self._root / _NEW)
        yield

    async def check(self) -> None:
        try:
            await run_sync(os.listdir, self._root)
        except OSError as error:
            raise failure(self.place, error) from error

    async def has(self, digest: str, size: int) -> bool:
        return await run_sync(_is_there, self._path(digest), size)

    async def put(self, blob: Blob) -> None:
        target = self._path(blob.digest)
        try:
            await run_sync(_put, target, blob, self._root / _NEW / secrets.token_hex(16))
        except OSError as error:
            raise failure(self.place, error) from error

    @asynccontextmanager
    async def open(self, digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
        path = self._path(digest)
        try:
            file = await run_sync(path.open, "rb")
        except FileNotFoundError as error:
            raise ArtifactDamaged(f"The bytes {digest} are not in {self.place}.") from error
        except OSError as error:
            raise failure(self.place, error) from error

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while piece := await run_sync(file.read, PIECE_BYTES):
                    yield piece
            except OSError as error:  # a disk that fails
                raise failure(self.place, error) from error

        try:
            yield pieces()
        finally:
            file.close()

    async def remove(self, digest: str) -> None:
        try:
            await run_sync(_remove, self._path(digest))
        except OSError as error:
            raise failure(self.place, error) from error

    async def page(self, after: str, limit: int) -> list[Found]:
        try:
            return await run_sync(_page, self._root, after, limit)
        except OSError as error:
            raise failure(self.place, error) from error

    def _path(self, digest: str) -> Path:
        checked(digest)
        return self._root / digest[:2] / digest[2:4] / digest


def failure(place: str, error: OSError) -> CarrelError:
    """What is told of a disk that refuses."""
    if error.errno in _NO_ROOM:
        return DiskFull(
            f"There is no room in {place}.",
            hint="Remove artifacts (carrel artifacts rm), or give it more: nothing of this one "
            "was kept.",
        )
    return Unavailable(
        f"{place[:1].upper()}{place[1:]} cannot be used: {error.strerror or error}.",
        hint="Whoever runs the controller should look at that folder and its disk.",
    )


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def emptied(folder: Path) -> None:
    """A private folder in which nothing is, of what a killed process left."""
    private_folder(folder)
    for name in os.listdir(folder):
        (folder / name).unlink(missing_ok=True)


def _put(target: Path, blob: Blob, new: Path) -> None:
    if _is_there(target, blob.size):
        return
    try:
        _write(new, blob.source)
        _move(new, target)
    finally:
        new.unlink(missing_ok=True)
    for folder in target.parents[:3]:
        _sync(folder)


def _write(new: Path, source: bytes | Path) -> None:
    if isinstance(source, Path):  # whole, and on its disk
        with suppress(OSError):  # which is another one, or cannot do that
            os.link(source, new)
            return
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if isinstance(source, bytes):
            file.write(source)
        else:
            with source.open("rb") as other:
                shutil.copyfileobj(other, file, PIECE_BYTES)
        file.flush()
        os.fsync(descriptor)


def _move(new: Path, target: Path) -> None:
    for is_last in (False, False, True):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            new.rename(target)
            return
        except FileNotFoundError:  # the last blob of that folder was removed, and so was it
            if is_last:
                raise


def _sync(folder: Path) -> None:
    """Have the names in it on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):
        try:
            folder.rmdir()
        except OSError:  # others are in it
            return


def _page(root: Path, after: str, limit: int) -> list[Found]:
    found: list[Found] = []
    for path in _walk(root, after):
        with suppress(FileNotFoundError):  # removed meanwhile
            status = path.stat()
            at = datetime.fromtimestamp(status.st_mtime, timezone.utc)
            found.append(Found(path.name, status.st_size, at))
        if len(found) >= limit:
            break
    return found


def _walk(root: Path, after: str) -> Iterator[Path]:
    for first in _names(root, after[:2]):
        is_same = first == after[:2]
        for second in _names(root / first, after[2:4] if is_same else ""):
            for name in _names(root / first / second, ""):
                if is_digest(name) and name > after:
                    yield root / first / second / name


def _names(folder: Path, first: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name >= first)
    except (FileNotFoundError, NotADirectoryError):
        return []
