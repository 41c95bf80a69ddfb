"""Places for the desktops of one controller: chosen one after the other, made at the same time.

What is chosen is reserved here until the head's table of actors tells of it, so that however many
start at once, none gets the place of another; nobody waits for another's actor to be made. All that
ask within a moment are answered by one look at the head. Should another controller have chosen the
same place at the same moment, Ray makes one of the two actors wait: that is found out too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from ray_cluster import placement
from ray_cluster.capacity import Amounts, asked_of
from ray_cluster.placement import Actor, Seen, Spot, Strategy, Wish
from ray_cluster.suspects import Suspects
from workspace.errors import CarrelError, Unavailable

FRESH_SECONDS = 0.2
# An actor that did not come up for so long is looked for; its process takes a third of a second.
LOOK_SECONDS = 5.0
NEVER_SECONDS = 60.0


@dataclass
class _Reserved:
    spot: Spot
    needs: Amounts
    made_at: float | None = None  # when its actor was in the head's table


class Placing:
    """``look`` asks the head; ``key`` is how it calls the actor of a desktop."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Seen]],
        key: Callable[[str], str],
        strategy: Strategy,
        suspects: Suspects | None = None,
    ) -> None:
        self._look = look
        self._key = key
        self._strategy = strategy
        self.suspects = suspects or Suspects()
        self._reserved: dict[str, _Reserved] = {}
        self._looking = asyncio.Lock()
        self._seen: tuple[float, Seen] | None = None  # as it was then, or later
        self._failed: tuple[float, CarrelError] | None = None  # the last look, if it did

    async def reserve(self, workspace_id: str, wish: Wish, *, tried: Collection[str] = ()) -> Spot:
        """A place for one more desktop; until :meth:`release`, or until the table tells of it.

        Raises:
            NoCapacity, BackendUnavailable: see :func:`placement.choose`.
            Unavailable: Ray does not answer.
        """
        await self._fresh()
        # From here on nothing is waited for: so no two get the same one.
        spots = self._spots()
        random.shuffle(spots)
        if self._strategy == "pack":  # all controllers fill the same node
            spots.sort(key=lambda spot: spot.id)
        spot = placement.choose(
            spots, wish, self._strategy, suspects=self.suspects.now(), tried=tried
        )
        needs = asked_of(spot.offered, wish.needs)
        self._reserved[workspace_id] = _Reserved(spot, needs)
        return spot

    def made(self, workspace_id: str) -> None:
        """Its actor is in the head's table by now."""
        if (reserved := self._reserved.get(workspace_id)) is not None:
            reserved.made_at = time.monotonic()

    def release(self, workspace_id: str) -> None:
        """There is no actor, and there will be none."""
        self._reserved.pop(workspace_id, None)
        self._seen = None  # somewhere there may be room again

    async def is_elsewhere(self, wish: Wish, tried: Collection[str]) -> bool:
        """Whether there are nodes that were not tried, and on which it may come up."""
        await self._fresh()
        suspects = self.suspects.now()
        return placement.could_be_elsewhere(
            self._spots(), wish, tried=tried, suspects=suspects.keys()
        )

    async def state(self, workspace_id: str, spot: Spot, needs: Amounts) -> tuple[bool, bool]:
        """Whether an actor that does not answer has come up; and if not, whether others have taken
        what it waits for. Neither, where nobody can tell.
        """
        try:
            seen = await self._fresh()
        except CarrelError:
            return False, False
        own = seen.actors.get(self._key(workspace_id))
        if own is None or own.is_alive:
            return own is not None, False
        there = next((each for each in seen.spots if each.id == spot.id), None)
        if there is None:
            return False, False  # its node has died: Ray says so itself
        alive = [each for each in seen.actors.values() if each.is_alive]
        [now] = placement.with_taken([Spot(there.id, there.name, there.offered)], alive)
        return False, not now.has_room(needs)

    async def _fresh(self) -> Seen:
        asked_at = time.monotonic()
        async with self._looking:
            if self._seen is None or self._seen[0] < asked_at - FRESH_SECONDS:
                if self._failed is not None and self._failed[0] >= asked_at:
                    # Whoever waited for that look is told the same, and looks for no longer.
                    raise Unavailable(self._failed[1].message, hint=self._failed[1].hint)
                began = time.monotonic()
                try:
                    self._seen = (began, await self._look())
                except CarrelError as error:
                    self._failed = (began, error)
                    raise
                self._reserved = {
                    name: it
                    for name, it in self._reserved.items()
                    if it.made_at is None or it.made_at > began
                }
            return self._seen[1]

    def _spots(self) -> list[Spot]:
        """The nodes as they will be once all that is reserved has been made."""
        assert self._seen is not None, "it was looked"
        _, seen = self._seen
        coming = [
            Actor(it.spot.id, it.needs, is_alive=False)
            for name, it in self._reserved.items()
            if self._key(name) not in seen.actors
        ]
        return placement.with_taken(seen.spots, coming)
