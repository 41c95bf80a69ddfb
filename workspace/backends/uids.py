"""A host uid of each desktop's own, when Carrel runs as root.

Two desktops on a machine never share a uid at a time, whichever Carrel started them: a uid is held
by an flock on a file in a machine-wide folder that only root can enter, for the supervisor's life.
A uid under which something still runs (its supervisor was killed) is passed over; the file that a
killed supervisor leaves is removed by whoever stops its sandbox, and by whoever claims next. Not as
root a desktop runs as the user who started it. Only the standard library.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from workspace import locks

LOCKS = "/run/carrel/uids"
SLOTS = 10_000
# Above what people and packages are given; the second is for a container that maps only 65536.
_BASES = (2_000_000, 40_000)


class NoUid(OSError):
    """There is no unprivileged uid to run a desktop under."""


def base(uid_map: str) -> int:
    """The first uid for desktops that the user namespace of this /proc/self/uid_map has.

    Raises:
        NoUid: it maps too few.
    """
    ranges = [[int(word) for word in line.split()] for line in uid_map.splitlines()]
    for first in _BASES:
        if any(start <= first and first + SLOTS < start + size for start, _, size in ranges):
            return first
    raise NoUid("this user namespace maps too few uids to give each desktop its own")


def resting() -> int:
    """Whose the files of volumes are on the disk: a uid that nothing ever runs under.

    Raises:
        NoUid.
    """
    return _first() + SLOTS


def _first() -> int:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return base(file.read())


@contextlib.contextmanager
def claim(folder: str = LOCKS) -> Iterator[int]:
    """Hold a uid that no other desktop has.

    Raises:
        NoUid: none is to be had.
    """
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    first = _first()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    sweep(folder)
    busy = _uids_in_use()
    for uid in range(first, first + SLOTS):
        if uid in busy:
            continue
        path = f"{folder}/{uid}"
        lock = locks.take(path)
        if lock is None:
            continue
        try:
            yield uid
        finally:
            _let_go(path, lock)
        return
    raise NoUid(f"all {SLOTS} uids for desktops are in use")


def sweep(folder: str = LOCKS) -> None:
    """Remove the files of supervisors that were killed: the kernel let go of their locks."""
    try:
        names = os.listdir(folder)
    except OSError:  # there is none, or it is root's
        return
    for name in names:
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):
            lock = locks.take(path)
            if lock is not None:
                _let_go(path, lock)


def _let_go(path: str, lock: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # while it is locked: who opened it before finds it gone
    os.close(lock)


def _uids_in_use() -> set[int]:
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(entry.stat().st_uid)
    return found
