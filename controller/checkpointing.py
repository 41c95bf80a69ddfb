"""Who signs the log, and removes what is too old of it: the controller that leads.

A checkpoint is made when the newest is :data:`EVERY_SECONDS` old or :data:`store.checkpoints.
MOST_LINES` lines came since, whichever is first, and when a controller ends. Each is told of in the
controller's own log by its number and hash: who keeps that elsewhere can tell if the newest ones
were taken away from the database, which it cannot tell by itself. What fails is tried again in the
next round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio

from controller.events import Events
from controller.live import SYSTEM
from controller.store import Store
from controller.store.checkpoints import MOST_LINES, Limits
from controller.store.doing import Clash
from controller.store.signing import Signer
from workspace.errors import CarrelError

EVERY_SECONDS = 300.0
LOOK_SECONDS = 10.0
REMOVE_EVERY_SECONDS = 3600.0
PAUSE_SECONDS = 0.05  # between two batches of removed lines
LAST_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Checkpointing:
    """Signs one store's log, and removes lines older than ``days`` (0: none), or than those of
    the tenant whose workspace they are of.
    """

    def __init__(self, store: Store, events: Events, signer: Signer, *, days: float) -> None:
        self._store = store
        self._events = events
        self._signer = signer
        self._days = days
        self._removed_at: float | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Do so as long as the block runs, and sign once more at its end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with anyio.move_on_after(LAST_SECONDS, shield=True):
                    await self._quietly(is_last=True)

    async def _run(self) -> None:
        while True:
            await anyio.sleep(LOOK_SECONDS)
            await self._quietly()

    async def _quietly(self, *, is_last: bool = False) -> None:
        try:
            if await self._store.leadership.is_ours():
                await self.sign(is_due=is_last)
                if not is_last and self._is_time_to_remove():
                    await self.remove()
        except Clash:
            _log.info("another controller signs the log at the same time")
        except CarrelError as error:
            _log.warning("the log is not signed: %s", error.message)
        except Exception:  # the next round comes, whatever this one ran into
            _log.exception("signing the log failed")

    async def sign(self, *, is_due: bool = True) -> None:
        """Make the checkpoints that are due; with ``is_due`` of all that is there."""
        while True:
            newest = await self._store.checkpoints.newest()
            lines = await self._store.checkpoints.unsigned(newest)
            now = datetime.now(timezone.utc)
            is_old = newest is None or now - newest.at > timedelta(seconds=EVERY_SECONDS)
            if not lines or not (is_due or is_old or lines >= MOST_LINES):
                return
            made = await self._store.checkpoints.make(self._signer)
            if made is None:
                return
            _log.info("checkpoint %d of the log: %s", made.number, made.hash)
            if made.lines < MOST_LINES:
                return

    def _is_time_to_remove(self) -> bool:
        now = time.monotonic()
        is_time = self._removed_at is None or now - self._removed_at > REMOVE_EVERY_SECONDS
        if is_time:
            self._removed_at = now
        return is_time

    async def remove(self) -> int:
        """Remove what is too old, a batch at a time; how many lines that were."""
        own = await self._store.tenants.days("event_days")
        limits = Limits(_before(self._days), {name: _before(days) for name, days in own.items()})
        lines, cursor = 0, 0
        while True:
            done = await self._store.checkpoints.remove(self._signer, limits, cursor=cursor)
            lines += done.lines
            if done.cursor is None:
                break
            cursor = done.cursor
            await anyio.sleep(PAUSE_SECONDS)
        if lines:
            told: dict[str, Any] = {}  # Any: JSON values
            if limits.common is not None:
                told["before"] = limits.common.isoformat()
            if own:
                told["tenants"] = sorted(own)
            await self._events.record("events_removed", actor=SYSTEM, lines=lines, **told)
            await self.sign()
        return lines


def _before(days: float) -> datetime | None:
    """What is older than that is too old; None: nothing is."""
    return datetime.now(timezone.utc) - timedelta(days=days) if days else None
