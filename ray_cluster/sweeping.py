"""Asks each node what it has (:mod:`ray_cluster.node`), and remembers what it told of itself.

On this process' own node it is asked in a thread; on another one by a Ray task, which costs a
worker's start there. A node that does not answer in time is passed over, and asked again next time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from ray_cluster import node
from workspace.errors import Unavailable
from workspace.models import Node

ASK_SECONDS = node.LIST_SECONDS + 10.0  # with a worker's start
AT_ONCE = 16  # nodes that are asked
BELIEVED_SECONDS = 90.0

T = TypeVar("T")
log = logging.getLogger(__name__)


class Call(Protocol):
    """One of Ray's blocking calls, bounded: see ``Cluster``."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


class Sweeping:
    """The nodes of one cluster, asked with its backends' settings."""

    def __init__(self, settings: node.Settings, *, own_node: str, call: Call) -> None:
        self._settings = {name: dict(own) for name, own in settings.items()}
        self._own = own_node
        self._call = call
        self._machines: dict[str, tuple[float, node.Machine]] = {}  # when each told, and what

    def machines(self) -> dict[str, node.Machine]:
        """What the nodes told of their memory, lately; this one's as it is now."""
        then = time.monotonic() - BELIEVED_SECONDS
        self._machines = {name: each for name, each in self._machines.items() if each[0] > then}
        return {name: told for name, (_, told) in self._machines.items()} | {
            self._own: node.machine()
        }

    async def look(self, nodes: Sequence[Node]) -> dict[str, set[str]]:
        """The sandboxes of each node that answers."""
        found: dict[str, set[str]] = {}
        few = asyncio.Semaphore(AT_ONCE)

        async def ask(name: str) -> None:
            async with few:
                try:
                    found[name] = set((await self._ask(name, []))["sandboxes"])
                except Unavailable as error:
                    log.warning("node %s is passed over: %s", name, error.message)

        await asyncio.gather(*(ask(each.id) for each in nodes if each.alive and each.slots))
        return found

    async def end(self, name: str, sandboxes: Collection[str]) -> None:
        """End them there, and remove what there is of them.

        Raises:
            Unavailable: the node does not answer, or something of them stays.
        """
        told = await self._ask(name, sorted(sandboxes), seconds=ASK_SECONDS + node.END_SECONDS)
        if told["failed"]:
            sandbox, why = next(iter(told["failed"].items()))
            raise Unavailable(f"Sandbox {sandbox} stays on node {name}: {why}")

    async def _ask(
        self, name: str, end: Sequence[str], *, seconds: float = ASK_SECONDS
    ) -> node.Wire:
        try:
            if name == self._own:
                asked = asyncio.to_thread(node.ask, self._settings, end)
                told = await asyncio.wait_for(asked, seconds)
            else:
                told = await self._ask_there(name, end, seconds)
        except asyncio.TimeoutError as error:
            raise Unavailable(f"It did not answer within {seconds:.0f} seconds.") from error
        except OSError as error:
            raise Unavailable(f"It cannot be looked at: {error}.") from error
        self._machines[name] = (time.monotonic(), told["machine"])
        return told

    async def _ask_there(self, name: str, end: Sequence[str], seconds: float) -> node.Wire:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def submit() -> Any:  # Any: Ray's reference
            there = NodeAffinitySchedulingStrategy(name, soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(node.ask)
            return task.options(scheduling_strategy=there).remote(self._settings, list(end))

        answer = await self._call(submit)
        try:
            told: node.Wire = await asyncio.wait_for(answer, seconds)
        except (asyncio.TimeoutError, asyncio.CancelledError):
            ray.cancel(answer)
            raise
        except ray.exceptions.RayError as error:
            raise Unavailable(f"Ray failed: {type(error).__name__}.") from error
        return told
