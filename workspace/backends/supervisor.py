"""A sandbox's supervisor: one small process that makes it by bubblewrap, watches and removes it.

It is run as ``/usr/bin/python3 -I -S supervisor.py FD``, with an empty environment; FD holds a
:class:`Spec`. What it has in common with others is :mod:`workspace.backends.watching`.

The sandbox ends when its owner goes, when bubblewrap ends, on SIGTERM, SIGINT and SIGHUP, and when
it keeps overrunning its disk; each time everything in it is killed first and then removed. If the
supervisor itself is killed, the kernel kills bubblewrap (PR_SET_PDEATHSIG), its first process
goes with it (``--die-with-parent``), and with that the whole pid namespace; what is left on the
disk then waits for ``stop``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable

if __name__ == "__main__":  # at the end of the path, so that nothing there hides the library
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from workspace.backends import cgroups, idmap, launch, remains, uids, volumes
from workspace.backends.watching import BACKLOG, Common, Ended, Watch, main

_LAST_READS = 64


class Spec(Common):
    """What to make. ``parents`` says where to make its control group."""

    argv: list[str]
    data: list[str]
    seccomp: str
    parents: cgroups.Group
    limits: cgroups.Limits
    weight: int


class Supervisor(Watch):
    """Makes the sandbox of a spec and watches it until it ends."""

    def __init__(self, spec: Spec, wake: int) -> None:
        self.spec = spec
        me = remains.process(os.getpid())
        assert me is not None, "a process sees itself in /proc"
        super().__init__(
            spec,
            wake,
            {
                "supervisor": me,
                "bwrap": None,
                "init": None,
                "uid": -1,
                "group": cgroups.planned(spec["parents"], f"carrel-{spec['id']}"),
                "disk": spec["disk"],
            },
        )

    def make(self, holding: contextlib.ExitStack) -> None:
        """See :class:`~workspace.backends.watching.Watch`."""
        uid = holding.enter_context(uids.claim())
        spec, state = self.spec, self.state
        state["uid"] = uid
        self.save()
        cgroups.create(state["group"], spec["limits"])
        cgroups.set_weight(state["group"], spec["weight"])
        if spec["parents"]["kind"] == "none":
            self.tell("notice", message="no control groups here: memory and processor unlimited")
        home, mount = self._make_home(uid, holding)
        self.measure(home)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            path = f"{spec['folder']}/{remains.SOCKET}"
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(BACKLOG)
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
        self.save()
        exited = os.pidfd_open(child.pid)
        self.on(exited, lambda: self._bwrap_ended(child, exited))
        self.on(child.log, lambda: self._logged(child.log))
        self.on(child.ready, lambda: self.desktop_spoke(child.ready))
        self.on(child.info, lambda: self._namespaces_made(child.info, child.pid))

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
        home = self.hold(volume, holding)
        tree = volumes.attach(volume["folder"], uid)
        if tree is None:
            return home, None
        holding.callback(os.close, tree)
        return home, lambda: idmap.put(tree, home)

    def _bwrap_ended(self, child: launch.Child, exited: int) -> None:
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        for fd, handler in ((child.ready, self.desktop_spoke), (child.log, self._logged)):
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
            self.drop(fd)

    def _namespaces_made(self, fd: int, pid: int) -> None:
        line = self.line(fd, b"}")
        if line is None:
            return
        self.state["init"] = remains.process(int(json.loads(line)["child-pid"]))
        if self.spec["parents"]["kind"] == "scope":
            self.state["group"] = cgroups.scope_of(pid)
            cgroups.set_weight(self.state["group"], self.spec["weight"])
        self.save()

    def kill(self) -> None:
        """See :class:`~workspace.backends.watching.Watch`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.spec['folder']}/{remains.SOCKET}")
        if not remains.end(self.state):
            self.log.write(b"carrel: something in the sandbox does not die\n")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main(Supervisor))
