"""What a node itself is asked, not a desktop's actor: what sandboxes it has, and its memory.

The actor that would know of a sandbox may be dead. So this runs in a Ray task on the node, or right
here where this process is on it. What it answers is plain JSON. It removes what it is told to and
decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from workspace import backends
from workspace.backends import cgroups
from workspace.errors import CarrelError

END_SECONDS = 90.0  # all that is to be ended; a home of a million files takes long
LIST_SECONDS = 10.0
_MEMINFO = "/proc/meminfo"
_MIB = 1 << 20
log = logging.getLogger(__name__)

Wire = dict[str, Any]  # Any: JSON values
Settings = Mapping[str, Mapping[str, Any]]  # Any: each backend's settings, plain JSON


class Machine(TypedDict):
    """What a node has for those who run on it."""

    cpus: int
    total_mib: int  # of the whole machine, whatever this process may use of it
    memory_mib: int
    memory_free_mib: int


def ask(settings: Settings, end: Sequence[str]) -> Wire:
    """End those sandboxes, and say what there is then. Blocks; not on an event loop's thread.

    ``{"sandboxes": [...], "failed": {sandbox: why}, "machine": machine()}``
    """
    return asyncio.run(_ask(settings, end))


async def _ask(settings: Settings, end: Sequence[str]) -> Wire:
    found: set[str] = set()
    failed: dict[str, str] = {}
    silent: list[Exception] = []
    for name, own in settings.items():
        backend = backends.create(name, **own)
        for sandbox in end:
            try:
                await asyncio.wait_for(backend.stop(sandbox), END_SECONDS / len(end))
            except asyncio.TimeoutError:
                failed[sandbox] = "It takes too long."
            except CarrelError as error:
                failed[sandbox] = error.message
        try:
            found.update(await asyncio.wait_for(backend.list(), LIST_SECONDS))
        except (asyncio.TimeoutError, CarrelError) as error:  # the others' are told all the same
            log.warning("sandboxes of %s cannot be listed: %r", name, error)
            silent.append(error)
    if silent and len(silent) == len(settings):
        raise silent[-1]
    return {"sandboxes": sorted(found), "failed": failed, "machine": machine()}


def machine() -> Machine:
    """What this process may use; its control groups may allow less than the machine has."""
    with open(_MEMINFO, encoding="ascii") as file:
        told = dict(line.split(":", 1) for line in file)
    total, free = (int(told[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    whole = total
    for limit, used in _limits():
        total, free = min(total, limit), min(free, max(0, limit - used))
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "total_mib": whole // _MIB,
        "memory_mib": total // _MIB,
        "memory_free_mib": free // _MIB,
    }


def _limits() -> Iterator[tuple[int, int]]:
    """Each limit that this process' memory has, and how much of it is used; both in bytes."""
    with (
        open("/proc/self/cgroup", encoding="utf-8") as groups,
        open("/proc/self/mountinfo", encoding="utf-8") as mounts,
    ):
        folders = cgroups.own_folders(groups.read(), mounts.read())
    for name, most, now, dropped in (
        (cgroups.UNIFIED, "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if name not in folders:
            continue
        mount, folder = folders[name]
        while folder.startswith(mount):
            with contextlib.suppress(OSError, ValueError):  # none, or "max"
                limit, used = (int(_read(f"{folder}/{file}")) for file in (most, now))
                stat = dict(line.split() for line in _read(f"{folder}/memory.stat").splitlines())
                yield limit, max(0, used - int(stat.get(dropped, 0)))
            if folder == mount:
                break
            folder = os.path.dirname(folder)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(_MIB)
