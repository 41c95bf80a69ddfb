"""Claims that wait for a place: one at a time tries again, when something may have come free.

Who is next is the queue's matter (:mod:`controller.queue`); it stays next until it has its place or
gives up. Two things keep it from standing in the way of others: a claim whose template is at its
``max`` is passed over until one of those has gone, and a warm desktop that would not do for it goes
to the first for whom it does. Each controller has its own queue.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import anyio

from controller.queue import FairQueue
from workspace.models import QueuePlace

AGAIN_SECONDS = 1.0  # room also comes from elsewhere: another controller, a new node

# What may be there for who waits: a place to start in, or only a desktop that is warm.
Turn = Literal["place", "warm"]


class Ticket:
    """One claim's wait."""

    def __init__(
        self, places: Places, tenant: str, until: float, template: str, shape: str | None
    ) -> None:
        self.template = template
        self.shape = shape
        self._places = places
        self._tenant = tenant
        self._until = until
        self._turn = anyio.Event()
        self._is_queued = False

    async def turn(self) -> Turn | None:
        """Wait for something that may be had; None when time is up.

        Raises:
            NoCapacity: too many wait.
        """
        if self._until <= time.monotonic():
            return None
        if not self._is_queued:
            self._places.enter(self._tenant, self)
            self._is_queued = True
        self._turn = anyio.Event()
        while (left := self._until - time.monotonic()) > 0:
            with anyio.move_on_after(min(left, AGAIN_SECONDS)):
                await self._turn.wait()
            if (self._turn.is_set() or left > AGAIN_SECONDS) and (
                turn := self._places.turn_of(self)
            ):
                return turn
            self._turn = anyio.Event()
        return None

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

    def leave(self, *, is_served: bool) -> None:
        if self._is_queued:
            self._is_queued = False
            self._places.leave(self, is_served=is_served)


class Places:
    """The waiting claims of one controller."""

    def __init__(self) -> None:
        self.queue: FairQueue[Ticket] = FairQueue()
        self._shapes: Counter[str | None] = Counter()  # of those who wait
        self._full: dict[str, float] = {}  # templates at their max, and until when that is believed

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self.queue)

    def is_waited_for(self, shape: str | None) -> bool:
        """Whether somebody waits who would take a warm desktop of that shape."""
        return self._shapes[shape] > 0

    @contextmanager
    def ticket(
        self, tenant: str, until: float, template: str, shape: str | None
    ) -> Iterator[Ticket]:
        """For one claim; it does not stand in the queue before it has to."""
        ticket = Ticket(self, tenant, until, template, shape)
        is_served = False
        try:
            yield ticket
            is_served = True
            if ticket.place is not None:
                self.queue.served(time.monotonic())
        finally:
            ticket.leave(is_served=is_served)
            self.freed()  # the next one may find room too

    def enter(self, tenant: str, ticket: Ticket) -> None:
        """
        Raises:
            NoCapacity: too many wait.
        """
        self.queue.push(tenant, ticket)
        self._shapes[ticket.shape] += 1

    def leave(self, ticket: Ticket, *, is_served: bool) -> None:
        self.queue.remove(ticket, is_served=is_served)
        self._shapes[ticket.shape] -= 1
        if not self._shapes[ticket.shape]:
            del self._shapes[ticket.shape]

    @property
    def has_next(self) -> bool:
        """Whether somebody waits whose turn it would be before any newcomer's."""
        return self._next() is not None

    def full(self, template: str) -> None:
        """No more of it may be started for now: others go first, and one of it tries again."""
        self._full[template] = time.monotonic() + 2 * AGAIN_SECONDS
        self.freed()

    def freed(self, template: str | None = None, shape: str | None = None) -> None:
        """Something may have come free: a place, one of a template's, a warm desktop of a shape."""
        if template is not None:
            self._full.pop(template, None)
        if (ticket := self._next()) is not None:
            ticket.call()
        if shape is not None and (ticket := self._first_of(shape)) is not None:
            ticket.call()

    def turn_of(self, ticket: Ticket) -> Turn | None:
        """What it may try for now."""
        if self._next() is ticket:
            return "place"
        alike = self.queue.peek(lambda other: other.template == ticket.template)
        if ticket.template in self._full and alike is ticket:
            return "place"
        if ticket.shape is not None and self._first_of(ticket.shape) is ticket:
            return "warm"
        return None

    def _next(self) -> Ticket | None:
        now = time.monotonic()
        self._full = {name: until for name, until in self._full.items() if until > now}
        return self.queue.peek(lambda ticket: ticket.template not in self._full)

    def _first_of(self, shape: str) -> Ticket | None:
        if not self.is_waited_for(shape):
            return None
        return self.queue.peek(lambda ticket: ticket.shape == shape)
