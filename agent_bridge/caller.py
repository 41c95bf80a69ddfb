"""Whoever calls the tools: a client of the controller with the caller's own key.

Nothing here belongs to a protocol session, so a server that restarts, or another that takes over,
answers the next call all the same. What is kept is only what never changes: a desktop's size.
"""

from __future__ import annotations

from collections import OrderedDict

from agent_bridge.pictures import View
from workspace.client import Carrel
from workspace.models import Workspace

_MAX_VIEWS = 1000


class Caller:
    """One key's client, and how its desktops are seen."""

    def __init__(self, carrel: Carrel, *, public_url: str) -> None:
        self.carrel = carrel
        self.public_url = public_url.rstrip("/")
        self._views: OrderedDict[str, View] = OrderedDict()

    def remember(self, workspace: Workspace) -> View:
        view = View.of(workspace.screen.width, workspace.screen.height)
        self._views[workspace.id] = view
        while len(self._views) > _MAX_VIEWS:
            self._views.popitem(last=False)
        return view

    async def view(self, desktop_id: str) -> View:
        """How this desktop is seen."""
        known = self._views.get(desktop_id)
        return known or self.remember(await self.carrel.get(desktop_id))

    def file_url(self, desktop_id: str) -> str:
        """Where files of any size go over plain HTTP."""
        return f"{self.public_url}/v1/workspaces/{desktop_id}/files?path=..."
