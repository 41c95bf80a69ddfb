"""Claims that wait for a place: one at a time tries again, when something may have come free.

Who is next is the queue's matter (:mod:`controller.queue`); it stays next until it has its place or
gives up. Each controller has its own queue.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from controller.queue import FairQueue
from workspace.models import QueuePlace

AGAIN_SECONDS = 1.0  # room also comes from elsewhere: another controller, a new node


class Ticket:
    """One claim's wait."""

    def __init__(self, places: Places, tenant: str, until: float) -> None:
        self._places = places
        self._tenant = tenant
        self._until = until
        self._turn = anyio.Event()
        self._is_queued = False

    async def turn(self) -> bool:
        """Wait to be the next, and for something to have come free; False when time is up.

        Raises:
            NoCapacity: too many wait.
        """
        if self._until <= time.monotonic():
            return False
        if not self._is_queued:
            self._places.queue.push(self._tenant, self)
            self._is_queued = True
        self._turn = anyio.Event()
        while (left := self._until - time.monotonic()) > 0:
            with anyio.move_on_after(min(left, AGAIN_SECONDS)):
                await self._turn.wait()
                return True
            if left > AGAIN_SECONDS and self._places.queue.peek() is self:
                return True
        return False

    @property
    def place(self) -> QueuePlace | None:
        """Where it stands; None if it does not wait."""
        if not self._is_queued:
            return None
        queue = self._places.queue
        return QueuePlace(
            position=queue.position(self), estimate_seconds=queue.estimate(self, time.monotonic())
        )

    def call(self) -> None:
        self._turn.set()

    def leave(self) -> None:
        if self._is_queued:
            self._is_queued = False
            self._places.queue.remove(self)


class Places:
    """The waiting claims of one controller."""

    def __init__(self) -> None:
        self.queue: FairQueue[Ticket] = FairQueue()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self.queue)

    @contextmanager
    def ticket(self, tenant: str, until: float) -> Iterator[Ticket]:
        """For one claim; it does not stand in the queue before it has to."""
        ticket = Ticket(self, tenant, until)
        try:
            yield ticket
            if ticket.place is not None:
                self.queue.served(time.monotonic())
        finally:
            ticket.leave()
            self.freed()  # the next one may find room too

    def freed(self) -> None:
        """Something may have come free: whoever is next tries."""
        if (ticket := self.queue.peek()) is not None:
            ticket.call()
