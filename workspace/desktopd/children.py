"""The processes below the daemon: started, read, reaped, and ended with it.

The daemon adopts what its children leave behind (PR_SET_CHILD_SUBREAPER), so that no program of
the desktop, however it detached itself, becomes a zombie or outlives :meth:`Children.end_all`.
Every child has a session and process group of its own. All of it runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_READ_BYTES = 1 << 16
_MAX_DEPTH = 1000


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def forbid_tracing() -> None:
    """Keep this process's memory (the token) from programs of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


class Child:
    """A started program. ``exit_code`` is minus the signal's number when one ended it."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process = process
        self.name = name
        self.pid = process.pid
        self.exit_code: int | None = None
        self.exited = asyncio.Event()

    def signal(self, number: int) -> None:
        """Signal the process group; nothing once the child has been reaped."""
        if self.exit_code is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass  # it is a zombie whose exit is about to be seen

    async def end(self, seconds: float = 5.0) -> None:
        """Kill the group and wait until it is reaped."""
        self.signal(signal.SIGKILL)
        await asyncio.wait_for(self.exited.wait(), seconds)

    def reap(self) -> None:
        code = self._process.poll()
        if code is not None and self.exit_code is None:
            self.exit_code = code
            self.exited.set()


class Children:
    """All child processes. ``adopts`` makes it take and reap orphaned descendants too."""

    def __init__(self, *, adopts: bool) -> None:
        self._known: dict[int, Child] = {}
        self._adopts = adopts
        if adopts:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: str | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        name: str = "",
    ) -> Child:
        """Start a program in a session of its own.

        Raises:
            OSError, ValueError: it could not be started.
        """
        process = subprocess.Popen(
            argv,
            env=dict(environment),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        child = Child(process, name or argv[0])
        self._known[child.pid] = child
        return child

    def _reap(self) -> None:
        if self._adopts:
            while (pid := _next_zombie()) is not None:
                if pid in self._known:
                    self._known.pop(pid).reap()
                else:
                    os.waitpid(pid, os.WNOHANG)
            return
        for child in list(self._known.values()):
            child.reap()
            if child.exit_code is not None:
                del self._known[child.pid]

    async def end_all(self, seconds: float = 5.0) -> None:
        """Kill every descendant and reap it; what is left at the deadline is logged."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pids = list(descendants(os.getpid())) if self._adopts else list(self._known)
            if not pids:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self._reap()
            # A killed process passes its children on to us only when it dies: look again.
            await asyncio.sleep(0.005)
        else:
            logger.error("Processes that would not end: %s", pids)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)


def _next_zombie() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def descendants(root: int) -> Iterator[int]:
    """Every living process below ``root``, the nearest first."""
    below: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(entry)) is not None:
            below.setdefault(parent, []).append(int(entry))
    queue = below.get(root, [])
    while queue:
        yield from queue
        queue = [child for pid in queue for child in below.get(pid, [])]


def is_below(pid: int, root: int) -> bool:
    """Whether a process is ``root``, descends from it, or was left behind in its session."""
    try:
        if os.getsid(pid) == root:
            return True
    except (OSError, OverflowError):
        return False
    above: int | None = pid
    for _ in range(_MAX_DEPTH):  # what is read while processes come and go need not be a tree
        if above is None or above == root:
            break
        above = _parent(str(above))
    return above == root


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # After the program's name, which may hold anything, comes ") S <ppid>".
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return None


def drain(fd: int, sink: Callable[[bytes], None]) -> asyncio.Event:
    """Read a pipe to its end into ``sink``, then close it; the event says when it has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    os.set_blocking(fd, False)

    def read() -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            sink(data)
            return
        loop.remove_reader(fd)
        os.close(fd)
        ended.set()

    loop.add_reader(fd, read)
    return ended


async def write_all(fd: int, data: bytes | memoryview, seconds: float) -> None:
    """Write to a non-blocking pipe or terminal, waiting while it is full.

    Raises:
        asyncio.TimeoutError: it stayed full. OSError: nobody reads it any more.
    """
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            writable = asyncio.Event()
            loop.add_writer(fd, writable.set)
            try:
                await asyncio.wait_for(writable.wait(), seconds)
            finally:
                loop.remove_writer(fd)
