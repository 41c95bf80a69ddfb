"""This controller as one of several: that it lives, and whose workspaces it takes over.

It counts up in the store while it lives. What a dead one kept is shared out among those who see it
first; what this one kept before it died is its own again at once, because no two have the same name
(on one machine the controller's lock sees to that). A desktop that the cluster still has lives on;
one that is gone has failed, and its row says so.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial

import anyio

from controller.elsewhere import Elsewhere
from controller.keeping import TIME_UP, Keeping
from controller.live import SYSTEM, Live, Located
from controller.tracing import connect
from workspace.errors import CarrelError, NotReady, StartFailed, Unavailable, WorkspaceEnded
from workspace.models import Workspace

BEAT_SECONDS = 1.0
STALE_SECONDS = 5.0  # without a beat, it is dead
KEEPERS_EVERY = 3  # rounds: who has left
FIND_AGAIN_SECONDS = 1.0
LEAVE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Replica:
    """One controller among those of its store."""

    def __init__(self, keeping: Keeping, elsewhere: Elsewhere) -> None:
        # Called when a controller is there no more: what it was at, others have to finish.
        self.on_gone: Callable[[], None] = lambda: None
        self._keeping = keeping
        self._store = keeping.store
        self._cluster = keeping.cluster
        self._elsewhere = elsewhere
        self._seen: dict[str, tuple[int, float]] = {}  # each one's count, and when it last changed
        self._looked_at = time.monotonic()
        self._taking: set[str] = set()  # is its own by its row, and not yet by a task

    async def beat(self) -> None:
        """Say that this one lives.

        Raises:
            Unavailable: the store does not answer.
        """
        await self._store.replicas.beat(self._keeping.replica)

    async def begin(self) -> None:
        """Keep again what this one kept before, and what nobody keeps.

        Raises:
            Unavailable: the store or the cluster does not answer.
        """
        own = self._keeping.replica
        others = set(await self._store.replicas.beats()) - {own}
        for keeper in await self._store.replicas.keepers() - others:
            await self._inherit(keeper)

    async def keep_beating(self) -> None:
        """Beat until cancelled, whatever else takes its time."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            try:
                await self.beat()
            except CarrelError as error:
                _log.warning("no beat: %s", error.message)
            except Exception:  # the next one comes, whatever this one ran into
                _log.exception("no beat")

    async def run(self) -> None:
        """Take over what others leave, until cancelled."""
        without_row: set[str] = set()  # keepers that have left, when that was last looked at
        known: set[str] = set()
        for turn in itertools.count():
            await anyio.sleep(BEAT_SECONDS)
            try:
                beats = await self._store.replicas.beats()
                for keeper in self._dead(beats):
                    await self._bury(keeper)
                if turn % KEEPERS_EVERY == 0:
                    left = await self._store.replicas.keepers() - set(beats)
                    for keeper in left & without_row:
                        await self._bury(keeper)
                    without_row = left
                if len(beats) > 1:
                    await self._let_go()
                if known - set(beats):
                    self.on_gone()
                known = set(beats)
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
        """Leave what lives to others, and say so; what is ending ends here."""
        self.abandon()
        with anyio.move_on_after(LEAVE_SECONDS):
            for live in list(self._keeping.live.values()):
                await live.gone.wait()
        await self._keeping.quietly(
            self._store.replicas.leave(self._keeping.replica), "taking leave of the store"
        )

    def abandon(self) -> None:
        """Let go of all that is not ending."""
        self._keeping.is_leaving = True
        for live in list(self._keeping.live.values()):
            if live.end_state is None:
                live.lose()

    async def take_over(self, workspace_id: str, *, release_by: str | None = None) -> Live | None:
        """Keep it from now on, or to release it; None if it has ended or never was.

        Raises:
            NotReady: another controller is starting it, and nobody wants it released.
        """
        workspace = await self._store.get(workspace_id)
        keeper = await self._store.replicas.keeper(workspace_id)
        if workspace is None or keeper is None:
            return None
        if workspace.state in ("queued", "starting") and release_by is None:
            raise NotReady(
                f"Workspace {workspace_id} is {workspace.state}.",
                hint="Wait until it is ready: another controller is at it.",
            )
        return await self._take_over(workspace_id, of=keeper, release_by=release_by)

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
        self,
        workspace_id: str,
        *,
        of: str,
        why: CarrelError | None = None,
        release_by: str | None = None,
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
            kept = self._kept_by_now(workspace_id)
            return kept or self._own(workspace, located, why, release_by=release_by)
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
        _log.warning("controller %s is dead: its workspaces are taken over", keeper)
        await self._inherit(keeper)
        await self._store.replicas.leave(keeper)
        self._seen.pop(keeper, None)

    async def _inherit(self, keeper: str) -> None:
        """Look after all that another one kept, or this one before it died."""
        found = await self._cluster.find()
        own = self._keeping.replica
        adopted: list[str] = []
        for workspace in await self._store.replicas.adopt_all(keeper=own, of=keeper):
            if self._kept_by_now(workspace.id) is None:
                self._own(workspace, found.get(workspace.sandbox))
                adopted.append(workspace.id)
        if keeper != own:
            await self._tell_adopted(adopted, keeper)

    async def _tell_adopted(self, workspaces: Sequence[str], keeper: str) -> None:
        """Into the log; that they are looked after does not wait for it."""
        for workspace_id in workspaces:
            try:
                await self._keeping.events.record(
                    "adopted",
                    actor=SYSTEM,
                    workspace_id=workspace_id,
                    by=self._keeping.replica,
                    of=keeper,
                )
            except CarrelError as error:
                _log.error("that %s was adopted is not written: %s", workspace_id, error.message)

    def _own(
        self,
        workspace: Workspace,
        located: Located | None,
        why: CarrelError | None = None,
        *,
        release_by: str | None = None,
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
        elif release_by is not None:
            live.end("released", by=release_by)
        if workspace.state == "releasing":
            live.end("released", WorkspaceEnded("Its controller ended while it was released."))
        elif located is not None and workspace.state in ("ready", "paused"):
            live.endpoint = located.endpoint
            live.desktop = connect(located.endpoint)
        elif left <= 0:
            live.end("released", WorkspaceEnded(TIME_UP))
        elif workspace.state in ("queued", "starting"):
            live.end("failed", StartFailed("Its controller ended while it was starting."))
        else:
            self._keeping.own(live, partial(self._find, live))
            return live
        self._keeping.own(live)
        return live

    async def _find(self, live: Live) -> None:
        """Find one that did not say where it is: it may only be slow, or cut off for a while.

        Raises:
            WorkspaceEnded: the cluster does not know it.
        """
        sandbox = live.workspace.sandbox
        while True:
            if (located := await self._located(sandbox)) is not None:
                break
            await anyio.sleep(FIND_AGAIN_SECONDS)
        live.deadline = time.monotonic() + located.remaining_seconds
        live.endpoint = located.endpoint
        live.desktop = connect(located.endpoint)

    async def _located(self, sandbox: str) -> Located | None:
        try:
            located = await self._cluster.locate(sandbox)
            if located is None and sandbox not in await self._cluster.names():
                raise WorkspaceEnded("It was gone when a controller looked after it.")
        except Unavailable as error:
            _log.warning("sandbox %s cannot be looked for: %s", sandbox, error.message)
            return None
        return located
