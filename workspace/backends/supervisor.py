"""The supervisor: one small process per sandbox that makes it, watches it and removes it.

It is run as a script by the system's Python (``/usr/bin/python3 -I -S supervisor.py FD``), with
nothing but the standard library and an empty environment. FD holds a :class:`Spec`. Its standard
input is a pipe whose other end only the sandbox's owner has: when that closes, however the owner
died, the sandbox ends. Its standard output carries status lines, one JSON object each: ``ready``,
``failed``, ``notice``, ``ended``. Text from the sandbox in them is cut and never interpreted.

The sandbox ends too when bubblewrap does, on SIGTERM, SIGINT and SIGHUP, and when it keeps
overrunning its disk; each time everything in it is killed first and then removed. If the
supervisor itself is killed, the kernel kills bubblewrap (PR_SET_PDEATHSIG), its first process
goes with it (``--die-with-parent``), and with that the whole pid namespace; what is left on the
disk then waits for ``stop``.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import TypedDict

if __name__ == "__main__":  # at the end of the path, so that nothing there hides the library
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from workspace.backends import cgroups, disk, idmap, launch, remains, uids, volumes

_BACKLOG = 128
_MAX_READY_BYTES = 64 << 10
_MAX_LOG_BYTES = 1 << 20
_LAST_READS = 64
_TAIL_BYTES = 4 << 10


class Spec(TypedDict):
    """What to make. ``parents`` says where to make its control group."""

    id: str
    folder: str
    disk: str
    volume: volumes.Volume | None  # in place of a home of its own
    argv: list[str]
    data: list[str]
    config: str
    seccomp: str
    parents: cgroups.Group
    limits: cgroups.Limits
    weight: int
    disk_mib: int
    ready_seconds: float
    egress: int  # a socket that the sandbox sends one out by


class Ended(Exception):
    """Why there is no sandbox any more, or never was one: what its owner is told."""

    def __init__(self, message: str, *, code: str = "start_failed") -> None:
        super().__init__(message)
        self.message, self.code = message, code


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


class Supervisor:
    """Makes the sandbox of a spec and watches it until it ends."""

    def __init__(self, spec: Spec, wake: int) -> None:
        self.spec = spec
        self.is_ready = False
        self.log = Log(f"{spec['folder']}/{remains.LOG}")
        me = remains.process(os.getpid())
        assert me is not None, "a process sees itself in /proc"
        self.state: remains.State = {
            "supervisor": me,
            "bwrap": None,
            "init": None,
            "uid": -1,
            "group": cgroups.planned(spec["parents"], f"carrel-{spec['id']}"),
            "disk": spec["disk"],
        }
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._buffers: dict[int, bytearray] = {}
        self._check: disk.Check | None = None
        self._ready_by = time.monotonic() + spec["ready_seconds"]
        self._watch(0, self._owner_spoke)
        self._watch(wake, lambda: self._signalled(wake))
        self._save()

    def run(self) -> None:
        """Make it and watch it. Only ever ends with an exception.

        Raises:
            Ended: it is over.
            OSError: the machine refused something.
        """
        with uids.claim() as uid, contextlib.ExitStack() as holding:
            try:
                self._make(uid, holding)
                while True:
                    self._turn()
            except BaseException:
                self._remove()  # while the uid and the volume are still held
                raise

    def tell(self, event: str, **more: str) -> None:
        line = json.dumps({"event": event, **more}) + "\n"
        with contextlib.suppress(OSError):  # nobody listens, or not fast enough
            os.write(1, line.encode())
        self.log.write(f"carrel: {event} {more.get('message', '')}\n".encode())

    def _make(self, uid: int, holding: contextlib.ExitStack) -> None:
        spec, state = self.spec, self.state
        state["uid"] = uid
        self._save()
        cgroups.create(state["group"], spec["limits"])
        cgroups.set_weight(state["group"], spec["weight"])
        if spec["parents"]["kind"] == "none":
            self.tell("notice", message="no control groups here: memory and processor unlimited")
        home, mount = self._make_home(uid, holding)
        self._check = disk.Check(
            home,
            spec["disk_mib"] << 20,
            lambda: remains.descendants(self.state["init"]),
            is_used=spec["volume"] is not None,
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            path = f"{spec['folder']}/{remains.SOCKET}"
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
            child = launch.bubblewrap(
                spec["argv"],
                uid=uid,
                group=state["group"],
                limits=spec["limits"],
                file_bytes=spec["disk_mib"] << 20,
                listener=listener.fileno(),
                egress=spec["egress"],
                config=spec["config"],
                seccomp=base64.b64decode(spec["seccomp"]),
                data=spec["data"],
                mount=mount,
            )
        os.close(spec["egress"])
        state["bwrap"] = remains.process(child.pid)
        self._save()
        exited = os.pidfd_open(child.pid)
        self._watch(exited, lambda: self._bwrap_ended(child, exited))
        self._watch(child.log, lambda: self._logged(child.log))
        self._watch(child.ready, lambda: self._desktop_spoke(child.ready))
        self._watch(child.info, lambda: self._namespaces_made(child.info, child.pid))

    def _make_home(
        self, uid: int, holding: contextlib.ExitStack
    ) -> tuple[str, Callable[[], None] | None]:
        """The folder that is the desktop's home, and what is to be mounted over it."""
        spec = self.spec
        os.mkdir(spec["disk"], 0o700)
        if (volume := spec["volume"]) is not None:
            return self._hold(volume, uid, holding)
        home = f"{spec['disk']}/home"
        os.mkdir(home, 0o700)
        if os.geteuid() == 0:
            # Nobody but the desktop passes through: what its home lets others do is its own choice.
            os.chown(spec["disk"], -1, uid)
            os.chmod(spec["disk"], 0o710)
            os.chown(home, uid, uid)
        return home, None

    def _hold(
        self, volume: volumes.Volume, uid: int, holding: contextlib.ExitStack
    ) -> tuple[str, Callable[[], None] | None]:
        folder, who = volume["folder"], f"workspace {self.spec['id']}"
        if volume["is_new"]:
            volumes.make(folder)
        home = holding.enter_context(
            volumes.held(folder, who, sandbox=self.spec["folder"], seconds=volumes.WAIT_SECONDS)
        )
        holding.callback(volumes.detach, folder)
        tree = volumes.attach(folder, uid)
        if tree is None:
            return home, None
        holding.callback(os.close, tree)
        return home, lambda: idmap.put(tree, home)

    def _turn(self) -> None:
        """Wait for the next thing to happen, and see to it."""
        now = time.monotonic()
        due = self._check.next_at if self._check else now
        until = due if self.is_ready else min(due, self._ready_by)
        for fd, _ in self._poll.poll(max(0.0, until - now) * 1000):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        now = time.monotonic()
        if not self.is_ready and now > self._ready_by:
            raise Ended(f"the desktop was not ready within {self.spec['ready_seconds']:.0f} s")
        if self._check is not None and now >= self._check.next_at:
            self._check_disk(self._check)

    def _check_disk(self, check: disk.Check) -> None:
        verdict = check.step()
        if verdict is None:
            return
        with contextlib.suppress(OSError):  # a full disk: the desktop need not die of it
            remains.write_whole(f"{self.spec['folder']}/{remains.DISK_USE}", str(check.used))
        over = f"the home folder holds more than its {self.spec['disk_mib']} MiB"
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

    def _bwrap_ended(self, child: launch.Child, exited: int) -> None:
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        for fd, handler in ((child.ready, self._desktop_spoke), (child.log, self._logged)):
            for _ in range(_LAST_READS):  # its last words, unless somebody goes on and on
                if not self._handlers.get(fd) or not select.select([fd], [], [], 0)[0]:
                    break
                handler(fd)
        os.close(exited)
        raise Ended(f"the desktop's daemon ended ({how})")

    def _logged(self, fd: int) -> None:
        data = os.read(fd, 64 << 10)
        self.log.write(data)
        if not data:
            self._drop(fd)

    def _namespaces_made(self, fd: int, pid: int) -> None:
        line = self._line(fd, b"}")
        if line is None:
            return
        self.state["init"] = remains.process(int(json.loads(line)["child-pid"]))
        if self.spec["parents"]["kind"] == "scope":
            self.state["group"] = cgroups.scope_of(pid)
            cgroups.set_weight(self.state["group"], self.spec["weight"])
        self._save()

    def _desktop_spoke(self, fd: int) -> None:
        line = self._line(fd, b"\n")
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

    def _line(self, fd: int, end: bytes) -> bytes | None:
        """What is awaited on a pipe, once it is whole; the pipe is closed then."""
        buffer = self._buffers.setdefault(fd, bytearray())
        data = os.read(fd, _MAX_READY_BYTES)
        buffer += data
        if data and end not in data and len(buffer) < _MAX_READY_BYTES:
            return None
        self._drop(fd)
        return bytes(buffer) or None

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def _drop(self, fd: int) -> None:
        del self._handlers[fd]
        self._poll.unregister(fd)
        os.close(fd)

    def _save(self) -> None:
        remains.save(self.spec["folder"], self.state)

    def _remove(self) -> None:
        """Kill what is in the sandbox, then remove all that was made."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.spec['folder']}/{remains.SOCKET}")
        if not remains.end(self.state):
            self.log.write(b"carrel: something in the sandbox does not die\n")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def main() -> int:
    """Run the spec; 0 if the sandbox came up and everything of it is removed."""
    wake = _take_signals()
    _settle()
    with open(int(sys.argv[1]), encoding="utf-8") as file:
        spec: Spec = json.load(file)
    supervisor = Supervisor(spec, wake)
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
    supervisor.tell(event, message=why.message, code=why.code, log=log)
    try:
        remains.remove(spec["folder"], spec["disk"], supervisor.state)
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


if __name__ == "__main__":
    sys.exit(main())
