"""Desktops whose workspaces another controller keeps, and how this one reaches them.

It finds them in the cluster, and asks the store each time whether they still are what they were.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio

from controller.live import Cluster, Handed, why_ended
from controller.store import Store
from controller.tracing import connect
from workspace.errors import NotReady, Unavailable, WorkspaceEnded, WorkspaceNotFound
from workspace.models import LIVE_STATES, Workspace

UNUSED_SECONDS = 900.0


@dataclass
class _Reached:
    handed: Handed
    used_at: float


class Elsewhere:
    """Their clients, kept for as long as they are used."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster
        self._reached: dict[str, _Reached] = {}
        self._locks: dict[str, anyio.Lock] = {}  # one asks for a desktop, and the others wait

    async def desktop(self, workspace_id: str) -> Handed | None:
        """How a ready one is reached; None if it is paused.

        Raises:
            WorkspaceNotFound, NotReady, WorkspaceEnded.
            Unavailable: the cluster does not find it.
        """
        workspace = await self._store.get(workspace_id[:100])
        if workspace is None:
            raise WorkspaceNotFound(f"There is no workspace {workspace_id[:100]!r}.")
        if workspace.state == "paused":
            return None
        if workspace.state != "ready":
            await self.forget(workspace.sandbox)
            raise why_not(workspace)
        if (reached := self._reached.get(workspace.sandbox)) is None:
            async with self._locks.setdefault(workspace.sandbox, anyio.Lock()):
                reached = self._reached.get(workspace.sandbox) or await self._reach(workspace)
        reached.used_at = time.monotonic()
        return reached.handed

    def keep(self, sandbox: str, handed: Handed) -> None:
        """Use what this controller was connected by before."""
        self._reached[sandbox] = _Reached(handed, time.monotonic())

    async def _reach(self, workspace: Workspace) -> _Reached:
        located = await self._cluster.locate(workspace.sandbox)
        if located is None:
            raise Unavailable(
                f"The desktop of workspace {workspace.id} is not found.",
                hint="If it died, that is told in a moment: ask for the workspace again.",
            )
        desktop = connect(located.endpoint)
        handed = Handed(located.endpoint, desktop, workspace.keep_frames)
        self._reached[workspace.sandbox] = reached = _Reached(handed, time.monotonic())
        return reached

    async def forget(self, sandbox: str) -> None:
        """Close what is open to one."""
        self._locks.pop(sandbox, None)
        if (reached := self._reached.pop(sandbox, None)) is not None:
            await reached.handed.desktop.aclose()

    async def sweep(self) -> None:
        """Close what has not been used for long."""
        then = time.monotonic() - UNUSED_SECONDS
        for sandbox in self._locks.keys() - self._reached.keys():
            if not self._locks[sandbox].locked():
                del self._locks[sandbox]
        for sandbox in [name for name, each in self._reached.items() if each.used_at < then]:
            await self.forget(sandbox)

    async def close(self) -> None:
        for sandbox in list(self._reached):
            await self.forget(sandbox)


def why_not(workspace: Workspace) -> NotReady | WorkspaceEnded:
    """Why a workspace that is not ready cannot be used."""
    if workspace.state == "paused":
        return NotReady(
            f"Workspace {workspace.id} is paused.", hint="Whatever is done in it resumes it."
        )
    if workspace.state in LIVE_STATES:
        return NotReady(f"Workspace {workspace.id} is {workspace.state}.")
    return why_ended(workspace)
