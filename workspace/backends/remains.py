"""What a sandbox leaves on the host, and its removal: by its supervisor, or by whoever comes later.

The supervisor writes down what it is about to make before it makes it, so that whatever dies when,
the folder's ``sandbox.json`` names all that is left. Processes are named by pid and start time: a
pid that went to another process is never signalled. Only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Generator
from typing import TypedDict

from workspace.backends import cgroups, trees, uids

STATE = "sandbox.json"
SOCKET = "desktopd.sock"
LOG = "log"
DISK_USE = "disk"
HOME = "home"
GIVEN, DOOR = "given", "door"  # a container's: see :mod:`workspace.backends.containers.specs`
_NAMES = (STATE, SOCKET, LOG, DISK_USE, HOME, GIVEN, DOOR)
_OURS = {name + end for name in _NAMES for end in ("", ".new")}


class Process(TypedDict):
    pid: int
    started: int  # clock ticks since the machine's start: field 22 of /proc/<pid>/stat


class State(TypedDict):
    supervisor: Process
    bwrap: Process | None
    init: Process | None  # the first process of the sandbox's pid namespace: all die with it
    uid: int
    group: cgroups.Group
    disk: str


def process(pid: int) -> Process | None:
    """A live process; None if it is gone or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return {"pid": pid, "started": int(fields[19])}


def is_alive(known: Process | None) -> bool:
    return known is not None and process(known["pid"]) == known


def pidfd(known: Process | None) -> int | None:
    """A descriptor of exactly that process, to wait for or to signal; None if it is gone."""
    if known is None:
        return None
    try:
        fd = os.pidfd_open(known["pid"])
    except OSError:
        return None
    if is_alive(known):  # checked after opening: the descriptor can no longer change hands
        return fd
    os.close(fd)
    return None


def send(known: Process | None, number: int) -> None:
    """Signal a process, if it still lives."""
    fd = pidfd(known)
    if fd is not None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(fd, number)
        os.close(fd)


def is_ours(folder: str) -> bool:
    """Whether nothing but what we put there is in it: a folder of somebody else's is never removed,
    whatever it is called and wherever we were told to put ours.
    """
    try:
        with os.scandir(folder) as entries:
            return all(entry.name in _OURS or trees.is_lifted(entry.name) for entry in entries)
    except OSError:
        return False


def named(parent: str | os.PathLike[str]) -> set[str]:
    """The names of all folders of ours below ``parent``."""
    with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
        return {
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and is_ours(entry.path)
        }
    return set()


def save(folder: str, state: State) -> None:
    write_whole(f"{folder}/{STATE}", json.dumps(state))


def load(folder: str) -> State | None:
    """The state, or None where the supervisor had not come to write it."""
    try:
        with open(f"{folder}/{STATE}", encoding="utf-8") as file:
            state: State = json.load(file)
    except (OSError, ValueError):
        return None
    return state


def write_whole(path: str, text: str) -> None:
    """Write a file that readers only ever see whole."""
    partial = f"{path}.new"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(partial, path)


def end(state: State, *, seconds: float = 5.0) -> bool:
    """Kill everything in the sandbox and wait until it is dead; False if something is not."""
    poll, fds = select.poll(), []
    if state["init"] is None:  # it ends so early that bubblewrap has not named it yet
        for pid in descendants(state["bwrap"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for known in (state["init"], state["bwrap"]):
        fd = pidfd(known)
        if fd is not None:
            fds.append(fd)
            poll.register(fd, select.POLLIN)
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
    is_empty = cgroups.kill(state["group"], seconds=seconds)
    deadline = time.monotonic() + seconds
    left = set(fds)
    while left and time.monotonic() < deadline:
        for fd, _ in poll.poll(1000):
            poll.unregister(fd)
            left.discard(fd)
    for fd in fds:
        os.close(fd)
    return is_empty and not left


def kill_programs(state: State) -> int:
    """Kill the user's programs (desktopd gives them a raised oom score); how many there were.

    A program that lowered its score again is not found.
    """
    count = 0
    with contextlib.closing(programs(state)) as found:
        for _, fd in found:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                count += 1
    return count


def _oom_score(pid: int) -> int:
    with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as file:
        return int(file.read())


def programs(state: State) -> Generator[tuple[int, int], None, None]:
    """The user's programs: pid and, until the next one, a descriptor of exactly that process."""
    least = 0
    if state["init"] is not None:  # below a user's systemd all have 100, desktopd too
        with contextlib.suppress(OSError, ValueError):
            least = max(0, _oom_score(state["init"]["pid"]))
    for pid in descendants(state["init"]):
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _oom_score(pid) > least:
                yield pid, fd
        except (OSError, ValueError):
            continue
        finally:
            os.close(fd)


def descendants(root: Process | None) -> set[int]:
    """All that runs below a process: for the first one of a pid namespace, everything in it."""
    if not is_alive(root):
        return set()
    assert root is not None, "None is not alive"
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry.name}/stat", "rb") as file:
                parent = int(file.read(4096).rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    todo = [root["pid"]]
    while todo:
        for pid in children.get(todo.pop(), []):
            found.add(pid)
            todo.append(pid)
    return found


def remove(folder: str, disk: str, state: State | None) -> None:
    """Remove all that is left once everything is dead: the folder last, since it names the rest.

    Raises:
        OSError: something cannot be removed; the folder still names it.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{SOCKET}")
    if state is not None and not cgroups.remove(state["group"]):
        raise OSError(f"the control group {state['group']['folders']} stays busy")
    trees.remove(disk)
    uids.sweep()  # its uid's file, if its supervisor was killed
    trees.remove(folder)
