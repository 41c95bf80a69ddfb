"""Volumes: homes that outlive the sandboxes they are mounted in, one sandbox at a time.

A volume is a folder that only we can enter, with ``home``, which a sandbox sees as its home, and
``lock``. Who uses it, be it for a desktop, a copy or its removal, holds an flock on that file: the
kernel lets go of it when the holder dies, however that happens. If that was a supervisor, what it
left of its sandbox is ended before the volume is anybody's again: the lock's text says which.

Each desktop runs under a uid of its own, so a volume's files must belong to another one each time.
On the disk they all belong to one that nothing ever runs under, and each mount shows them as the
desktop's (:mod:`workspace.backends.idmap`): nothing is written, however large the volume. Where the
kernel cannot do that, the tree is given to the desktop's uid before it starts. The top folder is
given last, so that its owner says whose the whole tree is, also after a crash in between. A uid
reserved for each volume would need neither, but containers have too few of them, and two homes of
Carrel on one machine would have to agree. Not as root all is the same user's.

Nothing here follows a link or opens what a running sandbox can change. Setuid files and devices in
a volume do nothing: every mount of it is nosuid and nodev. Only the standard library: supervisors
use it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from typing import TypedDict

from workspace import locks
from workspace.backends import idmap, remains, trees, uids

HOME, LOCK = "home", "lock"
WAIT_SECONDS = 10.0  # for a holder that is just ending
_POLL_SECONDS = 0.02


class Volume(TypedDict):
    """A volume's folder; ``is_new``: it was never used, so it need not be there."""

    folder: str
    is_new: bool


class Busy(OSError):
    """Another holds it."""


class Missing(OSError):
    """There is no such volume on this machine."""


def make(folder: str) -> None:
    """Make an empty volume, unless it is there."""
    for path in (folder, f"{folder}/{HOME}"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


@contextlib.contextmanager
def held(folder: str, by: str, *, sandbox: str = "", seconds: float = 0.0) -> Iterator[str]:
    """Hold a volume alone for the block; its home. ``by`` is what others are told.

    Raises:
        Busy: another holds it, after that many seconds still.
        Missing.
    """
    lock = _take(folder, seconds)
    try:
        _end_last(lock)
        os.pwrite(lock, json.dumps({"by": by, "sandbox": sandbox}).encode(), 0)
        home = f"{folder}/{HOME}"
        with contextlib.suppress(FileNotFoundError):  # half removed
            os.chmod(home, stat.S_IMODE(os.lstat(home).st_mode) | 0o700)  # it may close itself
        yield home
        os.ftruncate(lock, 0)  # after a failure it goes on naming what may be left
    finally:
        os.close(lock)


def _take(folder: str, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    path = f"{folder}/{LOCK}"
    while True:
        try:
            if (lock := locks.take(path)) is not None:
                return lock
        except FileNotFoundError:
            raise Missing(f"there is no volume in {folder}") from None
        if time.monotonic() > deadline:
            by = _said(path).get("by", "another")
            raise Busy(f"the volume is in use by {by}")
        time.sleep(_POLL_SECONDS)


def _said(path: str | int) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", closefd=not isinstance(path, int)) as file:
            said = json.loads(file.read(4096))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _end_last(lock: int) -> None:
    """See to it that nothing of the sandbox still runs whose supervisor was killed."""
    sandbox = _said(lock).get("sandbox", "")
    state = remains.load(sandbox) if sandbox else None
    if state is not None and not remains.end(state):
        raise Busy("something of the desktop that had the volume last does not die")
    os.ftruncate(lock, 0)


def attach(folder: str, uid: int) -> int | None:
    """Let a desktop of that uid have a held volume: what to mount over its home, if anything.

    Raises:
        OSError: it cannot be given to that uid.
    """
    home = f"{folder}/{HOME}"
    if os.geteuid() != 0:
        return None
    # Nobody but the desktop passes through: what its home lets others do is its own choice.
    os.chown(folder, -1, uid)
    os.chmod(folder, 0o710)
    resting = uids.resting()
    try:
        tree = idmap.copy(home, on_disk=resting, mounted=uid)
    except OSError:
        _give(home, uid)
        return None
    _give(home, resting)  # if it was given to a desktop before, or is new
    return tree


def give(folder: str, uid: int) -> None:
    """Let what runs under that uid have a held volume as it is: for who cannot mount it otherwise.

    Raises:
        OSError: it cannot be given to that uid.
    """
    _give(f"{folder}/{HOME}", uid)


def detach(folder: str) -> None:
    """Close a volume to the desktop that had it."""
    os.chmod(folder, 0o700)
    if os.geteuid() == 0:
        os.chown(folder, -1, 0)


def _give(home: str, uid: int) -> None:
    if os.lstat(home).st_uid != uid:
        trees.give(home, uid)
        os.chown(home, uid, uid, follow_symlinks=False)


def measure(folder: str) -> int:
    """The bytes of a volume that nobody uses.

    Raises:
        TooDeep.
    """
    return sum(trees.measure(f"{folder}/{HOME}"))


def remove(folder: str) -> None:
    """Remove a volume and all in it. One that is gone is success.

    Raises:
        Busy: another holds it.
        OSError: something of it cannot be removed; again goes on with it.
    """
    try:
        with held(folder, "its removal", seconds=WAIT_SECONDS):
            trees.remove(f"{folder}/{HOME}")
            os.unlink(f"{folder}/{LOCK}")
            os.rmdir(folder)
    except Missing:
        pass
