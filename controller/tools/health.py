"""How a tool server is, by what came of looking after it. Pure.

A server's tools are offered from the first time that it lists them. It is looked after again and
again; one miss is nothing, with the second it is down and its tools are gone, and with the next
success they are back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from controller.tools.checking import Offer
from workspace.tools import ToolInfo, ToolServer, ToolsState

MISSES = 2
MAX_REASON = 300


@dataclass
class Health:
    """Of one server."""

    state: ToolsState = "new"
    since: datetime | None = None
    reason: str = ""
    last_seen: datetime | None = None
    tools: dict[str, ToolInfo] = field(default_factory=dict)  # by name
    left_out: list[str] = field(default_factory=list)
    _misses: int = 0

    def succeeded(self, offer: Offer, now: datetime) -> bool:
        """It listed its tools; whether what is offered of it has changed."""
        tools = {tool.name: tool for tool in offer.tools}
        has_changed = self.state != "up" or tools != self.tools
        if self.state != "up":
            self.state, self.since = "up", now
        self.tools, self.left_out = tools, offer.left_out
        self.reason, self.last_seen, self._misses = "", now, 0
        return has_changed

    def failed(self, reason: str, now: datetime, *, is_final: bool = False) -> bool:
        """It did not; likewise. ``is_final``: there is no doubt that it is gone."""
        self._misses += 1
        self.reason = "".join(c if c.isprintable() else " " for c in reason)[:MAX_REASON]
        if self.state == "down" or (self.state == "up" and self._misses < MISSES and not is_final):
            return False
        has_changed = self.state == "up"
        self.state, self.since = "down", now
        return has_changed

    @property
    def offered(self) -> list[ToolInfo]:
        """The tools that can be called now."""
        return list(self.tools.values()) if self.state == "up" else []

    def told(self, server: ToolServer, *, with_tools: bool) -> ToolServer:
        """``server`` with how it is."""
        offered = self.offered
        return server.model_copy(
            update={
                "state": self.state,
                "since": self.since,
                "reason": self.reason,
                "tools": len(offered),
                "left_out": self.left_out,
                "last_seen": self.last_seen,
                "listed": offered if with_tools else None,
            }
        )
