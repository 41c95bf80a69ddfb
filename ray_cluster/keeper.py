"""The keeper: parent of the Ray that `carrel up` starts, and the one that ends it.

A program of its own, standard library only, in a session of its own: it outlives a controller that
is killed, so that the next one finds Ray and its desktops again. It ends Ray

- when it is told to (SIGTERM),
- when Ray's own parent process ends by itself,
- when for ``IDLE_SECONDS`` no controller has held ``controller.lock`` and no desktop's actor lived.

It is a child subreaper, so whatever Ray starts stays its descendant: it ends exactly its own
process tree, within ``END_SECONDS``, and then removes what it and Ray wrote in the run folder.

It is two processes: should one of them be killed, the other one ends Ray. (Ray's own agents outlive
a Ray that is killed.) Should both be, Ray's servers die with them (PDEATHSIG), and the next keeper
removes what lies in the folder.

Liveness is a lock, ``keeper.lock``, inherited already locked from the process that starts us: no
two keepers of one folder can ever run, and no process id is taken for alive when it is reused.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

START_SECONDS = 60.0
IDLE_SECONDS = 10.0
# Ending takes 3 s at most where all is well, and the sum of these where nothing is.
ACTOR_SECONDS = 4.0
TERM_SECONDS = 4.0
KILL_SECONDS = 2.0
END_SECONDS = ACTOR_SECONDS + TERM_SECONDS + 2 * KILL_SECONDS
# As far as Ray's title and the kernel's name of an actor's process have in common.
ACTOR_NAME = "ray::DesktopAct"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
STOPPING = {signal.SIGTERM, signal.SIGINT}


class RunDir:
    """The files of one local Ray; every name is known here only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.controller_lock = path / "controller.lock"
        self.keeper_lock = path / "keeper.lock"
        self.token = path / "ray-token"
        self.state = path / "ray.json"  # there while Ray serves: address, pid of the keeper
        self.log = path / "ray.log"
        self.temp = path / "ray"

    def clear(self) -> None:
        """Remove what Ray and its keeper wrote; a controller's and the desktops' files stay."""
        for file in (self.state, self.token, self.log):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.temp, ignore_errors=True)


def is_locked(path: Path) -> bool:
    """Whether any process holds a flock on ``path``, asked without taking it even for a moment.

    A controller that starts just now must not be told that another one runs.
    """
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return False
    with open("/proc/locks") as table:  # "1: FLOCK  ADVISORY  WRITE 123 fe:00:4711 0 EOF"
        for line in table:
            fields = line.split()
            if fields[1] == "FLOCK" and int(fields[5].rsplit(":", 1)[1]) == inode:
                return True
    return False


