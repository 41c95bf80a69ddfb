"""Files of the desktop: listed, streamed in and out, moved, removed.

A file that is written appears only when it is complete: a failed or abandoned upload leaves
nothing. Only regular files are read and written; opening never waits (for a FIFO's other end).
What the operating system refuses comes back as an error of the tree that names the path. Blocking
calls run in threads, so that a slow disk does not stop the daemon.
"""

from __future__ import annotations

import errno
import heapq
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Literal, TypeVar

from workspace.desktopd.programs import from_os_error, resolve
from workspace.desktopd.threads import in_thread
from workspace.errors import (
    DiskFull,
    FileExists,
    FileMissing,
    Forbidden,
    InvalidRequest,
    IsADirectory,
    TooLarge,
)
from workspace.models import FileInfo, FileList

CHUNK_BYTES = 1 << 18
MAX_PAGE = 10_000
# Uploads of a known size below this are not worth counting the home folder for.
_SMALL_BYTES = 1 << 20
_COUNT_SECONDS = 5.0
_MAX_PSEUDO_BYTES = 4 << 20

T = TypeVar("T")


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path) from error


class OpenFile:
    """A regular file open for reading; ``size`` bytes will come. Close it with ``close``."""

    def __init__(self, path: str) -> None:
        self._path = path
        with _told(path):
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        found = os.fstat(self._fd)
        try:
            _check_regular(path, found.st_mode)
            # Files of /proc say they are empty.
            self._start = b"" if found.st_size else self._read(_MAX_PSEUDO_BYTES)
        except BaseException:
            self.close()
            raise
        self.size = found.st_size or len(self._start)

    def _read(self, count: int) -> bytes:
        with _told(self._path):
            data = bytearray()
            while len(data) < count and (
                chunk := os.read(self._fd, min(count - len(data), CHUNK_BYTES))
            ):
                data += chunk
            return bytes(data)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes, ``size`` at most."""
        if self._start:
            yield self._start
            return
        left = self.size
        while left > 0:
            count = min(left, CHUNK_BYTES)
            data = await in_thread(lambda count=count: self._read(count))  # type: ignore[misc]  # mypy: a lambda's default
            if not data:
                return
            left -= len(data)
            yield data

    def close(self) -> None:
        os.close(self._fd)


def _check_regular(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectory(f"{path} is a directory.")
    if not stat.S_ISREG(mode):
        raise InvalidRequest(f"{path} is not a regular file.", hint="Name a file with contents.")


class Files:
    """The desktop's files, seen from ``home``; ``limit_bytes`` bounds what uploads may fill."""

    def __init__(self, home: str, *, limit_bytes: int | None = None) -> None:
        self.home = home
        self._limit_bytes = limit_bytes
        self._counted: tuple[float, int] = (float("-inf"), 0)

    def resolve(self, path: str) -> str:
        return resolve(path, self.home)

    async def open(self, path: str) -> OpenFile:
        """Raises FileMissing, IsADirectory, Forbidden, InvalidRequest (not a regular file)."""
        target = self.resolve(path)
        return await in_thread(lambda: OpenFile(target))

    async def stat(self, path: str) -> FileInfo:
        target = self.resolve(path)
        return await in_thread(lambda: describe(target))

    async def list(self, path: str, *, limit: int, after: str | None) -> FileList:
        """One page of a directory, by name."""
        target = self.resolve(path)
        return await in_thread(lambda: _page(target, min(limit, MAX_PAGE), after))

    async def make_directory(self, path: str) -> FileInfo:
        """Make a directory and its parents; one that is there already is fine."""
        target = self.resolve(path)

        def make() -> FileInfo:
            with _told(target):
                os.makedirs(target, exist_ok=True)
            return describe(target)

        return await in_thread(make)

    async def move(self, source: str, destination: str, *, overwrite: bool) -> FileInfo:
        """Rename or move a file or directory, creating the destination's parents.

        Raises:
            FileExists: something is there and ``overwrite`` is false.
        """
        old, new = self.resolve(source), self.resolve(destination)
        return await in_thread(lambda: _move(old, new, overwrite))

    async def remove(self, path: str, *, recursive: bool) -> None:
        """Remove a file, a link or a directory; one that is not empty only if ``recursive``."""
        target = self.resolve(path)
        await in_thread(lambda: _remove(target, recursive))

    async def write(
        self, path: str, chunks: AsyncIterator[bytes], *, mode: int, length: int | None
    ) -> FileInfo:
        """Write a file whole, from a stream whose ``length`` may be known.

        Raises:
            TooLarge: it is larger than the home folder may ever be. DiskFull: no room now.
        """
        name = self.resolve(path)
        target, free, is_in_home = await in_thread(lambda: _prepare(name, self.home))
        room = await self._left(free, length) if is_in_home else free
        if length is not None and length > room:
            raise DiskFull(f"{length} bytes do not fit: {max(room, 0)} are free.")
        temporary = os.path.join(os.path.dirname(target), f".upload-{secrets.token_hex(8)}")
        with _told(target):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                await _copy(chunks, fd, target, room)
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
            with _told(target):
                os.replace(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return describe(target)

    async def room(self, path: str) -> int:
        """How many bytes a file of the home folder may grow to."""
        name = self.resolve(path)
        _, free, _ = await in_thread(lambda: _prepare(name, self.home))
        return await self._left(free, None)

    async def _left(self, free: int, length: int | None) -> int:
        """How much of ``free`` the home folder's limit leaves."""
        if self._limit_bytes is None:
            return free
        if length is not None and length > self._limit_bytes:
            raise TooLarge(
                f"{length} bytes are more than the home folder's {self._limit_bytes}.",
                hint="Use a template with a larger disk.",
            )
        if length is not None and length <= _SMALL_BYTES:
            return free
        return min(free, self._limit_bytes - await self._usage())

    async def _usage(self) -> int:
        counted_at, usage = self._counted
        if time.monotonic() - counted_at > _COUNT_SECONDS:
            usage = await in_thread(lambda: _disk_usage(self.home))
            self._counted = (time.monotonic(), usage)
        return usage


async def _copy(chunks: AsyncIterator[bytes], fd: int, path: str, room: int) -> None:
    pending = bytearray()

    def flush() -> None:
        view = memoryview(pending)
        with _told(path):
            while view:
                view = view[os.write(fd, view) :]

    async for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise DiskFull(f"{path} does not fit on the disk.")
        pending += chunk
        if len(pending) >= CHUNK_BYTES:
            await in_thread(flush)
            pending = bytearray()
    await in_thread(flush)


def _prepare(path: str, home: str) -> tuple[str, int, bool]:
    """Make the parents of a file to be written; refuse what is not one.

    Returns the file that links lead to, the bytes free on its disk, and whether it is under home.
    """
    with _told(path):
        target, folder = os.path.realpath(path), os.path.dirname(os.path.realpath(path))
        if len(os.fsencode(os.path.basename(target))) > 255:
            raise OSError(errno.ENAMETOOLONG, "")
        _make_folders(folder)
        if os.path.lexists(target):
            _check_regular(target, os.lstat(target).st_mode)
        disk = os.statvfs(folder)
        root = os.path.realpath(home)
    is_in_home = os.path.commonpath([folder, root]) == root
    # A disk of no size (/proc) is none: what may be written there shows when it is tried.
    free = disk.f_bavail * disk.f_frsize if disk.f_blocks else sys.maxsize
    return target, free, is_in_home


def _make_folders(folder: str) -> None:
    """The folder and those above it; NotADirectoryError where one of them is something else."""
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "") from error


