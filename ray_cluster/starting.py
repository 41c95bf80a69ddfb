"""How a desktop begins and ends as an actor: placed, made, waited for; elsewhere if need be.

A start that fails or is cancelled leaves no actor and no sandbox. One that fails for its node's own
reason is tried on others, once on each at most, and only where nothing of it can be left: its
actor said so as it ended, or it never ran, and has made no sandbox (actors.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ray_cluster import actors, placing, volumes
from ray_cluster.asking import RAY_SECONDS, Asking
from ray_cluster.capacity import asked_of
from ray_cluster.handles import PREFIX, Handles
from ray_cluster.placement import NODE_ID, Spot, Wish
from workspace.backends.base import Endpoint
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    DesktopLost,
    DiskFull,
    NoCapacity,
    StartFailed,
    TimedOut,
    Unavailable,
)

if TYPE_CHECKING:
    from ray.actor import ActorHandle

STOP_SECONDS = actors.STOP_SECONDS + actors.ANSWER_SECONDS + 1
PENDING_SECONDS = 1.0  # for an actor that has not come up to say that it has
# Processes of actors that start on one node at a time, of one controller. Each takes a third of a
# second of a processor, and more at once would only keep the node from answering its head.
AT_ONCE = 5
UP_SECONDS = 30.0
_NEVER_RAN = "never ran"  # in Ray's words on an actor whose node died before

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """A desktop that is ready to act, and where this process reaches it."""

    workspace_id: str
    endpoint: Endpoint
    node: str
    node_name: str
    remaining_seconds: float  # until its deadline, by the clock of its node


class _Stuck(DesktopLost):
    """An actor has not come up, and will not."""

    def __init__(self, message: str, *, is_nodes_fault: bool = False) -> None:
        super().__init__(message)
        self.is_nodes_fault = is_nodes_fault


class _Elsewhere(Exception):
    """It did not start on a node, of which that node is to blame; ``error`` says why."""

    def __init__(self, error: CarrelError) -> None:
        super().__init__(error.message)
        self.error = error


class Starting:
    """Makes the actors of one cluster, and ends them."""

    def __init__(
        self, ray: Any, asking: Asking, handles: Handles, placing: placing.Placing, namespace: str
    ) -> None:  # Any: the module
        self._ray = ray
        self._asking = asking
        self._handles = handles
        self._placing = placing
        self._namespace = namespace
        # Wrapped once: wrapping anew for each actor would export the class each time.
        self._actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(
            actors.DesktopActor
        )
        self._node = ray.get_runtime_context().get_node_id()
        self._gates: dict[str, asyncio.Semaphore] = {}  # by node
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: of whatever result

    async def start(
        self,
        workspace_id: str,
        spec: actors.Wire,
        wish: Wish,
        *,
        placed: Callable[[], None] | None,
    ) -> Located:
        """See :meth:`ray_cluster.cluster.Cluster.start`. ``spec``: what its actor is told."""
        deadline = time.monotonic() + spec["start_seconds"]
        tried: set[str] = set()
        while True:
            try:
                return await self._once(workspace_id, spec, wish, tried, deadline, placed)
            except _Elsewhere as failure:
                error, left = failure.error, deadline - time.monotonic()
                if left <= 0 or not await self._placing.is_elsewhere(wish, tried):
                    raise error from failure.__cause__
                log.warning("desktop %s is started elsewhere: %s", workspace_id, error.message)

    async def _once(
        self,
        workspace_id: str,
        spec: actors.Wire,
        wish: Wish,
        tried: set[str],
        deadline: float,
        placed: Callable[[], None] | None,
    ) -> Located:
        """One try; on which node, ``tried`` is told. See :meth:`start`.

        Raises:
            _Elsewhere: it was the node's fault, and nothing is left there.
        """
        left = deadline - time.monotonic()
        too_late = StartFailed(
            f"The desktop was not ready within {spec['start_seconds']:.0f} seconds."
        )
        spot = await self._placing.reserve(workspace_id, wish, tried=tried)
        tried.add(spot.id)
        creating = self.spawn(self._create(workspace_id, spec, wish, spot, placed))
        try:
            handle = await asyncio.wait_for(asyncio.shield(creating), left)
            located = await self._up(workspace_id, handle, spot, wish, deadline)
        except asyncio.CancelledError:
            self.spawn(self._discard(workspace_id, creating))
            raise
        except asyncio.TimeoutError as error:
            self.spawn(self._discard(workspace_id, creating))
            raise too_late from error
        except CarrelError as error:
            # What the actor told of, it told when nothing of the sandbox was left.
            has_ended = type(error) not in (TimedOut, DesktopLost, Unavailable, _Stuck)
            seconds = PENDING_SECONDS if isinstance(error, _Stuck) else STOP_SECONDS
            discarding = self._discard(workspace_id, creating, has_ended=has_ended, seconds=seconds)
            await asyncio.shield(self.spawn(discarding))
            if (told := self._of_the_node(error, spot)) is not None:
                raise _Elsewhere(told) from error
            if isinstance(error, TimedOut):
                raise too_late from error
            if isinstance(error, DesktopLost):
                raise StartFailed(f"The desktop's actor died: {error.message}") from error
            raise
        self._placing.suspects.clear(spot.id)
        return located

    def _of_the_node(self, error: CarrelError, spot: Spot) -> CarrelError | None:
        """What is to be told where no other node is left; None: another one would fail as well,
        or the desktop may have lived.
        """
        suspects = self._placing.suspects
        if isinstance(error, _Stuck):
            if error.is_nodes_fault:
                suspects.blame(spot.id, error.message)
            return NoCapacity(f"Node {spot.name!r} did not start it: {error.message}.")
        if isinstance(error, DesktopLost) and _NEVER_RAN in error.message:
            suspects.blame(spot.id, "It died as a desktop was placed there.")
            return StartFailed(f"Node {spot.name!r} died: {error.message}")
        if isinstance(error, (BackendUnavailable, DiskFull)):
            suspects.blame(spot.id, error.message)
            return error
        # The node's own scheduler knows of something that takes room there, and Ray does not.
        return error if isinstance(error, NoCapacity) else None

    async def _create(
        self,
        workspace_id: str,
        spec: actors.Wire,
        wish: Wish,
        spot: Spot,
        placed: Callable[[], None] | None,
    ) -> ActorHandle[Any]:  # Any: Ray's handles are not typed by class
        """Make an actor at the place that is reserved for it."""
        is_abandoned = threading.Event()

        def create() -> ActorHandle[Any]:  # Any: Ray's handles are not typed by class
            handle: ActorHandle[Any] = self._actor.options(  # Any: as above
                name=PREFIX + workspace_id,
                namespace=self._namespace,
                lifetime="detached",
                resources=asked_of(spot.offered, wish.needs),
                scheduling_strategy=volumes.only_on(spot.id),
                # By the first others see where it will be, before it is there.
                label_selector={**wish.labels, NODE_ID: spot.id},
            ).remote(spec)
            if is_abandoned.is_set():
                self._ray.kill(handle)
            return handle

        gate = self._gates.setdefault(spot.id, asyncio.Semaphore(AT_ONCE))
        await gate.acquire()
        try:
            handle = await self._asking.call(create)
        except CarrelError:
            is_abandoned.set()  # Ray was too slow to be waited for: should it be done later
            gate.release()
            self._placing.release(workspace_id)
            raise
        self.spawn(self._open(gate, handle))
        self._placing.made(workspace_id)
        self._handles.keep(workspace_id, handle)
        if placed is not None:
            placed()
        return handle

    async def _open(self, gate: asyncio.Semaphore, handle: ActorHandle[Any]) -> None:  # Any: above
        """Let the next one start there once this one has, or will not."""
        try:
            await self._asking.ask(handle.up.remote(), seconds=UP_SECONDS)
        except CarrelError as error:  # who waits for its desktop is told as well
            log.debug("an actor did not come up: %s", error.message)
        finally:
            gate.release()

    async def _up(
        self,
        workspace_id: str,
        handle: ActorHandle[Any],  # Any: see _create
        spot: Spot,
        wish: Wish,
        deadline: float,
    ) -> Located:
        """Its desktop, once it is ready; its actor is looked for while it does not answer.

        Raises:
            _Stuck: the actor has not come up, and will not.
        """
        began = time.monotonic()
        ready = self.located(workspace_id, handle, seconds=deadline - began)
        waiting = asyncio.ensure_future(ready)
        needs = asked_of(spot.offered, wish.needs)
        is_up = False
        try:
            while not (await asyncio.wait([waiting], timeout=placing.LOOK_SECONDS))[0]:
                if is_up:
                    continue
                is_up, is_crowded = await self._placing.state(workspace_id, spot, needs)
                if is_crowded:
                    raise _Stuck("other desktops have its last places")
                if not is_up and time.monotonic() - began > placing.NEVER_SECONDS:
                    raise _Stuck("no process came up for its actor", is_nodes_fault=True)
            return waiting.result()
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait([waiting])

    async def _discard(
        self,
        workspace_id: str,
        creating: asyncio.Task[ActorHandle[Any]],  # Any: Ray's handles are not typed by class
        *,
        has_ended: bool = False,
        seconds: float = STOP_SECONDS,
    ) -> None:
        """After a failed or abandoned start: wait for the actor to exist, then end it."""
        try:
            handle = await creating
            if has_ended:
                await self._handles.kill(workspace_id, handle)
            else:
                await self.end(workspace_id, handle, seconds=seconds)
        except CarrelError as error:
            log.info("discarding desktop %s: %s", workspace_id, error.message)
        finally:
            self._placing.release(workspace_id)

    async def end(
        self,
        workspace_id: str,
        handle: ActorHandle[Any],  # Any: see _create
        *,
        seconds: float = STOP_SECONDS,
    ) -> None:
        try:
            await self._asking.ask(handle.stop.remote(), seconds=seconds)
        except (DesktopLost, TimedOut) as error:
            # Its death closes the pipe of the sandbox's supervisor, which cleans up.
            log.warning("desktop %s is ended the hard way: %s", workspace_id, error.message)
        await self._handles.kill(workspace_id, handle)
        self._placing.release(workspace_id)

    async def located(
        self,
        workspace_id: str,
        handle: ActorHandle[Any],  # Any: see _create
        *,
        wait: bool = True,
        seconds: float = RAY_SECONDS,
    ) -> Located:
        said = await self._asking.ask(handle.ready.remote(wait), seconds=seconds)
        url = said["url"]
        if said["node"] != self._node and url.startswith("unix://"):
            url = (await self._asking.ask(handle.relay.remote()))["url"]
        return Located(
            workspace_id,
            Endpoint(url=url, token=said["token"]),
            node=said["node"],
            node_name=said["node_name"],
            remaining_seconds=said["remaining_seconds"],
        )

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:  # Any: they yield nothing
        """A task that goes on when who waits for it is cancelled."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
