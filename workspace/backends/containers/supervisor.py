"""A container's supervisor: one small process that has it made, watches it and has it removed.

It is run as ``/usr/bin/python3 -I -S supervisor.py FD``; FD holds a :class:`Spec`. What it has in
common with others is :mod:`workspace.backends.watching`.

It gives desktopd, over the one connection that it takes, the open files that desktopd needs: its
configuration, the socket that it is to listen on, the pipe to say on how the start went, and where
the socket of its way out goes. That connection stays: should this process be killed, desktopd ends
by itself, and the container with it; what is left of it waits for ``stop``.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # at the end of the path, so that nothing there hides the library
    sys.path.append(
        os.path.dirname(
            os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        )
    )

from workspace.backends import launch, remains, volumes
from workspace.backends.containers import leftovers
from workspace.backends.containers.api import LIBPOD, Answer, Away, Engine, Later, log_text
from workspace.backends.watching import BACKLOG, Common, Ended, Watch, main

_CREATE_SECONDS = 60.0  # a machine that is busy
_TAIL_LINES = "40"
_TOLD_SECONDS, _POLL_SECONDS = 3.0, 0.05
_MOST_SAID = 64 << 10
_KILLED = 137
_UNAVAILABLE = "backend_unavailable"


class Spec(Common):
    """What to make."""

    engine: str  # the path of its socket
    name: str
    body: dict[str, Any]  # Any: JSON values
    door: str  # the path of the socket that desktopd comes to
    runtime: str  # the one that it is to be run by; empty: any
    files: dict[str, str]  # below the sandbox's folder
    uid: int  # whose the home is to be, outside; -1: it is not ours to give
    has_home: bool  # a folder of the host's
    shares: int | None  # of the processor; None: as many as any other


class Supervisor(Watch):
    """Makes the container of a spec and watches it until it ends."""

    def __init__(self, spec: Spec, wake: int) -> None:
        self.spec = spec
        self._engine = Engine(spec["engine"])
        self._waiting: Later | None = None
        self._peer: socket.socket | None = None
        self._ready = -1
        self._said = b""
        self._oom_file = ""
        self._is_removed = False
        super().__init__(spec, wake, leftovers.state(spec))

    def make(self, holding: contextlib.ExitStack) -> None:
        """See :class:`~workspace.backends.watching.Watch`."""
        spec = self.spec
        os.mkdir(spec["disk"], 0o700)
        if spec["has_home"]:
            home = self._make_home(holding)
            self.measure(home)
        self._write()
        door = self._listen(holding, spec["door"], 0o666)
        listener = self._listen(holding, f"{spec['folder']}/{remains.SOCKET}", 0o600)
        self.on(door.fileno(), lambda: self._give(door, listener))
        try:
            self._start()
        except Away as error:
            hint = leftovers.away_hint(spec["engine"])
            raise Ended(f"the engine went away: {error}", code=_UNAVAILABLE, hint=hint) from error

    def kill(self) -> None:
        """See :class:`~workspace.backends.watching.Watch`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.spec['folder']}/{remains.SOCKET}")
        if self._waiting is not None:
            self._waiting.close()
        try:
            leftovers.remove(self._engine, self.spec["name"])
            self._is_removed = True
        except OSError as error:
            self.log.write(f"carrel: {error}\n".encode())
            remains.end(self.state)  # as far as we may: its removal waits for `stop`

    def remove(self) -> None:
        """See :class:`~workspace.backends.watching.Watch`."""
        if not self._is_removed:
            raise OSError(f"the container {self.spec['name']} may still be there")
        super().remove()

    def _make_home(self, holding: contextlib.ExitStack) -> str:
        spec = self.spec
        if (volume := spec["volume"]) is not None:
            home = self.hold(volume, holding)
            if spec["uid"] >= 0:
                volumes.give(volume["folder"], spec["uid"])
            return home
        home = f"{spec['disk']}/{remains.HOME}"
        os.mkdir(home, 0o700)
        if spec["uid"] >= 0:
            os.chown(home, spec["uid"], spec["uid"])
        return home

    def _write(self) -> None:
        """What the container sees of its folder: other users read it, who cannot come to it."""
        top = Path(self.spec["folder"])
        for name, text in self.spec["files"].items():
            path = top / name
            for folder in reversed([each for each in path.parents if top in each.parents]):
                if not folder.exists():
                    folder.mkdir()
                    folder.chmod(0o755)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)

    def _listen(self, holding: contextlib.ExitStack, path: str, mode: int) -> socket.socket:
        folder = os.path.dirname(path)
        if folder != self.spec["folder"]:
            os.mkdir(folder)
            os.chmod(folder, 0o755)
        listener = holding.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(path)
        os.chmod(path, mode)
        listener.listen(BACKLOG)
        return listener

    def _give(self, door: socket.socket, listener: socket.socket) -> None:
        """The first to come is desktopd: before it nothing runs inside. Nobody else is let in."""
        peer, _ = door.accept()
        ready, ready_end = os.pipe()
        config = launch.memory_file(self.spec["config"].encode())
        self.forget(door.fileno())
        door.close()
        try:
            given = [config, listener.fileno(), ready_end, self.spec["egress"]]
            socket.send_fds(peer, [b"\0"], given)
        except OSError as error:
            raise Ended(f"what the desktop needs could not be given to it: {error}") from error
        finally:
            for fd in (config, ready_end, self.spec["egress"]):
                os.close(fd)
        self._peer = peer  # open as long as we are, and as desktopd is
        self.on(peer.fileno(), self._container_ended)
        listener.close()
        self._ready = ready
        self.on(ready, lambda: self.desktop_spoke(ready))

    def _start(self) -> None:
        spec, engine = self.spec, self._engine
        name = spec["name"]
        made = engine.ask(
            "POST",
            "/containers/create",
            spec["body"],
            query={"name": name},
            seconds=_CREATE_SECONDS,
        )
        if made.status == 404 and "image" in made.message.lower():
            image = spec["body"]["Image"]
            raise Ended(
                f"there is no image {image} here ({made.message})",
                code=_UNAVAILABLE,
                hint=leftovers.image_hint(image),
            )
        _check(made, "the container could not be made")
        self._check_runtime()
        started = engine.ask("POST", f"/containers/{name}/start", seconds=_CREATE_SECONDS)
        _check(started, "the container could not be started")
        looked = engine.ask("GET", f"/containers/{name}/json")
        _check(looked, "the container could not be looked at")
        self._found(str(looked.body["Id"]), int(looked.body["State"]["Pid"] or 0))
        if spec["shares"] is not None:  # an engine that cannot leaves it as it is
            engine.ask("POST", f"/containers/{name}/update", {"CpuShares": spec["shares"]})
        self._waiting = engine.begin("POST", f"/containers/{name}/wait", seconds=_CREATE_SECONDS)
        self.on(self._waiting.fileno(), self._told)

    def _check_runtime(self) -> None:
        """That it is the one asked for: Podman's Docker API takes its own, and says nothing."""
        wanted, name = self.spec["runtime"], self.spec["name"]
        if not wanted:
            return
        told = self._engine.ask("GET", f"{LIBPOD}/containers/{name}/json")
        found = told.body.get("OCIRuntime") if told.status == 200 else None
        if found is None:
            looked = self._engine.ask("GET", f"/containers/{name}/json")
            _check(looked, "the container could not be looked at")
            found = looked.body["HostConfig"].get("Runtime")
        if os.path.basename(str(found)) != os.path.basename(wanted):
            raise Ended(
                f"the engine would run it by {found}, not by {wanted}",
                code=_UNAVAILABLE,
                hint=leftovers.RUNTIME_HINT,
            )

    def _found(self, container: str, pid: int) -> None:
        """Its first process, if the engine's pids are ours: then its end is told at once."""
        groups = ""
        with contextlib.suppress(OSError):
            groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
        if container not in groups:
            return
        self.state["init"] = remains.process(pid)
        self.save()
        self._oom_file = _oom_file(groups)
        fd = remains.pidfd(self.state["init"])
        if fd is not None:
            self.on(fd, self._container_ended)

    def _told(self) -> None:
        """Of the container's end, by the engine; or it went away itself, which changes nothing."""
        assert self._waiting is not None, "it is watched"
        piece = self._waiting.piece()
        self._said += piece
        if b"StatusCode" in self._said:
            self._container_ended()
        if not piece or len(self._said) > _MOST_SAID:
            self.forget(self._waiting.fileno())
            self._waiting.close()

    def _container_ended(self) -> None:
        is_oom = _oom_kills(self._oom_file) > 0
        words, code = "", None
        with contextlib.suppress(Away, KeyError, TypeError, ValueError):
            path = f"/containers/{self.spec['name']}"
            state = self._until_told(path)
            code = int(state["ExitCode"])
            is_oom = is_oom or bool(state.get("OOMKilled"))
            query = {"stdout": "1", "stderr": "1", "tail": _TAIL_LINES}
            words = log_text(self._engine.ask("GET", f"{path}/logs", query=query).raw)
        self.log.write(words.encode())
        if not self.is_ready and self._ready >= 0 and select.select([self._ready], [], [], 0)[0]:
            self.desktop_spoke(self._ready)  # its last word on the start
        raise Ended(_why(code, is_oom=is_oom, memory=self.spec["body"]["HostConfig"]["Memory"]))

    def _until_told(self, path: str) -> dict[str, Any]:  # Any: JSON values
        """The container's state once the engine knows that it has ended, or soon."""
        deadline = time.monotonic() + _TOLD_SECONDS
        while True:
            state: dict[str, Any] = self._engine.ask("GET", f"{path}/json").body["State"]
            if not state.get("Running") or time.monotonic() > deadline:
                return state
            time.sleep(_POLL_SECONDS)


def _why(code: int | None, *, is_oom: bool, memory: int) -> str:
    if is_oom and code in (None, _KILLED):
        return f"it was killed because its {memory >> 20} MiB of memory did not suffice"
    if code == _KILLED:
        return "its container was killed (137)"
    return f"its container ended (exit code {'unknown' if code is None else code})"


def _check(answer: Answer, what: str) -> None:
    if not answer.is_done:
        raise Ended(f"{what}: {answer.message}")


def _oom_file(groups: str) -> str:
    """Where the kernel counts what it killed in a container, by its first process' groups."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return f"/sys/fs/cgroup/memory{path}/memory.oom_control"
    unified = groups.partition("0::")[2].strip()
    return f"/sys/fs/cgroup{unified}/memory.events" if unified else ""


def _oom_kills(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(path).read_text(encoding="ascii").splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill":
                return int(count)
    return 0


if __name__ == "__main__":
    sys.exit(main(Supervisor))