def _move(old: str, new: str, overwrite: bool) -> FileInfo:
    with _told(old):
        os.lstat(old)
    with _told(new):
        if os.path.lexists(new) and not overwrite:
            raise FileExists(f"{new} exists.")
        if os.path.commonpath([old, new]) == old != new:
            raise InvalidRequest(f"{old} cannot be moved into itself.")
        _make_folders(os.path.dirname(new))
        try:
            os.replace(old, new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if os.path.isdir(new):
                raise IsADirectory(f"{new} is a directory.") from None
            _move_across(old, new)
    return describe(new)


def _move_across(old: str, new: str) -> None:
    """Copy to another disk, then remove; what cannot be removed is not copied either."""
    if not os.access(os.path.dirname(old), os.W_OK):
        raise Forbidden(f"{old} cannot be moved away: its folder is read-only.")
    mode = os.lstat(old).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        _check_regular(old, mode)
    try:
        shutil.move(old, new)
    except shutil.Error as error:  # of a folder, whose copy is then in part
        if os.path.isdir(new):
            shutil.rmtree(new, ignore_errors=True)
        raise Forbidden(f"Not all of {old} can be moved to another disk.") from error


def _remove(target: str, recursive: bool) -> None:
    with _told(target):
        if not stat.S_ISDIR(os.lstat(target).st_mode):
            os.unlink(target)
        elif recursive:
            shutil.rmtree(target)
        else:
            os.rmdir(target)


def _page(target: str, limit: int, after: str | None) -> FileList:
    with _told(target), os.scandir(target) as entries:
        names = ((shown(entry.name), entry.path) for entry in entries)
        page = heapq.nsmallest(limit + 1, (n for n in names if after is None or n[0] > after))
    found = []
    for _, path in page[:limit]:
        try:
            found.append(describe(path))
        except FileMissing:
            continue  # it was removed meanwhile
    return FileList(entries=found, after=page[limit - 1][0] if len(page) > limit else None)


def describe(path: str) -> FileInfo:
    """A file as it lies there; FileMissing if none does."""
    with _told(path):
        found = os.lstat(path)
    return FileInfo(
        path=shown(path),
        name=shown(os.path.basename(path)) or "/",
        kind=_kind(found.st_mode),
        size=found.st_size,
        mode=f"{stat.S_IMODE(found.st_mode):03o}",
        modified_at=datetime.fromtimestamp(found.st_mtime, timezone.utc),
    )


def _kind(mode: int) -> Literal["file", "directory", "link", "other"]:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def shown(name: str) -> str:
    """A name as text: bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _disk_usage(folder: str) -> int:
    """The bytes that a folder's files occupy."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except OSError:
                continue  # removed meanwhile
    return total
