"""From the supervisor to bubblewrap: fork, give up every right, exec.

The child keeps only the descriptors that bubblewrap and the daemon are meant to have, at fixed
numbers: any other, above all one of a directory, would be a way out of the sandbox. Only the
standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from workspace.backends import cgroups

LISTEN_FD, CONFIG_FD, READY_FD, SECCOMP_FD, INFO_FD, ARGUMENTS_FD, FIRST_DATA_FD = range(10, 17)
EGRESS_FD = 9
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_MAX_FILES = (8192, 65_536)
_HIGH_FD = 200  # above every fixed number


class Child(NamedTuple):
    """bubblewrap's pid and our ends of its pipes."""

    pid: int
    log: int
    ready: int
    info: int


def bubblewrap(
    argv: list[str],
    *,
    uid: int,
    group: cgroups.Group,
    limits: cgroups.Limits,
    file_bytes: int,
    listener: int,
    egress: int,
    config: str,
    seccomp: bytes,
    data: Sequence[str],
    mount: Callable[[], None] | None = None,
) -> Child:
    """Start bubblewrap under ``uid`` in ``group``; it dies when this process does.

    ``mount`` is done in the child, while it still has every right.

    Raises:
        OSError: no process or descriptor is to be had.
    """
    log, log_end = os.pipe()
    ready, ready_end = os.pipe()
    info, info_end = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    files = [memory_file(text.encode()) for text in (config, *data)]
    files.append(memory_file(seccomp))
    numbers = {0: null, 1: log_end, 2: log_end}
    numbers |= {LISTEN_FD: listener, CONFIG_FD: files[0], READY_FD: ready_end}
    numbers |= {SECCOMP_FD: files[-1], INFO_FD: info_end, EGRESS_FD: egress}
    numbers |= {ARGUMENTS_FD + index: fd for index, fd in enumerate(files[1:-1])}
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        try:
            os.umask(0o022)
            cgroups.join(group)
            if mount is not None:
                mount()
            _limit(uid, limits["pids"], file_bytes, is_counted=group["kind"] != "none")
            _arrange(numbers)
            _become(uid, parent, libc)
            os.execve(argv[0], argv, os.environ)
        except BaseException as error:
            os.write(2, f"carrel: cannot start {argv[0]}: {error}\n".encode())
            os._exit(127)
    for fd in (log_end, ready_end, info_end, null, *files):
        os.close(fd)
    return Child(pid, log, ready, info)


def _limit(uid: int, pids: int, file_bytes: int, *, is_counted: bool) -> None:
    """Limits per process, and per uid as a net under the control group's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, most = (min(value, hard) if hard >= 0 else value for value in _MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    own = os.geteuid() == 0  # the uid is the desktop's alone
    if own or not is_counted:
        most = pids + 16 + (0 if own else _tasks_of(uid))
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = min(most, hard) if hard >= 0 else most
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _become(uid: int, parent: int, libc: ctypes.CDLL) -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    # After the change of uid, which clears it.
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the parent's death signal")
    if os.getppid() != parent:  # it died before that took effect
        os._exit(127)


def _arrange(numbers: Mapping[int, int]) -> None:
    """Give every descriptor its number, and close all others."""
    high = {
        number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for number, fd in numbers.items()
    }
    for number, fd in high.items():
        os.dup2(fd, number, inheritable=True)
    last = max(numbers)
    for number in set(range(3, last)) - set(numbers):
        try:
            os.close(number)
        except OSError:
            pass
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def memory_file(content: bytes) -> int:
    """A descriptor to read ``content`` from, that has no path."""
    fd = os.memfd_create("carrel", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _tasks_of(uid: int) -> int:
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid:
                    count += len(os.listdir(f"/proc/{entry.name}/task"))
            except OSError:
                continue
    return count
