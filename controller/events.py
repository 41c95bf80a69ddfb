"""The log of events: written in groups, and awaited before the answer.

:meth:`Events.record` returns when its line is kept; if the database fails, it raises and the
group's other callers see the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from typing import Any

from controller.grouping import Grouped
from controller.metrics import Metrics
from controller.store import NewEvent, Store
from workspace.errors import CarrelError, Unavailable

_log = logging.getLogger(__name__)


class Events:
    """Records events; ``run`` it as long as they come."""

    def __init__(self, store: Store, metrics: Metrics | None = None) -> None:
        self._store = store
        self._metrics = metrics or Metrics()
        self._lines: Grouped[NewEvent, None] = Grouped(self._keep, what="The log of events")

    def run(self) -> AbstractAsyncContextManager[None]:
        """Write for as long as the block runs, and what is left at its end."""
        return self._lines.run()

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
        now = datetime.now(timezone.utc)
        await self._lines.do(NewEvent(now, workspace_id, actor, kind, data))

    async def _keep(self, group: Sequence[NewEvent]) -> Sequence[None]:
        try:
            await self._store.append(group)
        except CarrelError as error:
            _log.error("events could not be written: %s", error.message)
            raise _not_kept(error.message) from error
        except Exception as error:  # a defect: its callers are told, and the next group comes
            _log.exception("events could not be written")
            raise _not_kept(type(error).__name__) from error
        self._metrics.observe_events(len(group))
        return [None] * len(group)


def _not_kept(why: str) -> CarrelError:
    return Unavailable(
        f"The log of events cannot be written: {why}",
        hint="What was asked may have been done: look before you repeat it. "
        "Whoever runs the controller should look at its database.",
    )
