"""What is done with a volume on the node where it lies, while no desktop has it.

A small actor of the moment holds the volume there for as long as it is copied or removed, so that
no desktop can be started with it meanwhile. It belongs to this controller's process: when either
ends, so does its hold. A copy's bytes do not pass through Ray: the actor serves them once, over
HTTP, to who knows its token. It breaks off if it cannot read all: a copy that ends is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ray_cluster import actors, placement, relay
from workspace.backends import archive, trees, volumes
from workspace.backends.base import Endpoint
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    DesktopLost,
    Internal,
    TimedOut,
    Unsupported,
    VolumeInUse,
    VolumeNotFound,
)
from workspace.models import Node

if TYPE_CHECKING:
    from ray.actor import ActorHandle

START_SECONDS = 60.0
REMOVE_SECONDS = 600.0
IDLE_SECONDS = 60.0  # that a copy waits for its reader
BATCH_BYTES = 1 << 20
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
T = TypeVar("T")


class Volumes:
    """The volumes of one cluster; what asks Ray is the cluster's own."""

    def __init__(
        self,
        ray: Any,  # Any: the module
        ask: Callable[..., Awaitable[actors.Wire]],
        call: Callable[[Callable[[], Any]], Awaitable[Any]],
        nodes: Callable[[], Awaitable[Sequence[Node]]],
        backends: Mapping[str, Mapping[str, Any]],  # Any: each backend's settings
    ) -> None:
        self._ray = ray
        self._ask = ask
        self._call = call
        self._nodes = nodes
        self._folder = backends.get("bubblewrap", {}).get("volume_dir")
        self._pods = backends.get("kata")  # their volumes are the cluster's, not a folder
        self._actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(VolumeActor)

    async def remove(self, volume_id: str, *, node: str) -> None:
        """Remove a volume and all in it. One that is gone is success.

        Raises:
            BackendUnavailable: its node is not there.
            VolumeInUse.
            TimedOut: it takes long; again goes on with it.
        """
        async with self._on(node, volume_id) as actor:
            await self._ask(actor.remove.remote(), seconds=REMOVE_SECONDS)

    @asynccontextmanager
    async def export(self, volume_id: str, *, node: str) -> AsyncIterator[Endpoint]:
        """Where its tar is to be had, once; it is held for as long as the block runs.

        Raises:
            BackendUnavailable: its node is not there.
            VolumeInUse, VolumeNotFound.
        """
        async with self._on(node, volume_id) as actor:
            said = await self._ask(actor.export.remote(), seconds=START_SECONDS)
            yield Endpoint(url=said["url"], token=said["token"])

    @asynccontextmanager
    async def _on(
        self, node: str, volume_id: str
    ) -> AsyncIterator[ActorHandle[Any]]:  # Any: Ray's handles are not typed by class
        if self._folder is None:
            raise Unsupported("This cluster has no folder for volumes.")
        there = placement.named(await self._nodes(), node)
        folder = f"{self._folder}/{volume_id}"

        def create() -> Any:  # Any: as above
            where = only_on(there.id)
            return self._actor.options(scheduling_strategy=where).remote(folder, self._pods)

        actor = await self._call(create)
        try:
            await self._up(actor, node)
            yield actor
        finally:
            await asyncio.shield(asyncio.ensure_future(self._end(actor)))

    async def _up(self, actor: ActorHandle[Any], node: str) -> None:  # Any: as above
        try:
            await self._ask(actor.up.remote(), seconds=START_SECONDS)
        except (TimedOut, DesktopLost) as error:
            raise BackendUnavailable(f"Node {node!r} does nothing: {error.message}") from error

    async def _end(self, actor: ActorHandle[Any]) -> None:  # Any: as above
        with contextlib.suppress(CarrelError):  # it ends with this process at the latest
            await self._call(lambda: self._ray.kill(actor))


def only_on(node_id: str) -> Any:  # Any: one of Ray's own
    """The scheduling strategy for what must run there or not at all."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


class VolumeActor:
    """What Ray runs on the volume's node; it answers plain JSON, errors in their wire form."""

    def __init__(
        self,
        folder: str,
        pods: Mapping[str, Any] | None = None,  # Any: the settings of the backend of pods
    ) -> None:
        self._folder = folder
        self._pods = pods
        self._holding = contextlib.ExitStack()

    async def up(self) -> actors.Wire:
        return {}

    async def remove(self) -> actors.Wire:
        async def remove() -> actors.Wire:
            await asyncio.to_thread(volumes.remove, self._folder)
            if self._pods is not None:
                await self._remove_claim(self._pods)
            return {}

        return await _answer(remove)

    async def _remove_claim(self, pods: Mapping[str, Any]) -> None:  # Any: as above
        from workspace.backends.kata import KataBackend

        backend = KataBackend(**pods)
        try:
            await backend.remove_volume(Path(self._folder).name)
        finally:
            await backend.aclose()

    async def export(self) -> actors.Wire:
        async def export() -> actors.Wire:
            holding = volumes.held(self._folder, "an export")
            home = await asyncio.to_thread(self._holding.enter_context, holding)
            await asyncio.to_thread(volumes.measure, self._folder)  # what it refuses, now
            token = secrets.token_urlsafe(32)
            return {"url": await serve(home, token, actors.node_address()), "token": token}

        return await _answer(export)


async def _answer(work: Callable[[], Awaitable[actors.Wire]]) -> actors.Wire:
    try:
        return await work()
    except volumes.Busy as error:
        return {"error": VolumeInUse(f"It cannot be had now: {error}.").to_wire()}
    except trees.TooDeep as error:
        return {"error": Unsupported(f"It cannot be copied: {error}.").to_wire()}
    except volumes.Missing as error:
        return {"error": VolumeNotFound(f"Its files are not there: {error}.").to_wire()}
    except CarrelError as error:
        return {"error": error.to_wire()}
    except OSError as error:
        return {"error": Internal(f"The node refused: {error}.").to_wire()}


async def serve(home: str, token: str, host: str) -> str:
    """Serve the tar of ``home`` on a free port of ``host``, to the first that knows the token."""
    server: asyncio.Server

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await relay.checked_head(reader, token)
            server.close()  # once
            await _send(home, writer)
        except CarrelError as error:
            await relay.refuse(writer, error)
        except (OSError, asyncio.TimeoutError):
            pass  # cut off, its reader knows that it is not whole
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, host, 0, limit=relay.MAX_HEAD_BYTES)
    name = server.sockets[0].getsockname()
    return f"http://[{host}]:{name[1]}" if ":" in host else f"http://{host}:{name[1]}"


async def _send(home: str, writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD)
    batches = _batches(archive.tar(home))
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        writer.write(b"%x\r\n%b\r\n" % (len(batch), batch))
        await asyncio.wait_for(writer.drain(), IDLE_SECONDS)
    writer.write(b"0\r\n\r\n")
    writer.write_eof()
    await asyncio.wait_for(writer.drain(), IDLE_SECONDS)
    writer.close()
    await asyncio.wait_for(writer.wait_closed(), IDLE_SECONDS)


def _batches(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Fewer and larger ones: each is a step of its own in a thread."""
    batch = bytearray()
    for piece in pieces:
        batch += piece
        if len(batch) >= BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)
