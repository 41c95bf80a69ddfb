"""Pausing: a sandbox frozen where it is, and the memory taken back that the kernel can spare.

Frozen, its processes run no instruction and notice nothing but the time that has passed. What the
kernel takes back of their memory are pages that it can read again (of files), and whatever has
place in the machine's swap, from which a sandbox is kept otherwise; both come back as they are
touched. A pause that fails leaves the sandbox running, and one that somebody resumes meanwhile
stays resumed.
"""

from __future__ import annotations

import contextlib
import time

from workspace.backends import cgroups

FREEZE_SECONDS = 5.0
RECLAIM_SECONDS = 10.0
_LOOK_SECONDS = 0.001


class NotPaused(Exception):
    """It goes on; the message says why."""


def pause(group: cgroups.Group, *, seconds: float = FREEZE_SECONDS) -> float | None:
    """Freeze it, wait until it stands still, take memory back: how many MiB, if that can be told.

    Raises:
        NotPaused: it did not come to rest in time, or was resumed meanwhile.
        OSError: it cannot be frozen here, or is gone.
    """
    cgroups.freeze(group, True)
    deadline = time.monotonic() + seconds
    while (state := cgroups.frozen(group)) != "yes":
        if state == "no":
            raise NotPaused("it was resumed meanwhile")
        if time.monotonic() > deadline:
            cgroups.freeze(group, False)
            raise NotPaused(f"it did not come to rest within {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)
    return _reclaim(group)


def resume(group: cgroups.Group) -> None:
    """Let it go on.

    Raises:
        OSError: it cannot be frozen here, or is gone.
    """
    cgroups.freeze(group, False)


def _reclaim(group: cgroups.Group) -> float | None:
    before = cgroups.charged(group)
    deadline = time.monotonic() + RECLAIM_SECONDS
    try:
        cgroups.allow_swap(group, True)
        try:
            while cgroups.frozen(group) == "yes" and time.monotonic() < deadline:
                if not cgroups.reclaim(group):
                    break
        finally:  # what lies in swap stays there until it is touched
            with contextlib.suppress(OSError):  # it was removed meanwhile
                cgroups.allow_swap(group, False)
    except OSError:  # an older kernel; being paused counts more
        return None
    after = cgroups.charged(group)
    if before is None or after is None:
        return None
    return max(0, before - after) / (1 << 20)
