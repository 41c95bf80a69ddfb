"""Control groups: the limits of a sandbox on memory, processes and processor time.

Machines differ in how they hand groups out. This module finds the first way that works here:

- v2: the nearest group at or above our own that lets us make limited children. A group that has
  processes of its own cannot (the kernel's no-internal-processes rule), so we climb; in a
  container whose root group is all that we see, its processes first move into a leaf.
- v1: one folder per controller below our own group in each hierarchy; and one in the unified
  hierarchy that systemd keeps beside them, for its freezer: what that holds can be killed.
- scope: no folder is ours to write (a login session), but the user's systemd makes a scope.
- none: no limits. `carrel doctor` and the sandbox's log say so.

Only the standard library: the supervisor runs it outside any virtual environment. Functions that
undo (`kill`, `remove`) never raise for what is already gone; they say whether they succeeded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from typing import Literal, TypedDict

CONTROLLERS_V1 = ("memory", "pids", "cpu", "cpuacct", "freezer")
CPU_PERIOD_US = 100_000
# Shares of the processor when it is not enough for all: of a group's 100 in v2, 1024 in v1.
NORMAL_WEIGHT, BACKGROUND_WEIGHT = 100, 20
UNIFIED = "unified"
_RECLAIM_BYTES = 16 << 20  # at a time, so that who takes it can be interrupted


class Group(TypedDict):
    """A group, or the parents to make one in: the folder of each hierarchy it lies in."""

    kind: Literal["v2", "v1", "scope", "none"]
    folders: dict[str, str]


class Limits(TypedDict):
    memory_mib: int
    pids: int
    cpus: float


class Usage(TypedDict):
    cpu_seconds: float | None
    memory_mib: float | None
    pids: int | None


NONE: Group = {"kind": "none", "folders": {}}


def own_folders(cgroup: str, mountinfo: str) -> dict[str, tuple[str, str]]:
    """From /proc/self/cgroup and mountinfo: hierarchy -> (its mount point, our own folder in it).

    A mount may show only a part of its hierarchy (in a container): paths are then relative to the
    part's root, and a group outside of it stands for that root.
    """
    mounts: dict[str, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 3:
            continue
        if tail[0] == "cgroup2":
            mounts.setdefault(UNIFIED, (fields[3], fields[4]))
        elif tail[0] == "cgroup":
            for option in tail[2].split(","):
                mounts.setdefault(option, (fields[3], fields[4]))
    found: dict[str, tuple[str, str]] = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if controllers else [UNIFIED]:
            if name not in mounts:
                continue
            root, point = mounts[name]
            inside = root == "/" or path == root or path.startswith(root + "/")
            below = path[len(root) :] if inside and root != "/" else path if inside else ""
            if ".." in below.split("/"):  # our group lies outside what the namespace shows
                below = ""
            found[name] = (point, os.path.normpath(point + "/" + below.lstrip("/")))
    return found


def find_parents() -> Group:
    """Where this process may make limited groups."""
    folders = own_folders(_read("/proc/self/cgroup"), _read("/proc/self/mountinfo"))
    if UNIFIED in folders:
        parent = _v2_parent(*folders[UNIFIED])
        if parent:
            return {"kind": "v2", "folders": {UNIFIED: parent}}
    v1 = {
        name: folders[name][1]
        for name in (*CONTROLLERS_V1, UNIFIED)
        if name in folders and os.access(folders[name][1], os.W_OK)
    }
    if "memory" in v1 and "pids" in v1:
        return {"kind": "v1", "folders": v1}
    if os.geteuid() != 0 and _has_user_scopes():
        return {"kind": "scope", "folders": {}}
    return NONE


def needed(parents: Group) -> tuple[str, ...]:
    """The variables of the environment that making a group needs."""
    return ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS") if parents["kind"] == "scope" else ()


def scope_command(name: str, limits: Limits) -> list[str]:
    """The command that runs what follows it in a limited scope of the user's systemd."""
    return [
        "/usr/bin/systemd-run", "--user", "--scope", "--quiet", "--collect", f"--unit={name}",
        f"--property=MemoryMax={limits['memory_mib']}M", "--property=MemorySwapMax=0",
        f"--property=TasksMax={limits['pids']}",
        f"--property=CPUQuota={max(1, round(limits['cpus'] * 100))}%", "--",
    ]  # fmt: skip


def scope_of(pid: int) -> Group:
    """The group that systemd put ``pid`` into."""
    folders = own_folders(_read(f"/proc/{pid}/cgroup"), _read("/proc/self/mountinfo"))
    folder = folders.get(UNIFIED, ("", ""))[1]
    return {"kind": "v2", "folders": {UNIFIED: folder}} if folder.endswith(".scope") else NONE


def planned(parents: Group, name: str) -> Group:
    """The group that :func:`create` would make."""
    if parents["kind"] not in ("v1", "v2"):
        return NONE
    folders = {key: f"{folder}/{name}" for key, folder in parents["folders"].items()}
    return {"kind": parents["kind"], "folders": folders}