def descendants() -> dict[int, str]:
    """Process id and name of all that we, or those we adopted, started and that still runs."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
        if state != "Z":
            names[int(entry)] = stat[stat.index("(") + 1 : stat.rindex(")")]
        parents[int(entry)] = int(parent)
    found: set[int] = set()
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return {pid: names[pid] for pid in found if pid in names}


class Family:
    """A child, and all that descends from it: orphans among them become children of ours."""

    def __init__(self) -> None:
        self.child: int | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def tell(self, number: signal.Signals) -> None:
        if self.child is not None:
            _signal([self.child], number)

    def end(self) -> None:
        """End what runs, gently first, from the sandboxes' owners outwards.

        Ray by itself would wait long for its actors, and then kill them.
        """
        actors = [pid for pid, name in descendants().items() if name.startswith(ACTOR_NAME)]
        _signal(actors, signal.SIGTERM)
        self._until(lambda: not descendants().keys() & set(actors), ACTOR_SECONDS)
        self.tell(signal.SIGTERM)
        self._until(lambda: self.child is None, TERM_SECONDS)
        # What is left of Ray dies now; supervisors of sandboxes then clean up and follow.
        _signal([pid for pid, name in descendants().items() if _is_ray(name)], signal.SIGKILL)
        self._until(lambda: not descendants(), KILL_SECONDS)
        _signal(descendants(), signal.SIGKILL)
        self._until(lambda: not descendants(), KILL_SECONDS)

    def _until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            self.wait(0.05)

    def wait(self, seconds: float) -> set[int]:
        """Wait for a signal, reap who ended, and tell which signal it was."""
        came = signal.sigtimedwait(SIGNALS, seconds)
        self._reap()
        return {came.si_signo} if came else set()

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.child = None


class Keeper:
    def __init__(self, run_dir: RunDir, command: list[str]) -> None:
        self._dir = run_dir
        self._command = command
        self._ray = Family()

    def run(self, ready: Callable[[], None]) -> None:
        """Start Ray, say when it serves, and stay until it has ended."""
        try:
            self._start()
            ready()
            self._watch()
        finally:
            self._dir.state.unlink(missing_ok=True)
            self._ray.end()

    def _start(self) -> None:
        with open(self._dir.log, "wb") as log:
            self._ray.child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_keeper,
            ).pid
        address = self._dir.temp / "ray_current_cluster"  # Ray writes it last of all
        deadline = time.monotonic() + START_SECONDS
        while not address.exists() or not (served := address.read_text().strip()):
            if self._ray.wait(0.02) & STOPPING:
                raise SystemExit(0)
            if self._ray.child is None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray did not start: {_tail(self._dir.log)}")
        self._serve(served)

    def _serve(self, address: str) -> None:
        partial = self._dir.state.with_suffix(".part")
        partial.write_text(json.dumps({"address": address, "keeper": os.getpid()}))
        partial.rename(self._dir.state)

    def _watch(self) -> None:
        idle_since = time.monotonic()
        while not self._ray.wait(1.0) & STOPPING and self._ray.child is not None:
            if self._is_needed():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= IDLE_SECONDS and self._gives_up():
                return

    def _is_needed(self) -> bool:
        return is_locked(self._dir.controller_lock) or any(
            name.startswith(ACTOR_NAME) for name in descendants().values()
        )

    def _gives_up(self) -> bool:
        """Withdraw the address; a controller that came just before keeps it.

        A controller takes its lock before it reads the address, so either we see the lock here,
        or it finds no address and waits for us to be gone.
        """
        served = json.loads(self._dir.state.read_text())
        self._dir.state.unlink()
        if is_locked(self._dir.controller_lock):
            self._serve(served["address"])
            return False
        self._dir.controller_lock.unlink(missing_ok=True)
        return True


def _is_ray(name: str) -> bool:
    return name.startswith("ray") or name == "gcs_server"


def _signal(processes: Iterable[int], number: signal.Signals) -> None:
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it was faster


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_keeper() -> None:
    """In the child, before exec. The keeper has one thread: PDEATHSIG is that thread's death."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-2000:].strip()
    except OSError:
        return "it wrote no log"


def main() -> None:
    parser = argparse.ArgumentParser(prog="keeper")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--lock-fd", type=int, required=True, help="keeper.lock, locked")
    parser.add_argument("--ready-fd", type=int, required=True, help="gets one line of JSON")
    parser.add_argument("command", nargs="+", help="what starts Ray, and blocks")
    given = parser.parse_args()
    if os.fork():  # nobody's child but init's: no zombie in a controller that lives long
        os._exit(0)
    os.setsid()
    run_dir = RunDir(given.run_dir)
    os.ftruncate(given.lock_fd, 0)
    os.pwrite(given.lock_fd, f"{os.getpid()}\n".encode(), 0)
    os.set_inheritable(given.lock_fd, False)
    os.set_inheritable(given.ready_fd, False)
    family = Family()
    outer = os.getpid()
    family.child = os.fork()
    if family.child:
        os.close(given.ready_fd)
        _stand_by(family, run_dir)
    else:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _keep(Keeper(run_dir, given.command), given.ready_fd)
        if os.getppid() == outer:
            os._exit(0)  # it sees to the rest
    run_dir.clear()
    run_dir.keeper_lock.unlink(missing_ok=True)  # still locked: who waits sees it is gone
    try:
        run_dir.path.rmdir()
    except OSError:
        pass  # a controller or a backend has files there


def _stand_by(family: Family, run_dir: RunDir) -> None:
    """Pass on what we are told; end what a keeper that was killed leaves behind."""
    while family.child is not None:
        if family.wait(3600) & STOPPING:
            family.tell(signal.SIGTERM)
    run_dir.state.unlink(missing_ok=True)
    family.end()


def _keep(keeper: Keeper, ready_fd: int) -> None:
    def say(message: dict[str, str]) -> None:
        try:
            os.write(ready_fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            pass  # who started us is gone: the next one finds Ray all the same
        os.close(ready_fd)

    try:
        keeper.run(ready=lambda: say({}))
    except RuntimeError as error:
        say({"error": str(error)})


if __name__ == "__main__":
    main()
