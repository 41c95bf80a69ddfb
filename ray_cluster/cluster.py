"""Cluster: all that the controller sees of Ray.

Each desktop is owned by one named, detached actor (actors.py); its name in the cluster is the truth
of which desktops live, so a controller that restarts finds them. A call here never retries what may
have happened, and never waits without an end (asking.py). When Ray itself does not answer, it
raises :class:`~workspace.errors.Unavailable` and the process lives on; what is asked of a desktop's
actor alone needs no more than that actor.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ray_cluster import actors, placement, placing, sweeping, volumes
from ray_cluster.asking import RAY_SECONDS, Asking, look_at_head
from ray_cluster.capacity import asked_of, needed
from ray_cluster.connection import HEAD_SECONDS, connect, disconnect
from ray_cluster.handles import PREFIX, Handles
from ray_cluster.leases import Lease
from ray_cluster.placement import NODE_ID, Spot, Strategy, Wish
from workspace.backends import footprint
from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.egress import Egress, EgressUse, Secret
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    DesktopLost,
    DiskFull,
    NoCapacity,
    StartFailed,
    TimedOut,
    Unavailable,
    WorkspaceNotFound,
)
from workspace.models import ErrorInfo, Node, Stats, Template

if TYPE_CHECKING:
    from ray.actor import ActorHandle

NODE_LOST = "node_lost"
STOP_SECONDS = actors.STOP_SECONDS + actors.ANSWER_SECONDS + 1
PENDING_SECONDS = 1.0  # for an actor that has not come up to say that it has
PAUSE_SECONDS = 30.0
_NEVER_RAN = "never ran"  # in Ray's words on an actor whose node died before
AGAIN_SECONDS = 0.5
WATCH_SECONDS = 10.0  # Ray waits for calls in flight when an actor is told to end (SIGTERM)

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


class Cluster:
    """Desktops on a running Ray, under one namespace."""

    def __init__(
        self,
        *,
        address: str,
        namespace: str,
        backends: Mapping[str, Mapping[str, Any]],  # Any: each backend's settings, plain JSON
        strategy: Strategy,
        lease: Lease | None = None,
    ) -> None:
        """Use :meth:`connect`."""
        import ray

        self._ray = ray
        self._asking = Asking(address)
        self._handles = Handles(self._asking, namespace)
        self._address = address
        self._namespace = namespace
        self._backends = backends
        self._lease = lease
        # Wrapped once: wrapping anew for each actor would export the class each time.
        self._actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(
            actors.DesktopActor
        )
        self._node = ray.get_runtime_context().get_node_id()
        self._sweeping = sweeping.Sweeping(backends, own_node=self._node, call=self._asking.call)
        self._placing = placing.Placing(
            lambda: self._asking.call(lambda: placement.look(address, seconds=HEAD_SECONDS)),
            lambda workspace_id: f"{namespace}/{PREFIX}{workspace_id}",
            strategy,
        )
        self._stopped: deque[str] = deque(maxlen=1000)  # the last ones that we ended
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: of whatever result
        self.volumes = volumes.Volumes(
            ray, self._asking.ask, self._asking.call, self.nodes, backends
        )

    @classmethod
    def connect(
        cls,
        *,
        address: str,
        token: str,
        backends: Mapping[str, Mapping[str, Any]],  # Any: each backend's settings, plain JSON
        namespace: str = "carrel",
        strategy: Strategy = "spread",
        lease: Lease | None = None,
    ) -> Cluster:
        """Join the Ray at ``address``. Blocks; call it before the event loop or in a thread.

        Desktops that are started live as long as their ``lease`` is renewed; without one, until
        they are stopped or their deadline comes.

        Raises:
            Unavailable: it does not answer, or refuses the token.
        """
        look_at_head(address)
        connect(address, token, namespace)
        return cls(
            address=address,
            namespace=namespace,
            backends=backends,
            strategy=strategy,
            lease=lease,
        )

    def is_same(self) -> bool:
        """Whether the head that answers now is the one that was joined, or has all that it knew,
        and this process' node is one of its own. Blocks.
        """
        try:
            seen = placement.look(self._address, seconds=HEAD_SECONDS)
        except Exception as error:  # Ray raises what it likes here
            log.warning("Ray's head does not tell what it knows: %r", error)
            return False
        return any(spot.id == self._node for spot in seen.spots)

    def close(self) -> None:
        """Leave; desktops live on."""
        disconnect()

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        ttl_seconds: float,
        timeout_seconds: float = 60,
        background: bool = False,
        node: str | None = None,
        volume: Mount | None = None,
        avoid: Collection[str] = (),
        placed: Callable[[], None] | None = None,
    ) -> Located:
        """A new desktop, ready to act; it ends ``ttl_seconds`` from now unless extended.

        With ``background`` it yields the processor to the others until :meth:`claimed`. With
        ``node`` it is started on the one of that name; a ``volume`` there is its home. It is on
        none of the nodes to ``avoid`` (their ids). It is ``placed`` once its slot is taken, long
        before it is ready.
        Where it does not come up for the node's own reason, it is started on another one, once on
        each at most, and that node is avoided for a while.
        When this fails, or is cancelled, no actor and no sandbox is left.

        Raises:
            NoCapacity: no node that it may be on has room for it now.
            VolumeInUse: another desktop has the volume.
            BackendUnavailable: no node has the labels or the memory that its template wants; or
                the backend's own words, as are StartFailed and DiskFull.
            Unavailable: Ray does not answer.
        """
        if template.backend not in self._backends:
            raise BackendUnavailable(
                f"Template {template.name!r} wants the backend {template.backend!r}.",
                hint=f"This cluster has: {', '.join(self._backends) or 'none'}.",
            )
        spec = {
            "workspace_id": workspace_id,
            "template": template.model_dump(mode="json"),
            "backend": template.backend,
            "settings": dict(self._backends[template.backend]),
            "ttl_seconds": ttl_seconds,
            "start_seconds": timeout_seconds,
            "background": background,
            "volume": volume.model_dump() if volume is not None else None,
            "lease": self._lease.terms(workspace_id) if self._lease is not None else None,
        }
        wish = Wish(
            needed(footprint.of(template, self._backends[template.backend])),
            template.node_labels,
            name=node,
            avoid=frozenset(avoid),
        )
        deadline = time.monotonic() + timeout_seconds
        tried: set[str] = set()
        while True:
            try:
                return await self._start(workspace_id, spec, wish, tried, deadline, placed)
            except _Elsewhere as failure:
                error, left = failure.error, deadline - time.monotonic()
                if left <= 0 or not await self._placing.is_elsewhere(wish, tried):
                    raise error from failure.__cause__
                log.warning("desktop %s is started elsewhere: %s", workspace_id, error.message)

    async def _start(
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
        creating = self._spawn(self._create(workspace_id, spec, wish, spot, placed))
        try:
            handle = await asyncio.wait_for(asyncio.shield(creating), left)
            located = await self._up(workspace_id, handle, spot, wish, deadline)
        except asyncio.CancelledError:
            self._spawn(self._discard(workspace_id, creating))
            raise
        except asyncio.TimeoutError as error:
            self._spawn(self._discard(workspace_id, creating))
            raise too_late from error
        except CarrelError as error:
            # What the actor told of, it told when nothing of the sandbox was left.
            has_ended = type(error) not in (TimedOut, DesktopLost, Unavailable, _Stuck)
            seconds = PENDING_SECONDS if isinstance(error, _Stuck) else STOP_SECONDS
            discarding = self._discard(workspace_id, creating, has_ended=has_ended, seconds=seconds)
            await asyncio.shield(self._spawn(discarding))
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

    async def extend(self, workspace_id: str, ttl_seconds: float) -> None:
        """The desktop ends ``ttl_seconds`` from now.

        Raises:
            WorkspaceNotFound: the cluster does not know it.
            WorkspaceEnded: it has ended.
        """
        await self._handles.tell(workspace_id, "extend", ttl_seconds)

    async def claimed(self, workspace_id: str, ttl_seconds: float) -> None:
        """Somebody has this desktop now, or waits for it to be up: it ends ``ttl_seconds`` from
        now, and is no longer in the background. One call to its actor. Raises like :meth:`extend`.
        """
        await self._handles.tell(workspace_id, "claimed", ttl_seconds)

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None:
        """Let the desktop out by other rules, with other secrets; None: as they are.

        The secrets go to its actor by a call, which Ray keeps nowhere, and lie in its memory alone.

        Raises:
            WorkspaceNotFound, WorkspaceEnded, NotReady.
        """
        told = None if secrets is None else [each.model_dump(mode="json") for each in secrets]
        await self._handles.tell(workspace_id, "set_egress", {"egress": egress, "secrets": told})

    async def egress(self, workspace_id: str) -> EgressUse:
        """What went out of the desktop, and came in. Raises as above."""
        return EgressUse.model_validate(await self._handles.tell(workspace_id, "egress"))

    async def pause(self, workspace_id: str) -> PauseResult:
        """Freeze the desktop: it answers nothing until :meth:`resume`. Again is success.

        Its deadline goes on, and ends it as it is.

        Raises:
            WorkspaceNotFound, WorkspaceEnded, NotReady.
            Unsupported: its node cannot.
            Unavailable: it did not come to rest, and goes on.
        """
        said = await self._handles.tell(workspace_id, "pause", seconds=PAUSE_SECONDS)
        return PauseResult.model_validate(said)

    async def resume(self, workspace_id: str) -> None:
        """Let a paused desktop go on; one that is not paused is left as it is. Raises as above."""
        await self._handles.tell(workspace_id, "resume")

    async def stats(self, workspace_id: str) -> Stats:
        """What the desktop uses now. Raises WorkspaceNotFound, WorkspaceEnded, NotReady."""
        return Stats.model_validate(await self._handles.tell(workspace_id, "stats"))

    async def stop(self, workspace_id: str) -> None:
        """End a desktop; nothing of it is left. One already gone is success."""
        try:
            handle = await self._handles.get(workspace_id)
        except WorkspaceNotFound:
            return
        self._handles.drop(workspace_id)
        self._stopped.append(workspace_id)
        # To its end, though nobody may wait so long: an actor that hangs is killed last of all.
        await asyncio.shield(self._spawn(self._end(workspace_id, handle)))

    async def locate(self, workspace_id: str) -> Located | None:
        """Where a desktop is, whoever started it; None if it is not ready, or is gone.

        Raises:
            Unavailable: Ray does not answer.
        """
        return await self._find(workspace_id)

    async def find(self) -> dict[str, Located]:
        """Every desktop of this namespace that is ready, by its id."""
        ids = await self._handles.names()
        found = await asyncio.gather(*(self._find(workspace_id) for workspace_id in ids))
        return {located.workspace_id: located for located in found if located is not None}

    async def ended(self, workspace_id: str) -> ErrorInfo:
        """Wait until the desktop has ended, and say why.

        The code is ``deadline_passed``, ``released``, ``lease_refused`` or ``lease_lost`` (see
        leases.py), ``desktop_lost`` (its sandbox died), ``node_lost`` (its actor died, or the
        cluster does not know it), or a failed start's.

        Raises:
            Unavailable: Ray does not answer, so nobody can tell.
        """
        try:
            handle = await self._handles.get(workspace_id)
            while True:
                try:
                    answer = await self._asking.ask(
                        handle.ended.remote(WATCH_SECONDS), seconds=WATCH_SECONDS + RAY_SECONDS
                    )
                except (TimedOut, DesktopLost) as error:
                    if isinstance(error, DesktopLost) and not self._asking.may_live(error):
                        raise
                    log.warning("desktop %s: %s", workspace_id, error.message)
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue  # slow, stopped, or cut off: Ray says so once it has died
                if answer["ended"] is not None:
                    await self._handles.kill(workspace_id, handle)  # it would itself, within 2 s
                    self._placing.release(workspace_id)
                    return ErrorInfo.model_validate(answer["ended"])
        except (WorkspaceNotFound, DesktopLost) as error:
            self._handles.drop(workspace_id)
            if workspace_id in self._stopped:  # its actor died before it could say so
                return ErrorInfo(code=actors.RELEASED, message="It was released.")
            return ErrorInfo(code=NODE_LOST, message=error.message)

    async def nodes(self) -> list[Node]:
        """The machines of the cluster, how much of them is taken, and which are avoided."""
        machines = self._sweeping.machines()
        found = await self._asking.call(
            lambda: placement.nodes(self._address, seconds=HEAD_SECONDS, machines=machines)
        )
        suspects = self._placing.suspects.now()
        return [
            each.model_copy(update={"suspect": suspects[each.id]})
            if each.alive and each.id in suspects
            else each
            for each in found
        ]

    # What there is beside what is wanted: see controller/reaper.py.

    async def names(self) -> set[str]:
        """Every desktop of this namespace that has an actor: ready, starting, or hung."""
        return set(await self._handles.names())

    async def left(self) -> dict[str, set[str]]:
        """By node: sandboxes of our backends of which something is there, and no actor's.

        A node that does not answer is left out. A home's folders are looked at, not a namespace's,
        so an actor of whatever namespace counts.

        Raises:
            Unavailable: Ray does not answer.
        """
        found = await self._sweeping.look(await self.nodes())
        # In this order: an actor is there before its sandbox is.
        owned = set(await self._handles.all_names())
        return {node: left for node, there in found.items() if (left := there - owned)}

    async def clear(self, node: str, sandboxes: Collection[str]) -> None:
        """End what :meth:`left` told of a node, and remove it. What is gone is success.

        Raises:
            Unavailable: the node does not answer, or something of them stays.
        """
        await self._sweeping.end(node, sandboxes)

    # One desktop's actor.

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
                label_selector={NODE_ID: spot.id, **wish.labels},
            ).remote(spec)  # type: ignore[assignment]  # Ray's own hint also allows the class
            if is_abandoned.is_set():
                self._ray.kill(handle)
            return handle

        try:
            handle = await self._asking.call(create)
        except CarrelError:
            is_abandoned.set()  # Ray was too slow to be waited for: should it be done later
            self._placing.release(workspace_id)
            raise
        self._placing.made(workspace_id)
        self._handles.keep(workspace_id, handle)
        if placed is not None:
            placed()
        return handle

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
        ready = self._located(workspace_id, handle, seconds=deadline - began)
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
                await self._end(workspace_id, handle, seconds=seconds)
        except CarrelError as error:
            log.info("discarding desktop %s: %s", workspace_id, error.message)
        finally:
            self._placing.release(workspace_id)

    async def _end(
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

    async def _find(self, workspace_id: str) -> Located | None:
        try:
            handle = await self._handles.get(workspace_id)
            return await self._located(workspace_id, handle, wait=False)
        except Unavailable:
            raise
        except CarrelError as error:
            if isinstance(error, DesktopLost):
                self._handles.drop(workspace_id)
            log.info("desktop %s is not ready: %s", workspace_id, error.message)
            return None

    async def _located(
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

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:  # Any: they yield nothing
        """A task that goes on when who waits for it is cancelled."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