def create(group: Group, limits: Limits) -> None:
    """Make a planned group with its limits.

    Raises:
        OSError: the kernel refused; what was made is still to be removed.
    """
    memory = limits["memory_mib"] << 20
    quota = int(limits["cpus"] * CPU_PERIOD_US)
    for folder in set(group["folders"].values()):
        os.makedirs(folder, mode=0o755, exist_ok=True)
    if group["kind"] == "v2":
        folder = group["folders"][UNIFIED]
        _write(f"{folder}/memory.max", memory)
        _write(f"{folder}/pids.max", limits["pids"])
        for name, value in (("memory.swap.max", 0), ("cpu.max", f"{quota} {CPU_PERIOD_US}")):
            with contextlib.suppress(OSError):  # no swap accounting; cpu not delegated
                _write(f"{folder}/{name}", value)
    elif group["kind"] == "v1":
        folders = group["folders"]
        _write(f"{folders['memory']}/memory.limit_in_bytes", memory)
        _write(f"{folders['pids']}/pids.max", limits["pids"])
        for name, value in (("memory.memsw.limit_in_bytes", memory), ("memory.swappiness", 0)):
            with contextlib.suppress(OSError):  # no swap accounting
                _write(f"{folders['memory']}/{name}", value)
        if "cpu" in folders:
            _write(f"{folders['cpu']}/cpu.cfs_period_us", CPU_PERIOD_US)
            _write(f"{folders['cpu']}/cpu.cfs_quota_us", quota)


def join(group: Group) -> None:
    """Move this process, and so all that it starts, into the group."""
    for folder in set(group["folders"].values()):
        _write(f"{folder}/cgroup.procs", 0)


def pids(group: Group) -> set[int]:
    """The processes in the group."""
    found: set[int] = set()
    for folder in set(group["folders"].values()):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in _read(f"{folder}/cgroup.procs").split())
    return found - {0, os.getpid()}  # 0: a process of a pid namespace that we do not see


