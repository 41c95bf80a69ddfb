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
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ray_cluster import actors, placement, placing, starting, sweeping, volumes
from ray_cluster.asking import RAY_SECONDS, Asking, look_at_head
from ray_cluster.capacity import needed
from ray_cluster.connection import HEAD_SECONDS, connect, disconnect
from ray_cluster.handles import PREFIX, Handles
from ray_cluster.leases import Lease
from ray_cluster.placement import Strategy, Wish
from ray_cluster.starting import Located
from workspace.backends import footprint
from workspace.backends.base import Mount, PauseResult
from workspace.egress import Egress, EgressUse, Secret
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    DesktopLost,
    TimedOut,
    Unavailable,
    WorkspaceNotFound,
)
from workspace.models import ErrorInfo, Node, Stats, Template

NODE_LOST = "node_lost"
LOOK_SECONDS = 8.0  # for a head that is busy with what is placed
PAUSE_SECONDS = 30.0
AGAIN_SECONDS = 0.5
WATCH_SECONDS = 10.0  # Ray waits for calls in flight when an actor is told to end (SIGTERM)

log = logging.getLogger(__name__)


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
        self._node = ray.get_runtime_context().get_node_id()
        self._sweeping = sweeping.Sweeping(backends, own_node=self._node, call=self._asking.call)
        self._placing = placing.Placing(
            lambda: self._asking.call(lambda: placement.look(address, seconds=LOOK_SECONDS)),
            lambda workspace_id: f"{namespace}/{PREFIX}{workspace_id}",
            strategy,
        )
        self._starting = starting.Starting(
            ray, self._asking, self._handles, self._placing, namespace
        )
        self._stopped: deque[str] = deque(maxlen=1000)  # the last ones that we ended
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
        whose: Mapping[str, str] | None = None,
    ) -> Located:
        """A new desktop, ready to act; it ends ``ttl_seconds`` from now unless extended.

        With ``background`` it yields the processor to the others until :meth:`claimed`. With
        ``node`` it is started on the one of that name; a ``volume`` there is its home. It is on
        none of the nodes to ``avoid`` (their ids). It is ``placed`` once its slot is taken, long
        before it is ready. ``whose`` it is, if somebody's: see :meth:`Backend.foreground`.
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
            "whose": dict(whose or {}),
            "lease": self._lease.terms(workspace_id) if self._lease is not None else None,
        }
        wish = Wish(
            needed(footprint.of(template, self._backends[template.backend])),
            template.node_labels,
            name=node,
            avoid=frozenset(avoid),
        )
        return await self._starting.start(workspace_id, spec, wish, placed=placed)

    def takes(self, template: Template) -> footprint.Footprint:
        """What a desktop of the template takes of its node."""
        return footprint.of(template, self._backends.get(template.backend, {}))

    async def extend(self, workspace_id: str, ttl_seconds: float) -> None:
        """The desktop ends ``ttl_seconds`` from now.

        Raises:
            WorkspaceNotFound: the cluster does not know it.
            WorkspaceEnded: it has ended.
        """
        await self._handles.tell(workspace_id, "extend", ttl_seconds)

    async def claimed(
        self, workspace_id: str, ttl_seconds: float, *, whose: Mapping[str, str] | None = None
    ) -> None:
        """Somebody has this desktop now, or waits for it to be up: it ends ``ttl_seconds`` from
        now, and is no longer in the background. One call to its actor. Raises like :meth:`extend`.
        """
        try:
            await self._handles.tell(workspace_id, "claimed", ttl_seconds, dict(whose or {}))
        except TypeError:  # the actor is of an older Carrel
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
        await asyncio.shield(self._starting.spawn(self._starting.end(workspace_id, handle)))

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

    async def _find(self, workspace_id: str) -> Located | None:
        try:
            handle = await self._handles.get(workspace_id)
            return await self._starting.located(workspace_id, handle, wait=False)
        except Unavailable:
            raise
        except CarrelError as error:
            if isinstance(error, DesktopLost):
                self._handles.drop(workspace_id)
            log.info("desktop %s is not ready: %s", workspace_id, error.message)
            return None
