"""Private folders and files: 0700 and 0600, whatever the umask says, made once.

A folder that belongs to somebody else is refused: in /tmp anybody could have made it first.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workspace import locks
from workspace.errors import Conflict, Unavailable


def private_folder(path: Path) -> Path:
    """Make ``path`` a folder of this user's own, mode 0700.

    Raises:
        Unavailable: it cannot be made, or is another user's.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(path)
        if path.lstat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise Unavailable(
            f"The folder {path} cannot be used: {error.strerror}.",
            hint="Set CARREL_HOME (and CARREL_RUN_DIR) to folders that you may write.",
        ) from error
    return path


def check_own(path: Path) -> None:
    """Refuse a folder that others may have made or share: what we put there would be theirs.

    Raises:
        Unavailable: it is a link, another user's, or shared by all (/tmp).
        OSError: it is not there.
    """
    status = path.lstat()
    is_shared = status.st_mode & stat.S_ISVTX
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or is_shared:
        raise Unavailable(
            f"{path} is not a folder of this user's own.", hint="Remove it, or name another."
        )


def private_file(path: Path, make: str | None = None) -> str:
    """The text of ``path``; the first call fills it with ``make`` or 32 random letters, 0600."""
    private_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write((make or secrets.token_urlsafe(32)) + "\n")
        try:
            os.link(partial, path)  # the first one wins, and nobody sees half of it
        except FileExistsError:
            pass
        finally:
            partial.unlink()
        text = path.read_text().strip()
    if not text:
        raise Unavailable(f"{path} is empty.", hint="Remove it; a new one is made at start.")
    return text


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold ``lock`` for as long as the block runs; the kernel lets go of it when we die.

    Raises:
        Conflict: another process holds it.
    """
    descriptor = _take(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):  # others may still use the folder
            lock.parent.rmdir()


def _take(lock: Path) -> int:
    while True:
        private_folder(lock.parent)
        try:
            if (descriptor := locks.take(lock)) is not None:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
            holder = lock.read_text(errors="replace").strip() or "unknown"
        except FileNotFoundError:
            continue  # its last holder removed it, or the folder, in between
        raise Conflict(
            f"Another controller (process {holder}) already serves this home.",
            hint="Use it, end it with `carrel down`, or set another CARREL_HOME.",
        )