def kill(group: Group, *, seconds: float = 5.0) -> bool:
    """SIGKILL everything in the group until it is empty; False if something outlives that."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if UNIFIED in group["folders"]:
                _write(f"{group['folders'][UNIFIED]}/cgroup.kill", 1)
        left = pids(group)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # v1: a frozen process dies only once thawed
            freeze(group, False)
        if not left or time.monotonic() > deadline:
            return not left
        time.sleep(0.002)


def remove(group: Group, *, seconds: float = 5.0) -> bool:
    """Remove an empty group; False if the kernel keeps it busy."""
    deadline = time.monotonic() + seconds
    left = set(group["folders"].values())
    while left:
        for folder in sorted(left):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                continue
            left.discard(folder)
        if left and time.monotonic() > deadline:
            return False
        if left:
            time.sleep(0.002)
    return True


def freeze(group: Group, is_frozen: bool) -> None:
    """Have everything in the group stop, or go on; :func:`frozen` says when it has stopped.

    Raises:
        OSError: this machine has no freezer for it.
    """
    if folder := _v2_freezer(group):
        _write(f"{folder}/cgroup.freeze", int(is_frozen))
    elif folder := group["folders"].get("freezer", ""):
        _write(f"{folder}/freezer.state", "FROZEN" if is_frozen else "THAWED")
    else:
        raise OSError("it has no control groups with a freezer")


def frozen(group: Group) -> Literal["no", "soon", "yes"]:
    """Whether it has stopped; "soon" while the last of it still comes to rest.

    Raises:
        OSError: this machine has no freezer for it, or the group is gone.
    """
    if folder := _v2_freezer(group):
        if _read(f"{folder}/cgroup.freeze").strip() == "0":
            return "no"
        return "yes" if _field(f"{folder}/cgroup.events", "frozen") == 1 else "soon"
    state = _read(f"{group['folders'].get('freezer', '')}/freezer.state").strip()
    return "no" if state == "THAWED" else "yes" if state == "FROZEN" else "soon"


def set_weight(group: Group, weight: int) -> None:
    """What share of the processor it gets beside others; as before where there is no telling."""
    folders = group["folders"]
    with contextlib.suppress(OSError):  # cpu not delegated
        if group["kind"] == "v2":
            _write(f"{folders[UNIFIED]}/cpu.weight", weight)
        elif "cpu" in folders:
            _write(f"{folders['cpu']}/cpu.shares", weight * 1024 // NORMAL_WEIGHT)


def reclaim(group: Group) -> bool:
    """Have the kernel take back some of what it can read again; False when there is no more.

    Raises:
        OSError: it cannot be asked to.
    """
    folders = group["folders"]
    try:
        if group["kind"] == "v2":
            _write(f"{folders[UNIFIED]}/memory.reclaim", _RECLAIM_BYTES)
            return True
        if group["kind"] == "v1":
            _write(f"{folders['memory']}/memory.force_empty", 0)  # all that it can, at once
            return False
    except BlockingIOError:  # less was found than was asked for
        return False
    raise OSError("it has no control groups")


def has_swap() -> bool:
    """Whether this machine has any."""
    return len(_read("/proc/swaps").splitlines()) > 1


def allow_swap(group: Group, is_allowed: bool) -> None:
    """Whether what :mod:`~workspace.backends.pages` turns out may go to the machine's swap; the
    kernel by itself puts nothing of a sandbox there. In v1 it always may.
    """
    if group["kind"] == "v2":
        with contextlib.suppress(FileNotFoundError, PermissionError):  # no swap accounting
            _write(f"{group['folders'][UNIFIED]}/memory.swap.max", "max" if is_allowed else 0)


def charged(group: Group) -> int | None:
    """The bytes that are counted as its memory, what could be dropped included."""
    folders = group["folders"]
    if group["kind"] == "v2":
        return _number(f"{folders[UNIFIED]}/memory.current")
    return _number(f"{folders['memory']}/memory.usage_in_bytes") if "memory" in folders else None


def usage(group: Group) -> Usage:
    """What the group uses; memory without the page cache that the kernel drops at need."""
    folders = group["folders"]
    if group["kind"] == "v2":
        folder = folders[UNIFIED]
        return {
            "cpu_seconds": _scaled(_field(f"{folder}/cpu.stat", "usage_usec"), 1e-6),
            "memory_mib": _memory(f"{folder}/memory.current", f"{folder}/memory.stat", ""),
            "pids": _number(f"{folder}/pids.current"),
        }
    if group["kind"] == "v1":
        memory = folders["memory"]
        cpu = _number(f"{folders['cpuacct']}/cpuacct.usage") if "cpuacct" in folders else None
        return {
            "cpu_seconds": _scaled(cpu, 1e-9),
            "memory_mib": _memory(
                f"{memory}/memory.usage_in_bytes", f"{memory}/memory.stat", "total_"
            ),
            "pids": _number(f"{folders['pids']}/pids.current"),
        }
    return {"cpu_seconds": None, "memory_mib": None, "pids": None}


def _v2_freezer(group: Group) -> str | None:
    folder = group["folders"].get(UNIFIED)
    # Older kernels have the hierarchy, but no freezer in it.
    return folder if folder and os.path.exists(f"{folder}/cgroup.freeze") else None


def _v2_parent(mount: str, own: str) -> str | None:
    folder = own
    while True:
        if _enable(folder):
            return folder
        if folder == mount or not folder.startswith(mount):
            break
        folder = os.path.dirname(folder)
    # A container's root group: not the machine's own (that one has no cgroup.type).
    if os.geteuid() == 0 and own == mount and os.path.exists(f"{mount}/cgroup.type"):
        with contextlib.suppress(OSError):
            _vacate(mount)
            return mount if _enable(mount) else None
    return None


def _enable(folder: str) -> bool:
    """Whether children of ``folder`` can have limits; switches the controllers on."""
    if not os.access(folder, os.W_OK):
        return False
    try:
        available = set(_read(f"{folder}/cgroup.controllers").split())
        enabled = set(_read(f"{folder}/cgroup.subtree_control").split())
        if not {"memory", "pids"} <= available:
            return False
        for name in sorted({"memory", "pids"} - enabled):
            _write(f"{folder}/cgroup.subtree_control", f"+{name}")
    except OSError:
        return False
    if "cpu" in available - enabled:
        with contextlib.suppress(OSError):
            _write(f"{folder}/cgroup.subtree_control", "+cpu")
    return True


def _vacate(folder: str) -> None:
    leaf = f"{folder}/init"
    os.makedirs(leaf, exist_ok=True)
    for pid in _read(f"{folder}/cgroup.procs").split():
        with contextlib.suppress(ProcessLookupError):
            _write(f"{leaf}/cgroup.procs", pid)


def _has_user_scopes() -> bool:
    if not shutil.which("systemd-run") or "XDG_RUNTIME_DIR" not in os.environ:
        return False
    command = scope_command(f"carrel-probe-{os.getpid()}", Limits(memory_mib=64, pids=32, cpus=1))
    try:
        done = subprocess.run(
            [*command, "/bin/true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _memory(current: str, stat: str, prefix: str) -> float | None:
    used = _number(current)
    if used is None:
        return None
    return max(0, used - (_field(stat, prefix + "inactive_file") or 0)) / (1 << 20)


def _scaled(value: int | None, scale: float) -> float | None:
    return None if value is None else value * scale


def _number(path: str) -> int | None:
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return None


def _field(path: str, name: str) -> int | None:
    try:
        for line in _read(path).splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(1 << 20)


def _write(path: str, value: object) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{value}")
