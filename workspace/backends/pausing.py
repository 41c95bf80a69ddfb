"""Pausing: a sandbox frozen where it is, and the memory taken back that the kernel can spare.

Frozen, its processes run no instruction and notice nothing but the time that has passed. What is
taken back are pages that the kernel can read again (of files) and, into the machine's swap if it
has one, the memory of the user's programs: not that of the desktop itself, so that the first action
after a pause finds it there. A pause that fails leaves the sandbox running, and one that somebody
resumes meanwhile stays resumed.
"""

from __future__ import annotations

import contextlib
import time

from workspace.backends import cgroups, pages, remains

FREEZE_SECONDS = 5.0
RECLAIM_SECONDS = 10.0
_LOOK_SECONDS = 0.001


class NotPaused(Exception):
    """It goes on; the message says why."""


def pause(state: remains.State, *, seconds: float = FREEZE_SECONDS) -> float | None:
    """Freeze it, wait until it stands still, take memory back: how many MiB, if that can be told.

    Raises:
        NotPaused: it did not come to rest in time, or was resumed meanwhile.
        OSError: it cannot be frozen here, or is gone.
    """
    group = state["group"]
    cgroups.freeze(group, True)
    deadline = time.monotonic() + seconds
    while (now := cgroups.frozen(group)) != "yes":
        if now == "no":
            raise NotPaused("it was resumed meanwhile")
        if time.monotonic() > deadline:
            cgroups.freeze(group, False)
            raise NotPaused(f"it did not come to rest within {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)
    before = cgroups.charged(group)
    with contextlib.suppress(OSError):  # an older kernel, or no right to: being paused counts more
        _drop(group)
    with contextlib.suppress(OSError):
        _turn_out(state)
    if cgroups.frozen(group) != "yes":
        raise NotPaused("it was resumed meanwhile")
    after = cgroups.charged(group)
    if before is None or after is None:
        return None
    return max(0, before - after) / (1 << 20)


def resume(state: remains.State) -> None:
    """Let it go on.

    Raises:
        OSError: it cannot be frozen here, or is gone.
    """
    cgroups.freeze(state["group"], False)


def _drop(group: cgroups.Group) -> None:
    deadline = time.monotonic() + RECLAIM_SECONDS
    while cgroups.frozen(group) == "yes" and time.monotonic() < deadline:
        if not cgroups.reclaim(group):
            break


def _turn_out(state: remains.State) -> None:
    group = state["group"]
    deadline = time.monotonic() + RECLAIM_SECONDS
    if not cgroups.has_swap():
        return
    cgroups.allow_swap(group, True)
    try:
        with contextlib.closing(remains.programs(state)) as programs:
            for pid, fd in programs:
                if cgroups.frozen(group) != "yes" or time.monotonic() > deadline:
                    break
                pages.turn_out(pid, fd)
    finally:  # what lies in swap stays there until it is touched
        cgroups.allow_swap(group, False)
