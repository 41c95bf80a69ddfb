"""The reaper: what only one of the store, the cluster and its nodes believes in is removed.

- an actor that no row names is stopped;
- what a node has of a sandbox that no actor owns and no row names is removed;
- a row of this controller's that none of its tasks owns gets one, which ends it if it was a claim
  that was believed to have failed;
- a task whose row is another controller's, or is gone, lets go;
- the row of a warm desktop that has no actor is dropped.

A row is written before its actor is made, an actor before its sandbox, and they are read the other
way round: so what is just starting is never taken for a stray. What is just ending may look like
one for a moment, so only what looks so twice, some seconds apart, is one. What cannot be read is
not compared. A removal that fails is tried again in the next round.

What all controllers share is compared by the one that leads; a controller's own rows and the
folders it has desktops made in, by each. What a row names and the cluster has lost is its keeper's
to tell (:mod:`controller.keeping`).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Literal

import anyio

from controller.keeping import Keeping
from controller.live import SYSTEM
from controller.replicas import Replica
from workspace.errors import CarrelError

PERIOD_SECONDS = 15.0
_JITTER = 0.2  # of that
NODES_EVERY = 4  # rounds: a node that is not this one is asked by a process of its own
AGAIN_SECONDS = 5.0  # what is being ended is gone by then
WARMING_SECONDS = 300.0  # longer than any start takes
REMOVE_SECONDS = 120.0
BEGIN_SECONDS = 5.0  # nobody is served before
_AT_ONCE = 8  # removals

Where = Literal["actor", "sandbox", "workspace", "task", "warm"]
_WHY: dict[Where, str] = {
    "actor": "No workspace and no pool has this desktop.",
    "sandbox": "Neither a workspace nor an actor has this sandbox.",
    "workspace": "No task of its controller looked after it.",
    "task": "Its workspace is another controller's, or is gone.",
    "warm": "It waited for a claim, and has no actor.",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stray:
    """Something that only one of them believes in; ``id`` is a workspace's or a sandbox'."""

    where: Where
    id: str
    node: str | None = None


class Reaper:
    """Compares and removes, for one controller."""

    def __init__(
        self, keeping: Keeping, replica: Replica, *, again_seconds: float = AGAIN_SECONDS
    ) -> None:
        self._keeping = keeping
        self._replica = replica
        self._store = keeping.store
        self._cluster = keeping.cluster
        self._again_seconds = again_seconds
        self._without_actor: dict[str, float] = {}  # rows that say they warm up; since when

    async def begin(self) -> int:
        """Stop at once what a controller before this one left; how many there were.

        Raises:
            Unavailable: the store or the cluster does not answer.
        """
        strays = await self._shared()
        if strays:
            strays &= await self._shared()
        with anyio.move_on_after(BEGIN_SECONDS):  # what takes longer, the first round ends
            return await self._remove(strays)
        return 0

    async def run(self) -> None:
        """Compare and remove, until cancelled."""
        for turn in count():
            try:
                await self.sweep(nodes=turn % NODES_EVERY == 0)
            except Exception:  # the next round comes, whatever this one ran into
                _log.exception("looking for strays failed")
            await anyio.sleep(PERIOD_SECONDS * random.uniform(1 - _JITTER, 1 + _JITTER))

    async def sweep(self, *, nodes: bool = True) -> int:
        """One round; how many strays were removed."""
        strays = await self._look(nodes=nodes)
        if strays:
            await anyio.sleep(self._again_seconds)
            strays &= await self._look(nodes=nodes)
        return await self._remove(strays)

    # Comparing.

    async def _look(self, *, nodes: bool) -> set[Stray]:
        looks = [self._own, self._shared, *([self._left] if nodes else [])]
        found: set[Stray] = set()
        for look in looks:
            try:
                found |= await look()
            except CarrelError as error:
                _log.warning("strays cannot be looked for: %s", error.message)
        return found

    async def _own(self) -> set[Stray]:
        """Of the rows that this controller keeps, and the tasks that own them."""
        live = self._keeping.live
        written = {name for name, each in live.items() if each.is_written}
        kept = await self._store.replicas.kept_by(self._keeping.replica)
        rows = {name for name in kept if name not in live and not self._replica.is_taking(name)}
        lost = {
            name
            for name in written - kept
            if name in live and live[name].end_state is None and not live[name].is_lost
        }
        return _strays("workspace", rows) | _strays("task", lost)

    async def _shared(self) -> set[Stray]:
        """Of all actors, and the rows that name them."""
        if not await self._store.leadership.is_ours():
            return set()
        warm = await self._store.warm.states()
        names = await self._cluster.names()
        unknown = names - warm.keys() - self._owned()
        unknown -= await self._store.named(unknown)
        now = time.monotonic()
        without = [(name, state) for name, state in warm.items() if name not in names]
        self._without_actor = {
            name: self._without_actor.get(name, now)
            for name, state in without
            if state == "warming"
        }
        gone = {name for name, state in without if state == "warm"}
        gone |= {
            name for name, since in self._without_actor.items() if now - since > WARMING_SECONDS
        }
        return _strays("actor", unknown) | _strays("warm", gone)

    def _owned(self) -> set[str]:
        """The sandboxes of the tasks here: of these the store need not be asked."""
        live = self._keeping.live.values()
        return {each.workspace.sandbox for each in live if each.is_written and not each.is_lost}

    async def _left(self) -> set[Stray]:
        """Of what the nodes have of sandboxes."""
        left = await self._cluster.left()
        if not left:
            return set()
        named = await self._store.named(set().union(*left.values()))
        return {
            stray
            for node, found in left.items()
            for stray in _strays("sandbox", found - named, node)
        }

    # Removing.

    async def _remove(self, strays: Iterable[Stray]) -> int:
        """Remove them, some at once; how many were."""
        left = set(strays)
        many = self._keeping.metrics.strays = len(left)
        few = anyio.CapacityLimiter(_AT_ONCE)

        async def remove(stray: Stray) -> None:
            async with few:
                if await self._is_removed(stray):
                    left.discard(stray)
                    self._keeping.metrics.strays = len(left)

        async with anyio.create_task_group() as tasks:
            for stray in left.copy():
                tasks.start_soon(remove, stray)
        return many - len(left)

    async def _is_removed(self, stray: Stray) -> bool:
        _log.warning("stray: %s %s on %s", stray.where, stray.id, stray.node or "no known node")
        try:
            with anyio.fail_after(REMOVE_SECONDS):
                await self._removal(stray)()
        except (CarrelError, TimeoutError) as error:
            _log.warning("the stray %s %s stays for now: %s", stray.where, stray.id, error)
            return False
        self._keeping.metrics.strays_removed[stray.where] += 1
        where = {"where": stray.where} | ({"node": stray.node} if stray.node else {})
        try:
            await self._keeping.events.record(
                "stray", actor=SYSTEM, workspace_id=stray.id, why=_WHY[stray.where], **where
            )
        except CarrelError as error:  # it is gone all the same
            _log.warning("the stray %s is not in the log: %s", stray.id, error.message)
        return True

    def _removal(self, stray: Stray) -> Callable[[], Awaitable[object]]:
        async def lose() -> None:
            if (live := self._keeping.live.get(stray.id)) is not None:
                live.lose()

        return {
            "actor": lambda: self._cluster.stop(stray.id),
            "sandbox": lambda: self._cluster.clear(stray.node or "", [stray.id]),
            "workspace": lambda: self._replica.recover(stray.id),
            "task": lose,
            "warm": lambda: self._store.warm.drop(stray.id),
        }[stray.where]


def _strays(where: Where, ids: Iterable[str], node: str | None = None) -> set[Stray]:
    return {Stray(where, each, node) for each in ids}
