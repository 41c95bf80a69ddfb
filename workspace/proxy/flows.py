"""The servers that a desktop is connected to: each counts, and is told of when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from workspace.egress import Secret
from workspace.proxy.requests import Target
from workspace.proxy.streams import Stream
from workspace.proxy.tally import Tally


class Owner(Protocol):
    """Whose flows they are."""

    flows: set[Flow]
    tally: Tally

    def moved(self, up: int, down: int) -> None:
        """Bytes went through; raises to end it."""
        ...


class Flow:
    """A server that is connected to, for one client: what is judged again when rules change."""

    def __init__(self, owner: Owner, target: Target, stream: Stream) -> None:
        self._owner, self.target, self.stream = owner, target, stream
        self.secrets: Sequence[Secret] = ()
        self.up = self.down = 0
        self.verdict, self.reason = "allowed", ""
        self._task = asyncio.current_task()
        owner.flows.add(self)

    def moved(self, up: int, down: int) -> None:
        self.up += up
        self.down += down
        self._owner.moved(up, down)

    def break_off(self, reason: str) -> None:
        self.reason = self.reason or reason
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        self.stream.close()
        if self in self._owner.flows:
            self._owner.flows.discard(self)
            self._owner.tally.note(
                *self.target,
                self.verdict,
                self.reason,
                up=self.up,
                down=self.down,
                secret=",".join(secret.name for secret in self.secrets)[:64],
            )
