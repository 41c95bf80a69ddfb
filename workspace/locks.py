"""Locks that the kernel lets go of when their holder dies: flock on a file that may be removed.

Whoever is done removes the file while it still holds it, so that nothing is left. A file that was
opened just before is then nobody's lock any more: that is looked at after it is locked. Only the
standard library: supervisors use it.
"""

from __future__ import annotations

import fcntl
import os


def take(path: str | os.PathLike[str]) -> int | None:
    """A descriptor that holds the lock as long as it is open; None if another has it.

    None too in the moment in which its last holder removes it.

    Raises:
        OSError: the file cannot be made; FileNotFoundError: its folder is gone.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.lstat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None
