"""A volume as a tar (POSIX pax), made piece by piece while nobody uses the volume.

Folders, files and links are in it, links as links: nothing behind one is ever read. Devices, pipes
and sockets are left out, and setuid, setgid and sticky bits. Everything belongs to the desktop's
user. A file with several names is in it once.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator

from workspace.backends import trees
from workspace.backends.sandbox import UID

PIECE_BYTES = 256 << 10
_MAX_NAMED_TWICE = 100_000  # remembered at a time; beyond, such files are in it once for each name
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
}
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def tar(home: str) -> Iterator[bytes]:
    """The tar of everything below ``home``, of which nothing may change meanwhile.

    Raises:
        TooDeep: deeper than MAX_DEPTH.
        OSError: something cannot be read, or it did change.
    """
    first_names: dict[int, str] = {}
    for found in trees.walk(home):
        head = _head(found)
        if head is None:
            continue
        if head.type == tarfile.REGTYPE and found.info.st_nlink > 1:
            first = first_names.get(found.info.st_ino)
            if first is not None:
                head.type, head.linkname, head.size = tarfile.LNKTYPE, first, 0
            elif len(first_names) < _MAX_NAMED_TWICE:
                first_names[found.info.st_ino] = found.path
        yield head.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if head.size:
            yield from _content(found, head.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(found: trees.Found) -> tarfile.TarInfo | None:
    kind = _KINDS.get(stat.S_IFMT(found.info.st_mode))
    if kind is None:
        return None
    head = tarfile.TarInfo(found.path)
    head.type = kind
    head.mode = found.info.st_mode & 0o777
    head.mtime = int(found.info.st_mtime)  # a part of a second would take a block of its own
    head.uid = head.gid = UID
    head.uname = head.gname = "user"
    if kind == tarfile.REGTYPE:
        head.size = found.info.st_size
    elif kind == tarfile.SYMTYPE:
        head.linkname = os.readlink(found.name, dir_fd=found.parent)
    return head


def _content(found: trees.Found, size: int) -> Iterator[bytes]:
    fd = _open(found)
    try:
        if not os.path.samestat(os.fstat(fd), found.info):
            raise OSError(f"{found.path} was replaced meanwhile")
        left = size
        while left:
            piece = os.read(fd, min(left, PIECE_BYTES))
            if not piece:
                raise OSError(f"{found.path} was cut meanwhile")
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)
    if rest := size % tarfile.BLOCKSIZE:
        yield bytes(tarfile.BLOCKSIZE - rest)


def _open(found: trees.Found) -> int:
    with contextlib.suppress(PermissionError):
        return os.open(found.name, _FILE, dir_fd=found.parent)
    # Our own, but closed to us, unless we are root: opened for a moment, by its descriptor.
    handle = os.open(found.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.parent)
    path, mode = f"/proc/self/fd/{handle}", stat.S_IMODE(found.info.st_mode)
    try:
        os.chmod(path, mode | 0o400)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.chmod(path, mode)
    finally:
        os.close(handle)
