"""Claims that wait for a place: one at a time tries again, when something may have come free.

Who is next is the queue's matter (:mod:`controller.queue`). Whoever tries keeps its position, and
the next one may try once it has got a place, which is long before its desktop is up, or has found
none. Two things keep a claim from standing in the way of others: one whose template is at its
``max``, or for which there is no room though there is for others, is passed over for a while, and a
warm desktop that would not do for it goes to the first for whom it does. Each controller has its
own queue.

What comes free elsewhere nobody tells of: once a second those try who are the first of their kind.
However many wait, they wait for one clock, and are walked through once each time.
"""

from __future__ import annotations

import asyncio
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
    """One claim's wait; its ``template`` is the name of it, and with a volume ``name/volume``."""

    def __init__(
        self, places: Places, tenant: str, until: float, template: str, shape: str | None
    ) -> None:
        self.tenant = tenant
        self.template = template
        self.shape = shape
        self.is_queued = False
        self.has_waited = False
        self.is_trying = False  # it stands in the queue, and is none of those who wait
        self._places = places
        self._until = until
        self._turn: Turn | None = None
        self._called = anyio.Event()

    async def turn(self) -> Turn | None:
        """Wait for something that may be had; None when time is up.

        Whoever tried in vain stands where it stood before.

        Raises:
            NoCapacity: too many wait.
        """
        if self._until <= time.monotonic():
            return None
        self._turn, self._called = None, anyio.Event()
        self._places.wait(self)
        with anyio.move_on_after(self._until - time.monotonic()):
            await self._called.wait()
        return self._turn

    @property
    def place(self) -> QueuePlace | None:
        """Where it stands; None if it does not wait."""
        if not self.is_queued:
            return None
        queue = self._places.queue
        return QueuePlace(
            position=queue.position(self), estimate_seconds=queue.estimate(self, time.monotonic())
        )

    def placed(self) -> None:
        """It has its place: it waits no longer, and the next one may try."""
        self._places.leave(self, is_served=True)

    def call(self, turn: Turn) -> None:
        self._turn = turn
        self._called.set()


class Places:
    """The waiting claims of one controller."""

    def __init__(self) -> None:
        self.queue: FairQueue[Ticket] = FairQueue()
        # Of those who wait and do not try just now.
        self._shapes: Counter[str | None] = Counter()
        self._templates: Counter[str] = Counter()
        # Who tries for a place: the next of all, and one of each template at its max.
        self._trying: dict[str | None, Ticket] = {}
        self._is_missed = False  # something came free while one was trying
        self._full: dict[str, float] = {}  # templates at their max, and until when that is believed
        self._again: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self.queue)

    def is_waited_for(self, shape: str | None) -> bool:
        """Whether somebody waits who would take a warm desktop of that shape."""
        return self._shapes[shape] > 0

    @property
    def has_next(self) -> bool:
        """Whether somebody waits whose turn it would be before any newcomer's."""
        return not all(map(self._is_full, self._templates))

    def comes_after(self, kind: str) -> bool:
        """Whether somebody waits before a newcomer of that kind."""
        return self.has_next or kind in self._templates

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
        finally:
            if ticket.is_queued:
                self.leave(ticket, is_served=is_served)
                if is_served:  # by a warm one, and there may be more
                    self.freed(shape=ticket.shape)

    def wait(self, ticket: Ticket) -> None:
        """Let it wait, or go on waiting.

        Raises:
            NoCapacity: too many wait.
        """
        if not ticket.is_queued:
            self.queue.push(ticket.tenant, ticket, first=ticket.has_waited)
            ticket.is_queued = ticket.has_waited = True
        ticket.is_trying = False
        self._count(ticket, 1)
        self._let_others_try(ticket)
        if self._is_missed:
            self._offer()
        if self._again is None:
            self._wind_up()

    def leave(self, ticket: Ticket, *, is_served: bool) -> None:
        """It waits no longer; once it does not, this does nothing."""
        if not ticket.is_queued:
            return
        ticket.is_queued = False
        self.queue.remove(ticket, is_served=is_served)
        if is_served:
            self.queue.served(time.monotonic())
        if not ticket.is_trying:
            self._count(ticket, -1)
        self._let_others_try(ticket)
        self._offer()
        if not len(self.queue) and self._again is not None:
            self._again.cancel()
            self._again = None

    def full(self, template: str) -> None:
        """No more of it can be started for now: others go first, and one of it tries again."""
        self._full[template] = time.monotonic() + 2 * AGAIN_SECONDS
        self._offer()

    def freed(self, template: str | None = None, shape: str | None = None) -> None:
        """Something may have come free: a place, one of a template's, a warm desktop of a shape."""
        if template is not None:
            ours = f"{template}/"  # those with a volume
            for kind in [it for it in self._full if it == template or it.startswith(ours)]:
                del self._full[kind]
        self._offer()
        if shape is not None and self.is_waited_for(shape):
            first = self.queue.peek(lambda it: it.shape == shape and not it.is_trying)
            if first is not None:
                self._call(first, "warm")

    def tick(self) -> None:
        """Have those try who are the first of their kind: one walk, however many wait."""
        self._full = {name: until for name, until in self._full.items() if self._is_full(name)}
        self._offer()
        full = {name for name in self._full if self._templates[name] and name not in self._trying}
        shapes = self._shapes.keys() - {None}
        for ticket in self.queue:
            if not full and not shapes:
                break
            is_first = ticket.shape in shapes
            shapes.discard(ticket.shape)
            if ticket.is_trying:
                continue
            if ticket.template in full:
                full.discard(ticket.template)
                self._trying[ticket.template] = ticket
                self._call(ticket, "place")
            elif is_first:
                self._call(ticket, "warm")

    def _wind_up(self) -> None:
        def again() -> None:
            self._wind_up()
            self.tick()

        self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, again)

    def _offer(self) -> None:
        """Have the next one try for a place, unless one is trying."""
        self._is_missed = None in self._trying
        if self._is_missed or not self.has_next:
            return
        ticket = self.queue.peek(lambda it: not (it.is_trying or self._is_full(it.template)))
        if ticket is not None:
            self._trying[None] = ticket
            self._call(ticket, "place")

    def _call(self, ticket: Ticket, turn: Turn) -> None:
        ticket.is_trying = True
        self._count(ticket, -1)
        ticket.call(turn)

    def _let_others_try(self, ticket: Ticket) -> None:
        self._trying = {name: one for name, one in self._trying.items() if one is not ticket}

    def _count(self, ticket: Ticket, change: int) -> None:
        self._shapes[ticket.shape] += change
        if not self._shapes[ticket.shape]:
            del self._shapes[ticket.shape]
        self._templates[ticket.template] += change
        if not self._templates[ticket.template]:
            del self._templates[ticket.template]

    def _is_full(self, template: str) -> bool:
        return self._full.get(template, 0.0) > time.monotonic()
