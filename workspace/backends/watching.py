"""What every supervisor of a sandbox does: it watches its owner, the desktop and the disk.

A supervisor is a small process, run as a script by the system's Python with nothing but the
standard library (:mod:`.supervisor` for bubblewrap, :mod:`.containers.supervisor` for containers).
It is given a descriptor with its spec. Its standard input is a pipe whose other end only the
sandbox's owner has: when that closes, however the owner died, the sandbox ends. Its standard output
carries status lines, one JSON object each: ``ready``, ``failed``, ``notice``, ``ended``. Text from
the sandbox in them is cut and never interpreted.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TypedDict

from workspace.backends import disk, remains, uids, volumes

BACKLOG = 128
_NOTHING_DUE_SECONDS = 3600.0
_MAX_READY_BYTES = 64 << 10
_MAX_LOG_BYTES = 1 << 20
_TAIL_BYTES = 4 << 10


class Common(TypedDict):
    """What every spec says."""

    id: str
    folder: str
    disk: str
    volume: volumes.Volume | None  # in place of a home of its own
    config: str
    disk_mib: int
    ready_seconds: float
    egress: int  # a socket that the sandbox sends one out by


class Ended(Exception):
    """Why there is no sandbox any more, or never was one: what its owner is told."""

    def __init__(self, message: str, *, code: str = "start_failed", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.hint = message, code, hint


class Log:
    """A file that keeps the last of what was written, however much that was."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk: the log is the least of it
            os.write(self._fd, data)
            if os.fstat(self._fd).st_size > _MAX_LOG_BYTES:
                kept = self.tail(_MAX_LOG_BYTES // 4)
                os.ftruncate(self._fd, 0)
                os.write(self._fd, kept)

    def tail(self, count: int = _TAIL_BYTES) -> bytes:
        return os.pread(self._fd, count, max(0, os.fstat(self._fd).st_size - count))


class Watch(abc.ABC):
    """One sandbox, from when its owner wants it to its end."""

    def __init__(self, spec: Common, wake: int, state: remains.State) -> None:
        self.common = spec
        self.state = state
        self.is_ready = False
        self.log = Log(f"{spec['folder']}/{remains.LOG}")
        self.check: disk.Check | None = None
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._buffers: dict[int, bytearray] = {}
        self._ready_by = time.monotonic() + spec["ready_seconds"]
        self.on(0, self._owner_spoke)
        self.on(wake, lambda: self._signalled(wake))
        self.save()

    def run(self) -> None:
        """Make it and watch it. Only ever ends with an exception.

        Raises:
            Ended: it is over.
            OSError: the machine refused something.
        """
        with contextlib.ExitStack() as holding:
            try:
                self.make(holding)
                while True:
                    self._turn()
            except BaseException:
                self.kill()  # while what it uses is still held
                raise

    @abc.abstractmethod
    def make(self, holding: contextlib.ExitStack) -> None:
        """Start it, and say by :meth:`on` what is to be watched."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End all that runs in it."""

    def remove(self) -> None:
        """Remove all that was made, once everything is dead.

        Raises:
            OSError: something cannot be removed.
        """
        remains.remove(self.common["folder"], self.common["disk"], self.state)

    def measure(self, home: str) -> None:
        """Hold its home to its limit from now on."""
        self.check = disk.Check(
            home,
            self.common["disk_mib"] << 20,
            lambda: remains.descendants(self.state["init"]),
            is_used=self.common["volume"] is not None,
        )

    def hold(self, volume: volumes.Volume, holding: contextlib.ExitStack) -> str:
        """Have a volume for as long as ``holding``; the folder that is the home."""
        folder, who = volume["folder"], f"workspace {self.common['id']}"
        if volume["is_new"]:
            volumes.make(folder)
        home = holding.enter_context(
            volumes.held(folder, who, sandbox=self.common["folder"], seconds=volumes.WAIT_SECONDS)
        )
        holding.callback(volumes.detach, folder)
        return home

    def tell(self, event: str, **more: str) -> None:
        """A status line, to the owner and into the log."""
        line = json.dumps({"event": event, **more}) + "\n"
        with contextlib.suppress(OSError):  # nobody listens, or not fast enough
            os.write(1, line.encode())
        self.log.write(f"carrel: {event} {more.get('message', '')}\n".encode())

    def desktop_spoke(self, fd: int) -> None:
        """On the pipe by which the daemon says how the start went."""
        line = self.line(fd, b"\n")
        if line is None:
            return
        try:
            word = json.loads(line)
        except (ValueError, RecursionError):
            word = None
        if isinstance(word, dict) and word.get("ready") is True:
            self.is_ready = True
            self.tell("ready")
            return
        error = word.get("error") if isinstance(word, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        raise Ended(f"the desktop's daemon says: {str(message or line[:500])[:2000]}")

    def line(self, fd: int, end: bytes) -> bytes | None:
        """What is awaited on a pipe, once it is whole; the pipe is closed then."""
        buffer = self._buffers.setdefault(fd, bytearray())
        data = os.read(fd, _MAX_READY_BYTES)
        buffer += data
        if data and end not in data and len(buffer) < _MAX_READY_BYTES:
            return None
        self.drop(fd)
        return bytes(buffer) or None

    def on(self, fd: int, handler: Callable[[], None]) -> None:
        """Have ``handler`` called when there is something to read."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Watch it no longer."""
        del self._handlers[fd]
        self._poll.unregister(fd)

    def drop(self, fd: int) -> None:
        self.forget(fd)
        os.close(fd)

    def save(self) -> None:
        remains.save(self.common["folder"], self.state)

    def _turn(self) -> None:
        """Wait for the next thing to happen, and see to it."""
        now = time.monotonic()
        due = self.check.next_at if self.check else now + _NOTHING_DUE_SECONDS
        until = due if self.is_ready else min(due, self._ready_by)
        for fd, _ in self._poll.poll(max(0.0, until - now) * 1000):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        now = time.monotonic()
        if not self.is_ready and now > self._ready_by:
            raise Ended(f"the desktop was not ready within {self.common['ready_seconds']:.0f} s")
        if self.check is not None and now >= self.check.next_at:
            self._check_disk(self.check)

    def _check_disk(self, check: disk.Check) -> None:
        verdict = check.step()
        if verdict is None:
            return
        with contextlib.suppress(OSError):  # a full disk: the desktop need not die of it
            remains.write_whole(f"{self.common['folder']}/{remains.DISK_USE}", str(check.used))
        over = f"the home folder holds more than its {self.common['disk_mib']} MiB"
        if verdict == "end":
            raise Ended(f"{over} and kept growing")
        if verdict == "kill":
            count = remains.kill_programs(self.state)
            self.tell("notice", message=f"{over}: {count} programs were killed")

    def _owner_spoke(self) -> None:
        if not os.read(0, 4096):
            raise Ended("its owner went away or let it go")

    def _signalled(self, wake: int) -> None:
        raise Ended(f"it was ended by {signal.Signals(os.read(wake, 1)[0]).name}")


def main(
    new: Callable[[Any, int], Watch],  # Any: its own spec
) -> int:
    """Run the spec; 0 if the sandbox came up and everything of it is removed."""
    wake = _take_signals()
    _settle()
    with open(int(sys.argv[1]), encoding="utf-8") as file:
        spec = json.load(file)
    supervisor = new(spec, wake)
    try:
        supervisor.run()
    except Ended as ended:
        why = ended
    except uids.NoUid as error:
        why = Ended(str(error), code="backend_unavailable")
    except volumes.Busy as error:
        why = Ended(str(error), code="volume_in_use")
    except OSError as error:
        code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "start_failed"
        why = Ended(f"the host refused: {error}", code=code)
    except Exception as error:  # whatever it is, its owner is told and all of it is removed
        traceback.print_exc()  # into the log
        why = Ended(f"its supervisor failed: {error!r}")
    log = supervisor.log.tail().decode(errors="replace")
    event = "ended" if supervisor.is_ready else "failed"
    supervisor.tell(event, message=why.message, code=why.code, hint=why.hint, log=log)
    try:
        supervisor.remove()
    except OSError as error:
        supervisor.log.write(f"carrel: cannot remove everything: {error}\n".encode())
        return 1
    return 0 if supervisor.is_ready else 1


def _take_signals() -> int:
    """A descriptor on which every signal to end becomes a byte."""
    wake, end = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return wake


def _settle() -> None:
    """A session of our own, and none of what the owner is run with (Ray's nice and oom score)."""
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    os.set_blocking(1, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    with contextlib.suppress(OSError):  # only root may become more important again
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")
