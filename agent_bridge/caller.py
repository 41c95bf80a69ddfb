"""Whoever calls the tools: a client of the controller with the caller's own key.

Nothing here belongs to a protocol session, so a server that restarts, or another that takes over,
answers the next call all the same. Nothing is kept, not even a desktop's size: it may change.
"""

from __future__ import annotations

from agent_bridge.pictures import View
from workspace.client import Carrel
from workspace.models import Workspace


class Caller:
    """One key's client, and how its desktops are seen."""

    def __init__(self, carrel: Carrel, *, public_url: str) -> None:
        self.carrel = carrel
        self.public_url = public_url.rstrip("/")

    async def view(self, desktop_id: str) -> View:
        """How this desktop is seen."""
        return view_of(await self.carrel.get(desktop_id))

    def file_url(self, desktop_id: str) -> str:
        """Where files of any size go over plain HTTP."""
        return f"{self.public_url}/v1/workspaces/{desktop_id}/files?path=..."


def view_of(workspace: Workspace) -> View:
    """How a desktop is seen."""
    return View.of(workspace.screen.width, workspace.screen.height)
