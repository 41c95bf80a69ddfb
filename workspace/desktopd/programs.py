"""How the desktop's user starts programs: environment, working folder, and errors one can act on.

User programs raise their own oom score before they run, so that the kernel ends one of them before
it ends the X server or the daemon. The shell in between does that because the daemon, whose memory
nobody may read, cannot write its children's /proc files.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence

from workspace.desktopd.children import Child, Children
from workspace.errors import (
    CarrelError,
    Conflict,
    DiskFull,
    FileExists,
    FileMissing,
    Forbidden,
    InvalidRequest,
    IsADirectory,
    NoCapacity,
    NotADirectory,
    TooLarge,
    Unsupported,
)

# $0 is the oom score; a terminal's device, if given, becomes the controlling terminal when opened.
_WITH_SCORE = '{ echo "$0" >/proc/self/oom_score_adj; } 2>/dev/null; exec "$@"'
_ON_TERMINAL = (
    '{ echo "$0" >/proc/self/oom_score_adj; } 2>/dev/null; exec <>"$1" >&0 2>&0; shift; exec "$@"'
)

_BY_ERRNO: Mapping[int, type[CarrelError]] = {
    errno.ENOENT: FileMissing,
    errno.EISDIR: IsADirectory,
    errno.ENOTDIR: NotADirectory,
    errno.EEXIST: FileExists,
    errno.ENOTEMPTY: Conflict,
    errno.EBUSY: Conflict,
    errno.EACCES: Forbidden,
    errno.EPERM: Forbidden,
    errno.EROFS: Forbidden,
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EFBIG: TooLarge,
    errno.E2BIG: TooLarge,
    errno.ENAMETOOLONG: InvalidRequest,
    errno.EINVAL: InvalidRequest,
    errno.ELOOP: InvalidRequest,
    errno.ENXIO: InvalidRequest,
    errno.EAGAIN: NoCapacity,
    errno.ENOMEM: NoCapacity,
    errno.EMFILE: NoCapacity,
    errno.ENFILE: NoCapacity,
}
_HINTS: Mapping[int, str] = {
    errno.E2BIG: "Write it to a file, and run or read that.",
    errno.ENOTEMPTY: "Remove what is in it first, or ask for recursive=true.",
    errno.EAGAIN: "The desktop has too many processes: end some of them.",
    errno.ENOMEM: "The desktop has no memory left: end some of its programs.",
    errno.EACCES: "The desktop's user has no right to it; under /home/user it has.",
    errno.EPERM: "The desktop's user has no right to it; under /home/user it has.",
    errno.EROFS: "That part of the desktop is read-only; /home/user and /tmp are not.",
}


def from_os_error(error: OSError, what: str) -> CarrelError:
    """The error of the tree for what the operating system said of ``what``."""
    code = error.errno or 0
    cls = _BY_ERRNO.get(code, Unsupported)
    said = os.strerror(code).lower() if code else str(error)
    return cls(f"{what}: {said}.", hint=_HINTS.get(code))


def resolve(path: str, home: str) -> str:
    """An absolute path: relative ones start in ``home``, and so does ``~``."""
    if "\0" in path:
        raise InvalidRequest("A path cannot hold a NUL byte.")
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return os.path.normpath(os.path.join(home, path))


class Programs:
    """Starts programs as the desktop's user would. ``environment`` may be changed at any time."""

    def __init__(
        self, children: Children, environment: Mapping[str, str], *, oom_score_adj: int
    ) -> None:
        self._children = children
        self._oom_score_adj = str(oom_score_adj)
        self.environment = dict(environment)
        self.home = self.environment["HOME"]

    def extend_environment(self, changes: Mapping[str, str]) -> None:
        """Variables for every program started from now on."""
        self.environment |= changes

    def start(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        terminal: str | None = None,
    ) -> Child:
        """Start a command: text runs in bash, a list as it stands.

        Raises:
            FileMissing, NotADirectory, Forbidden: the working folder is not one.
            InvalidRequest, TooLarge: the kernel takes no such arguments.
            NoCapacity: the desktop has too many processes.
        """
        argv = ["/bin/bash", "-c", command] if isinstance(command, str) else list(command)
        script = _WITH_SCORE if terminal is None else _ON_TERMINAL
        tty = [] if terminal is None else [terminal]
        folder = self.home if cwd is None else resolve(cwd, self.home)
        try:
            return self._children.spawn(
                ["/bin/sh", "-c", script, self._oom_score_adj, *tty, *argv],
                environment=self.environment | dict(environment or {}),
                cwd=folder,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                name=argv[0] if not isinstance(command, str) else command[:80],
            )
        except OSError as error:
            about_folder = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
            what = f"The working folder {folder}" if about_folder else "The command"
            raise from_os_error(error, what) from error
        except ValueError as error:
            raise InvalidRequest("A command or variable cannot hold a NUL byte.") from error
