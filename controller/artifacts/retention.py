"""What becomes of artifacts by themselves: they grow old, and what a death left is swept up.

The controller that leads removes the rows of those that are too old, and then their bytes; finishes
removals that broke off; and looks, a page a round, for bytes that no row names. All in batches, so
that a round of many holds up nobody; what fails is tried again in the next. How old each may become
is one number for each kind, and one for all kinds of a tenant that has its own.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, get_args

import anyio

from controller.artifacts import Artifacts
from controller.events import Events
from controller.live import SYSTEM
from controller.store.artifacts import Blob
from workspace.artifacts import ArtifactKind
from workspace.errors import CarrelError

PERIOD_SECONDS = 60.0
_JITTER = 0.2  # of that
BATCH = 200
BATCHES = 25  # a round
STRAY_AGE = timedelta(days=1)  # longer than any saving takes, from the first byte to the row
HALF_AGE = timedelta(minutes=5)  # longer than any removal takes
_log = logging.getLogger(__name__)


async def _nobody() -> Mapping[str, float]:
    return {}


class Leadership(Protocol):
    """What it needs of :class:`controller.store.replicas.Leadership`."""

    async def is_ours(self) -> bool: ...


@dataclass(frozen=True)
class Swept:
    """What one round removed."""

    old: int = 0  # rows
    strays: int = 0  # bytes without one


class Retention:
    """Removes, for one controller, if it leads; ``run`` it as long as it serves."""

    def __init__(
        self,
        artifacts: Artifacts,
        leadership: Leadership,
        events: Events,
        *,
        ages: Mapping[ArtifactKind, timedelta],
        own: Callable[[], Awaitable[Mapping[str, float]]] = _nobody,
    ) -> None:
        """``ages``: how old each kind may become; one that is not named is never too old. ``own``:
        the days of each tenant that has its own; 0 is for ever.
        """
        self._artifacts = artifacts
        self._rows = artifacts.rows
        self._leadership = leadership
        self._events = events
        self._ages = ages
        self._own = own
        self._unused_after = ""  # how far it has looked, of the rows
        self._found_after = ""  # and of the bytes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Remove, round after round, for as long as the block runs."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _run(self) -> None:
        while True:
            await anyio.sleep(PERIOD_SECONDS * random.uniform(1 - _JITTER, 1 + _JITTER))
            try:
                await self.sweep()
            except CarrelError as error:
                _log.warning("artifacts cannot be swept: %s", error.message)
            except Exception:  # the next round comes, whatever this one ran into
                _log.exception("sweeping artifacts failed")

    async def sweep(self) -> Swept:
        """One round.

        Raises:
            Unavailable: the store, or where they are kept, does not answer.
        """
        if not self._artifacts.are_kept or not await self._leadership.is_ours():
            return Swept()
        old = 0
        own = await self._own()
        for kind, age in self._ages.items():
            old += await self._end(kind, age, but=own.keys())
        for tenant, days in own.items():
            for kind in get_args(ArtifactKind) if days else ():
                old += await self._end(kind, timedelta(days=days), tenant=tenant)
        await self._finish()
        await self._adopt()
        return Swept(old, await self._clear_unused())

    async def _end(
        self,
        kind: ArtifactKind,
        age: timedelta,
        *,
        tenant: str | None = None,
        but: Collection[str] = (),
    ) -> int:
        """Remove those of a kind that are too old; how many were."""
        many = 0
        for _ in range(BATCHES):
            before = self._artifacts.now() - age
            gone = await self._rows.drop_old(
                kind, before=before, limit=BATCH, tenant=tenant, but=but
            )
            for workspace_id in {each.workspace_id for each in gone}:
                self._artifacts.quota.forget(workspace_id)
            for digest in {each.digest for each in gone}:
                await self._artifacts.clear(digest)
            many += len(gone)
            if len(gone) < BATCH:
                break
        if many:
            await self._events.record("artifacts_expired", actor=SYSTEM, artifact=kind, count=many)
        return many

    async def _finish(self) -> None:
        """Remove bytes whose removal broke off."""
        before = self._artifacts.now() - HALF_AGE
        for blob in await self._rows.half_removed(before=before, limit=BATCH):
            await self._artifacts.finish(blob.digest)

    async def _adopt(self) -> None:
        """Write rows for bytes that have none, as a database restored from a backup has it: so
        they are removed like others, and never under somebody who is about to use them.
        """
        found = await self._artifacts.blobs.page(self._found_after, BATCH)
        self._found_after = found[-1].digest if len(found) == BATCH else ""
        known = await self._rows.known([each.digest for each in found])
        for each in found:
            if each.digest not in known:
                await self._rows.adopt(each.digest, each.size, touched_at=each.at)

    async def _clear_unused(self) -> int:
        """Remove bytes that nothing has used for long and no artifact has; how many were."""
        before = self._artifacts.now() - STRAY_AGE
        unused: list[Blob]
        unused, after = await self._rows.page_of_unused(
            after=self._unused_after, before=before, limit=BATCH
        )
        self._unused_after = after or ""
        cleared = [await self._artifacts.clear(blob.digest) for blob in unused]
        return sum(cleared)
