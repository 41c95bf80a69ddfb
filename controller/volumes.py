"""Volumes as callers know them: mounted at a claim, listed, copied, removed.

A volume lies on one node, which is chosen before its first desktop starts there and then written
down; a claim with it is started on that node or not at all. The store says who has it; what runs on
the node holds it there too, so that a desktop that the store takes for ended and that still ends
never shares it. While it is copied or removed no desktop can be started with it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import TypedDict

import httpx

from controller.events import Events
from controller.live import Cluster, new_id
from controller.store import Store
from controller.store.volumes import Owner
from ray_cluster.labels import fits, told
from workspace import transport
from workspace.backends.base import Endpoint, Mount
from workspace.backends.footprint import Footprint
from workspace.errors import BackendUnavailable, CarrelError, NoCapacity, Unsupported
from workspace.http1 import client_transport
from workspace.models import Node, Volume, Workspace

_ANY: Mapping[str, str] = {}
_NOTHING = Footprint(0, 0)
READ_SECONDS = 60.0  # that a node may take for the next piece of a copy
_log = logging.getLogger(__name__)


class Place(TypedDict, total=False):
    """What a workspace is started with, and where; of one without a volume nothing is said."""

    volume: Mount
    node: str


class Volumes:
    """The volumes of one controller's callers."""

    def __init__(self, store: Store, cluster: Cluster, events: Events) -> None:
        self._store = store
        self._cluster = cluster
        self._events = events

    # For the lifecycle.

    async def check(self, owner: Owner, name: str) -> None:
        """Whether a claim may have it.

        Raises:
            VolumeInUse, Conflict: it will not.
        """
        await self._store.volumes.check(owner, name)

    async def take(
        self,
        workspace: Workspace,
        *,
        owner: Owner,
        labels: Mapping[str, str] | None = None,
        takes: Footprint = _NOTHING,
    ) -> Place:
        """Have the volume of a workspace that is kept, if it has one. Again is success.

        ``labels`` are what its node's have to be, and a desktop ``takes`` so much of it.

        Raises:
            VolumeInUse, Conflict: another one has it, or it is being removed.
            NoCapacity: no node has room for a new one.
            BackendUnavailable: none has such labels.
        """
        if workspace.volume is None:
            return {}
        volume_id = new_id()
        kept = await self._store.volumes.take(
            owner,
            workspace.volume,
            workspace_id=workspace.id,
            new_id=volume_id,
            now=datetime.now(timezone.utc),
        )
        if kept.id == volume_id:
            await self._events.record(
                "volume_created", actor=owner.name, workspace_id=workspace.id, volume=kept.name
            )
        node = kept.node
        if kept.is_new:  # it may have found no room where it was meant to lie
            drained = await self._store.operated.draining()
            nodes = await self._cluster.nodes()
            node = emptiest(nodes, avoid=drained, labels=labels or {}, takes=takes)
            await self._store.volumes.place(kept.id, node)
        assert node is not None, "one that was used lies somewhere"
        return {"volume": Mount(id=kept.id, is_new=kept.is_new), "node": node}

    async def note_ready(self, workspace: Workspace) -> None:
        """Its desktop is there: from now on something is in its volume, if it has one."""
        if workspace.volume is not None:
            now = datetime.now(timezone.utc)
            await self._store.volumes.used(workspace.id, now=now)

    async def note_end(self, workspace: Workspace) -> None:
        """Before its desktop ends: how large it has become, if anybody can tell."""
        if workspace.volume is None:
            return
        size: int | None = None
        try:
            used = (await self._cluster.stats(workspace.sandbox)).disk_mib
            size = None if used is None else round(used * (1 << 20))
        except CarrelError as error:  # it has died
            _log.info("the size of volume %s is not known: %s", workspace.volume, error.message)
        now = datetime.now(timezone.utc)
        await self._store.volumes.let_go(workspace.id, now=now, size_bytes=size)

    # What is asked of them.

    async def page(self, owner: Owner, *, limit: int, after: str | None) -> list[Volume]:
        return await self._store.volumes.page(owner, limit=limit, after=after)

    async def get(self, owner: Owner, name: str) -> Volume:
        """
        Raises:
            VolumeNotFound.
        """
        return await self._store.volumes.get(owner, name)

    async def remove(self, owner: Owner, name: str, *, forget: bool = False) -> None:
        """Remove it and all in it. What was interrupted is gone on with.

        With ``forget`` one whose node is gone is no longer told of: what is on that node stays.

        Raises:
            VolumeNotFound.
            VolumeInUse: a workspace has it.
            BackendUnavailable: its node is not there.
        """
        kept = await self._store.volumes.begin_removal(owner, name, now=datetime.now(timezone.utc))
        if kept.node is not None:
            try:
                await self._cluster.volumes.remove(kept.id, node=kept.node)
            except BackendUnavailable:
                if not (forget or kept.is_new):
                    raise
                _log.warning("volume %s is left on node %s", kept.id, kept.node)
        await self._store.volumes.forget(kept.id)

    @asynccontextmanager
    async def export(self, owner: Owner, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Its tar as it comes. Nobody can have the volume meanwhile; cut off, it is not whole.

        Raises:
            VolumeNotFound.
            VolumeInUse: a workspace has it.
            BackendUnavailable: its node is not there.
        """
        kept = await self._store.volumes.free(owner, name)
        if kept.node is None or kept.is_new:
            raise Unsupported(f"Volume {name!r} was never used: there is nothing in it.")
        async with self._cluster.volumes.export(kept.id, node=kept.node) as endpoint:
            async with _reading(endpoint) as pieces:
                yield pieces


@asynccontextmanager
async def _reading(endpoint: Endpoint) -> AsyncIterator[AsyncIterator[bytes]]:
    http = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {endpoint.token}"},
        transport=client_transport(endpoint.url),
        timeout=transport.timeout(READ_SECONDS),
        trust_env=False,
    )
    async with http, transport.stream(http, "GET", endpoint.url) as response:
        yield response.aiter_bytes()


def emptiest(
    nodes: Sequence[Node],
    *,
    avoid: Collection[str] = (),
    labels: Mapping[str, str] = _ANY,
    takes: Footprint = _NOTHING,
) -> str:
    """The name of the node with the most room; of none to ``avoid``, by id or name, and of a
    suspect only if there is no other.

    Raises:
        NoCapacity: none has any.
        BackendUnavailable: none has such labels.
    """
    alive = [node for node in nodes if node.alive and node.slots]
    labelled = [node for node in alive if fits(labels, node.labels)]
    if alive and not labelled:
        raise BackendUnavailable(
            f"No node of this cluster has the labels that its template wants: {told(labels)}.",
            hint="`carrel nodes` shows which labels each has.",
        )
    rooms = [
        (*_room(node, takes), not node.suspect, node.slots - node.desktops, node.name)
        for node in labelled
        if not node.draining
        and node.slots > node.desktops
        and not {node.id, node.name} & set(avoid)
    ]
    *_, room, name = max(rooms, default=(False, False, False, 0, ""))
    if room <= 0:
        raise NoCapacity("No node has a place for a desktop.")
    return name


def _room(node: Node, takes: Footprint) -> tuple[bool, bool]:
    """Whether it could hold so much if it was empty, and whether it can now."""
    could, can = True, True
    for amount, whole, taken in (
        (takes.memory_mib, node.desktops_mib, node.desktops_mib_taken),
        (takes.millicpus, node.desktops_millicpu, node.desktops_millicpu_taken),
    ):
        if whole is not None:
            could = could and amount <= whole
            can = can and amount <= whole - (taken or 0)
    return could, can
