"""The reaper: what only one of the store and the cluster believes in is removed.

A sandbox whose workspace has ended, or that no row ever named, is stopped. What a row names and the
cluster has lost is its keeper's to tell (:mod:`controller.keeping`).
"""

from __future__ import annotations

import logging

from controller.keeping import Keeping
from controller.live import SYSTEM

_log = logging.getLogger(__name__)


class Reaper:
    """Compares and removes, for one controller."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    async def sweep(self) -> int:
        """Stop every stray; how many there were.

        Raises:
            Unavailable: the store or the cluster does not answer.
        """
        # In this order: a row is written before its sandbox is started.
        found = await self._keeping.cluster.find()
        wanted = await self._keeping.store.sandboxes()
        strays = set(found) - wanted
        for sandbox in strays:
            _log.warning("stopping the stray sandbox %s", sandbox)
            stopping = self._keeping.cluster.stop(sandbox)
            await self._keeping.quietly(stopping, "stopping a stray sandbox")
            await self._keeping.events.record("stray", actor=SYSTEM, workspace_id=sandbox)
        return len(strays)
