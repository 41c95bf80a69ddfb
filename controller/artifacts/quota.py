"""How many bytes of artifacts there may be: for each workspace, and in all.

What there is is asked of the store now and then and counted on in between: so a limit may be
overshot by what is being saved as it is asked, and by what other controllers save within
``FRESH_SECONDS``. A limit for others than workspaces (a tenant, say) is one more :class:`_Count`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from controller.store.artifacts import ArtifactRows
from workspace.errors import CarrelError, DiskFull, TooLarge

FRESH_SECONDS = 30.0
_MANY = 1000  # workspaces that are counted at a time


class Left(NamedTuple):
    """How much more may be kept, and what is told of more than that."""

    size: int
    error: CarrelError


@dataclass
class _Count:
    used: int
    at: float

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.at < FRESH_SECONDS


class Quota:
    """The limits of one controller, in bytes."""

    def __init__(self, *, of_workspace: int, in_all: int) -> None:
        self._of_workspace = of_workspace
        self._in_all = in_all
        self._each: dict[str, _Count] = {}
        self._all = _Count(0, float("-inf"))

    async def left(self, rows: ArtifactRows, workspace_id: str) -> Left:
        """What a workspace may still keep."""
        count = self._each.get(workspace_id)
        if count is None or not count.is_fresh:
            if len(self._each) >= _MANY:
                self._each.clear()
            count = _Count(await rows.used_by(workspace_id), time.monotonic())
            self._each[workspace_id] = count
        if not self._all.is_fresh:
            self._all = _Count(await rows.used(), time.monotonic())
        own, all_ = self._of_workspace - count.used, self._in_all - self._all.used
        if all_ < own:
            return Left(max(0, all_), _full("all workspaces", self._in_all, self._all.used))
        if count.used == 0:
            return Left(own, _too_large(self._of_workspace))
        return Left(max(0, own), _full(f"workspace {workspace_id}", self._of_workspace, count.used))

    @contextmanager
    def taken(self, workspace_id: str, size: int) -> Iterator[None]:
        """Count it; not if the block fails.

        Raises:
            DiskFull: others were first.
        """
        own = self._each.setdefault(workspace_id, _Count(0, float("-inf")))
        if own.used + size > self._of_workspace:
            raise _full(f"workspace {workspace_id}", self._of_workspace, own.used)
        if self._all.used + size > self._in_all:
            raise _full("all workspaces", self._in_all, self._all.used)
        counts = (own, self._all)
        for count in counts:
            count.used += size
        try:
            yield
        except BaseException:
            for count in counts:
                count.used -= size
            raise

    def forget(self, workspace_id: str) -> None:
        """Something was removed: ask anew."""
        self._each.pop(workspace_id, None)
        self._all.at = float("-inf")


def _full(of: str, limit: int, used: int) -> DiskFull:
    return DiskFull(
        f"The artifacts of {of} may have {_mib(limit)} in all, and {_mib(used)} are used.",
        hint="Remove some (DELETE /v1/artifacts/{id}, carrel artifacts rm), or raise the limit "
        "(CARREL_ARTIFACT_WORKSPACE_MIB, CARREL_ARTIFACT_MIB).",
    )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"It is larger than a workspace's artifacts may be, {_mib(limit)}.",
        hint="Keep a part of it, compress it, or raise CARREL_ARTIFACT_WORKSPACE_MIB.",
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB" if size >= 10 << 20 else f"{size / (1 << 20):.1f} MiB"
