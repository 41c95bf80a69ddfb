"""This controller as one of several: that it lives, and whose workspaces it takes over.

It counts up in the store while it lives. What a dead one kept is shared out among those who see it
first; what this one kept before it died is its own again at once, because no two have the same name
(on one machine the controller's lock sees to that). A desktop that the cluster still has lives on;
one that is gone has failed, and its row says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import datetime, timezone

import anyio

from controller.elsewhere import Elsewhere
from controller.keeping import TIME_UP, Keeping
from controller.live import Live, Located
from workspace.desktop import connect
from workspace.errors import CarrelError, StartFailed, WorkspaceEnded
from workspace.models import Workspace

BEAT_SECONDS = 1.0
STALE_SECONDS = 5.0  # without a beat, it is dead
_log = logging.getLogger(__name__)


class Replica:
    """One controller among those of its store."""

    def __init__(self, keeping: Keeping, elsewhere: Elsewhere) -> None:
        self._keeping = keeping
        self._store = keeping.store
        self._cluster = keeping.cluster
        self._elsewhere = elsewhere
        self._seen: dict[str, tuple[int, float]] = {}  # each one's count, and when it last changed
        self._looked_at = time.monotonic()
        self._taking: set[str] = set()  # is its own by its row, and not yet by a task

    async def begin(self) -> None:
        """Keep again what this one kept before, and what nobody keeps.

        Raises:
            Unavailable: the store or the cluster does not answer.
        """
        own = self._keeping.replica
        await self._store.replicas.beat(own)
        others = set(await self._store.replicas.beats()) - {own}
        found = await self._cluster.find()
        for keeper, workspaces in (await self._store.replicas.kept()).items():
            if keeper in others:
                continue
            for workspace in workspaces:
                if keeper == own or await self._adopt(workspace, of=keeper):
                    self._own(workspace, found.get(workspace.sandbox))

    async def run(self) -> None:
        """Beat, and take over what dead ones leave, until cancelled."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            try:
                await self._store.replicas.beat(self._keeping.replica)
                beats = await self._store.replicas.beats()
                for keeper in self._dead(beats):
                    await self._bury(keeper)
                if len(beats) > 1:
                    await self._let_go()
                await self._elsewhere.sweep()
            except CarrelError as error:
                _log.warning("the other controllers are not seen: %s", error.message)
            except Exception:  # the next round comes, whatever this one ran into
                _log.exception("looking after the other controllers failed")

    async def _let_go(self) -> None:
        """Of what another one keeps by now: what is known of it here is old."""
        held = [live for live in self._keeping.live.values() if live.is_written]
        kept = await self._store.replicas.kept_by(self._keeping.replica)
        for live in held:
            if live.workspace.id not in kept and live.end_state is None:
                live.lose()

    async def leave(self) -> None:
        """Leave what lives to others, and say so."""
        for live in list(self._keeping.live.values()):
            live.lose()
        await self._keeping.quietly(
            self._store.replicas.leave(self._keeping.replica), "taking leave of the store"
        )

    async def take_over(self, workspace_id: str) -> Live | None:
        """Keep it from now on; None if it has ended or never was."""
        keeper = await self._store.replicas.keeper(workspace_id)
        if keeper is None:
            return None
        return await self._take_over(workspace_id, of=keeper)

    def is_taking(self, workspace_id: str) -> bool:
        """Whether it is being taken over: its row says that it is kept here, and soon it is."""
        return workspace_id in self._taking

    async def recover(self, workspace_id: str) -> None:
        """Look after one that is kept here by its row alone.

        A claim whose answer was lost is ended, unless it can be asked for again by its key. What
        was taken over from another controller while the cluster did not answer is looked for again.
        """
        own = self._keeping.replica
        if workspace_id in self._keeping.live or self.is_taking(workspace_id):
            return
        why: CarrelError | None = None
        is_unsure = workspace_id in self._keeping.unsure
        if is_unsure and not await self._store.replicas.has_key(workspace_id):
            why = StartFailed("Its claim was kept, and nobody could be told of it.")
        await self._take_over(workspace_id, of=own, why=why)

    async def _take_over(
        self, workspace_id: str, *, of: str, why: CarrelError | None = None
    ) -> Live | None:
        """Keep it, to end it if that is ``why``; None if another one does, or it has ended."""
        own = self._keeping.replica
        self._taking.add(workspace_id)
        try:
            workspace = await self._store.replicas.adopt(workspace_id, keeper=own, of=of)
            if workspace is None:  # another one was first
                return None
            await self._elsewhere.forget(workspace.sandbox)
            located = await self._cluster.locate(workspace.sandbox)
            return self._kept_by_now(workspace_id) or self._own(workspace, located, why)
        finally:
            self._taking.discard(workspace_id)

    def _kept_by_now(self, workspace_id: str) -> Live | None:
        """Two who want one at the same moment get the same."""
        live = self._keeping.live.get(workspace_id)
        return None if live is None or live.is_lost else live

    def _dead(self, beats: Mapping[str, int]) -> list[str]:
        """Those who have not counted for long, by this one's clock."""
        now = time.monotonic()
        has_slept = now - self._looked_at > STALE_SECONDS / 2  # or the store was away: from all
        self._looked_at = now
        for replica, count in beats.items():
            if has_slept or self._seen.get(replica, (None, 0))[0] != count:
                self._seen[replica] = (count, now)
        self._seen = {name: seen for name, seen in self._seen.items() if name in beats}
        own = self._keeping.replica
        return [
            name for name, (_, at) in self._seen.items() if name != own and now - at > STALE_SECONDS
        ]

    async def _bury(self, keeper: str) -> None:
        left = (await self._store.replicas.kept()).get(keeper, ())
        _log.warning("controller %s is dead: %d workspaces are taken over", keeper, len(left))
        found = await self._cluster.find() if left else {}
        for workspace in left:
            if await self._adopt(workspace, of=keeper):
                self._own(workspace, found.get(workspace.sandbox))
        await self._store.replicas.leave(keeper)
        self._seen.pop(keeper, None)

    async def _adopt(self, workspace: Workspace, *, of: str) -> bool:
        own = self._keeping.replica
        return await self._store.replicas.adopt(workspace.id, keeper=own, of=of) is not None

    def _own(
        self, workspace: Workspace, located: Located | None, why: CarrelError | None = None
    ) -> Live:
        """Look after one that somebody else began, or end it."""
        if located is not None:  # its node's clock decides: no change of the wall clock moves it
            left = located.remaining_seconds
        else:
            left = (workspace.expires_at - datetime.now(timezone.utc)).total_seconds()
        live = Live(workspace, left)
        live.is_written = live.is_placed = True
        live.written.set()
        if why is not None:
            live.end("failed", why)
        if located is not None and workspace.state in ("ready", "paused"):
            live.endpoint = located.endpoint
            live.desktop = connect(located.endpoint)
        elif workspace.state == "releasing":
            live.end("released", WorkspaceEnded("Its controller ended while it was released."))
        elif left <= 0:
            live.end("released", WorkspaceEnded(TIME_UP))
        elif workspace.state in ("queued", "starting"):
            live.end("failed", StartFailed("Its controller ended while it was starting."))
        else:
            live.end("failed", WorkspaceEnded("It was gone when a controller looked after it."))
        self._keeping.own(live)
        return live
