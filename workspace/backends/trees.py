"""Walking what a sandbox made, as root, without ever following a link of its making.

Every directory is opened relative to its parent's descriptor with O_NOFOLLOW, so neither a link
nor a swap while we look leads outside. Depth and memory are bounded whatever the tree is like.
Only the standard library: the supervisor uses it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
MAX_DEPTH = 200
_REMOVE_DEPTH = 64
_LIFTED = ".lifted-"
_BATCH = 256
_NAME_BYTES = 4096  # the least that a name counts: else names without end could hide from the limit


class TooDeep(OSError):
    """Directories are nested deeper than anything that people make."""


def measure(path: str) -> Iterator[int]:
    """Yields bytes on disk, piece by piece, so that the caller can stop to look at other things.

    A file with several names counts in parts that make one. What is open but has no name is for
    :func:`measure_unnamed`. What goes away meanwhile is skipped.

    Raises:
        TooDeep: deeper than MAX_DEPTH, so it cannot be measured.
        OSError: ``path`` itself cannot be read.
    """
    top = os.open(path, _DIRECTORY)
    stack = [(top, os.scandir(top))]
    try:
        while stack:
            fd, entries = stack[-1]
            total, seen, child = 0, 0, None
            for entry in islice(entries, _BATCH):
                seen += 1
                try:
                    info = entry.stat(follow_symlinks=False)
                    is_folder = entry.is_dir(follow_symlinks=False)
                    size = info.st_blocks * 512 // (1 if is_folder else max(1, info.st_nlink))
                    total += max(_NAME_BYTES, size)
                    if is_folder:
                        child = _enter(entry.name, fd)
                        break
                except OSError:
                    continue
            if child is not None:
                stack.append((child, os.scandir(child)))
                if len(stack) > MAX_DEPTH:
                    raise TooDeep(f"{path} is nested deeper than {MAX_DEPTH} directories")
            elif not seen:
                stack.pop()
                entries.close()
                os.close(fd)
            yield total
    finally:
        for fd, entries in stack:
            entries.close()
            os.close(fd)


def _enter(name: str, parent: int) -> int:
    """Open a directory. One that is closed to its owner could hide any amount from us, unless we
    are root: it is made readable, by its descriptor, whatever stands in its place by now.
    """
    if os.geteuid() == 0:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    handle = os.open(name, _DIRECTORY | os.O_PATH, dir_fd=parent)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & 0o500 != 0o500:
            os.chmod(f"/proc/self/fd/{handle}", mode | 0o500)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)


def measure_unnamed(path: str, pids: Iterable[int]) -> Iterator[int]:
    """Yields, like :func:`measure`, the bytes that processes hold on the disk of ``path`` in files
    that they opened or mapped and then removed.

    Links in /proc are asked for the open file itself: no path is followed. Mapped files are seen by
    root only.
    """
    device = os.stat(path).st_dev
    seen: set[int] = set()
    for pid in pids:
        for kind in ("fd", "map_files"):
            try:
                entries = os.scandir(f"/proc/{pid}/{kind}")
            except OSError:  # it ended, or is closed to us
                continue
            with entries:
                while batch := _next(entries):
                    yield sum(_unnamed_size(entry.path, device, seen) for entry in batch)


def _next(entries: Iterator[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    try:
        return list(islice(entries, _BATCH))
    except OSError:  # it ended meanwhile
        return []


def _unnamed_size(link: str, device: int, seen: set[int]) -> int:
    try:
        info = os.stat(link)
    except OSError:
        return 0
    if info.st_dev != device or info.st_nlink > 0 or info.st_ino in seen:
        return 0
    seen.add(info.st_ino)
    return max(_NAME_BYTES, info.st_blocks * 512)


class Found(NamedTuple):
    """What :func:`walk` comes by: an entry of the open directory ``parent``."""

    parent: int
    name: str
    path: str  # from the top
    info: os.stat_result


def walk(path: str) -> Iterator[Found]:
    """Everything below ``path``, folders before what is in them, in a tree that nobody changes.

    Raises:
        TooDeep: deeper than MAX_DEPTH.
        OSError: something cannot be read.
    """
    top = os.open(path, _DIRECTORY)
    stack = [(top, os.scandir(top), "")]
    try:
        while stack:
            fd, entries, prefix = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()
                entries.close()
                os.close(fd)
                continue
            info = entry.stat(follow_symlinks=False)
            found = Found(fd, entry.name, prefix + entry.name, info)
            yield found
            if stat.S_ISDIR(info.st_mode):
                child = _enter(entry.name, fd)
                stack.append((child, os.scandir(child), f"{found.path}/"))
                if len(stack) > MAX_DEPTH:
                    raise TooDeep(f"{path} is nested deeper than {MAX_DEPTH} directories")
    finally:
        for fd, entries, _ in stack:
            entries.close()
            os.close(fd)


def give(path: str, uid: int) -> None:
    """Give everything below ``path``, links as links, to a uid and its gid.

    Raises:
        TooDeep: not all could be given.
    """
    for found in walk(path):
        os.chown(found.name, uid, uid, dir_fd=found.parent, follow_symlinks=False)


def remove(path: str) -> None:
    """Remove a directory and all in it. One already gone is success.

    Raises:
        OSError: something cannot be removed (it is said which).
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _empty(top, top, 0)
    finally:
        os.close(top)
    os.rmdir(path)


def is_lifted(name: str) -> bool:
    """Whether that is what a removal that was broken off has left at the top."""
    return name.startswith(_LIFTED)


def _empty(fd: int, top: int, depth: int) -> None:
    while True:
        with os.scandir(fd) as entries:
            batch = list(islice(entries, _BATCH))
        if not batch:
            return
        for entry in batch:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=fd)
            elif depth < _REMOVE_DEPTH:
                child = _open(entry.name, fd)
                try:
                    _empty(child, top, depth + 1)
                finally:
                    os.close(child)
                os.rmdir(entry.name, dir_fd=fd)
            else:  # however deep it goes: lift it to the top, which is emptied until it is empty
                lifted = f"{_LIFTED}{os.urandom(16).hex()}"
                os.rename(entry.name, lifted, src_dir_fd=fd, dst_dir_fd=top)


def _open(name: str, parent: int) -> int:
    if os.geteuid() != 0:  # our own, but its permissions may say otherwise
        os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)
