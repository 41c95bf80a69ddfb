"""A folder whose files belong to another uid where it is mounted than on the disk: no file is
touched, however many there are.

It is mount_setattr(2)'s MOUNT_ATTR_IDMAP, on a copy of the mount that has no place in any tree
until a process puts it into one of its own: so nothing of it can be left behind. It needs Linux
5.12, a file system that knows it (ext4, xfs, btrfs) and the right to mount; who lacks one of them
gets an OSError. Only the standard library: supervisors use it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH = -100, 0x100, 0x1000
_NOSUID, _NODEV, _IDMAP = 0x2, 0x4, 0x100000
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18


class _Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def copy(path: str, *, on_disk: int, mounted: int) -> int:
    """A descriptor of ``path`` as a mount in which the files of uid and gid ``on_disk`` belong to
    ``mounted``, and nothing is setuid or a device.

    Raises:
        OSError: the kernel, its file system or our rights do not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_SYMLINK_NOFOLLOW
    tree = _done(libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags))
    try:
        userns = _user_namespace(libc, on_disk, mounted)
        try:
            wanted = _Attributes(set=_IDMAP | _NOSUID | _NODEV, userns=userns)
            size = ctypes.c_size_t(ctypes.sizeof(wanted))
            changed = libc.syscall(
                _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size
            )
            _done(changed)
        finally:
            os.close(userns)
    except BaseException:
        os.close(tree)
        raise
    return tree


def put(tree: int, path: str) -> None:
    """Mount what :func:`copy` made over ``path``, for this process and its children alone.

    Raises:
        OSError: it cannot be.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.unshare(_CLONE_NEWNS))
    _done(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    target = os.fsencode(path)
    _done(libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH))


def _user_namespace(libc: ctypes.CDLL, inside: int, outside: int) -> int:
    """One that maps a single uid and gid: by a child that makes it and then only waits."""
    made, made_end = os.pipe()
    end, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        done = libc.unshare(_CLONE_NEWUSER)
        os.write(made_end, b"0" if done == 0 else str(ctypes.get_errno()).encode())
        os.read(end, 1)  # until our parent is done, or dead
        os._exit(0)
    os.close(made_end)
    os.close(end)
    try:
        failed = int(os.read(made, 16) or b"1")
        if failed:
            raise OSError(failed, os.strerror(failed))
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(f"{inside} {outside} 1\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(hold)
        os.close(made)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
