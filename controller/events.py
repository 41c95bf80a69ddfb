"""The log of events: written in groups, and awaited before the answer.

One task writes. Whatever waits when it comes round goes into one commit, so that a busy
controller pays for a commit once and a quiet one waits for nobody. :meth:`Events.record` returns
when its line is kept; if the database fails, it raises and the group's other callers see the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import anyio

from controller.store import NewEvent, Store
from workspace.errors import CarrelError, Unavailable

GROUP = 500
MAX_WAITING = 10_000
_log = logging.getLogger(__name__)


class Events:
    """Records events; ``run`` it as long as they come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[NewEvent, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._is_open = False

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Write for as long as the block runs, and what is left at its end."""
        self._is_open = True
        writer = asyncio.create_task(self._write(), name="events")
        try:
            yield
        finally:
            self._is_open = False
            self._wake.set()
            with anyio.CancelScope(shield=True):  # each commit is bounded by the database's timeout
                await writer

    async def record(
        self,
        kind: str,
        *,
        actor: str,
        workspace_id: str | None = None,
        **data: Any,  # Any: JSON values
    ) -> None:
        """Keep one line; returns when it would survive the death of this process.

        Raises:
            Unavailable: the log cannot be written.
        """
        if not self._is_open or len(self._waiting) >= MAX_WAITING:
            raise Unavailable("The log of events takes no more lines now.")
        event = NewEvent(datetime.now(timezone.utc), workspace_id, actor, kind, data)
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append((event, kept))
        self._wake.set()
        await kept

    async def _write(self) -> None:
        while self._is_open or self._waiting:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
                error = await self._keep([event for event, _ in group])
                for _, kept in group:
                    if kept.done():  # its caller went away
                        continue
                    if error is None:
                        kept.set_result(None)
                    else:
                        kept.set_exception(error)

    async def _keep(self, group: list[NewEvent]) -> CarrelError | None:
        try:
            await self._store.append(group)
        except CarrelError as error:
            _log.error("events could not be written: %s", error.message)
            return _not_kept(error.message)
        except Exception as error:  # a defect: its callers are told, and the next group comes
            _log.exception("events could not be written")
            return _not_kept(type(error).__name__)
        return None


def _not_kept(why: str) -> CarrelError:
    return Unavailable(
        f"The log of events cannot be written: {why}",
        hint="What was asked may have been done: look before you repeat it. "
        "Whoever runs the controller should look at its database.",
    )
