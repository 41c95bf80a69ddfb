"""What becomes of desktops that nobody uses: released, or paused; and pausing and resuming as such.

A desktop counts by itself how long it has not been used or watched. One that does not answer is not
idle. What is known here limits what it says: a warm one was idle before it was claimed, and the
clock stands still while it is paused.

A pause is written before the desktop stands still, so that whoever comes finds it paused and
resumes it, and nobody's request waits in a desktop that does not run. It gives way: whoever wants
the desktop while it is being paused gets it. A desktop whose controller dies in between runs on,
said to be paused, until the next action. Its deadline ends it, paused or not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio

from controller.events import Events
from controller.live import SYSTEM, Cluster, Live, Pausing
from workspace.errors import CarrelError, NotReady, Unsupported, WorkspaceEnded

ASK_SECONDS = 10.0
ASK_AGAIN_SECONDS = 5.0
UNDER_WAY_SECONDS = 0.2  # who read that it is ready has asked it by then
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Idling:
    """Pauses, resumes and releases what its controller keeps."""

    cluster: Cluster
    events: Events
    save: Callable[[Live], Awaitable[None]]

    async def until_idle(self, live: Live) -> None:
        """Pause it each time that it is idle, or have it released and return."""
        limit = live.workspace.idle_seconds
        assert limit is not None, "it may be idle for ever"
        while True:
            turned = live.turned
            if live.workspace.state != "ready":
                await turned.wait()
                continue
            idle = await self._idle_seconds(live, limit)
            if idle is None or idle < limit:
                with anyio.move_on_after(ASK_AGAIN_SECONDS if idle is None else limit - idle):
                    await turned.wait()
            elif live.workspace.when_idle == "pause":
                await self._pause_if_idle(live, limit)
            else:
                return await self._release(live, idle)

    async def _idle_seconds(self, live: Live, limit: float) -> float | None:
        """How long it has been idle; None if it cannot tell. It is not asked before it may be."""
        known = time.monotonic() - live.used_at
        if known < limit:
            return known
        if live.desktop is None:
            return None
        try:
            with anyio.fail_after(ASK_SECONDS):
                health = await live.desktop.health()
        except (CarrelError, TimeoutError) as error:
            _log.info("cannot tell whether %s is idle: %s", live.workspace.id, error)
            return None
        return min(time.monotonic() - live.used_at, health.idle_seconds)

    async def _release(self, live: Live, idle: float) -> None:
        live.end("released", WorkspaceEnded(f"It was idle for {idle:.0f} seconds."))
        with anyio.CancelScope(shield=True):  # bounded by the log
            await self._record("idle", live, SYSTEM, idle_seconds=round(idle, 1))

    async def _pause_if_idle(self, live: Live, limit: float) -> None:
        async def is_idle() -> bool:
            idle = await self._idle_seconds(live, limit)
            return idle is not None and idle >= limit

        try:
            await self._pause(live, SYSTEM, UNDER_WAY_SECONDS, is_idle, idle_seconds=limit)
        except CarrelError as error:
            _log.warning("the idle desktop %s is not paused: %s", live.workspace.id, error.message)

    async def pause(self, live: Live, *, actor: str, notice_seconds: float = 0) -> None:
        """Have it stand still; again is success, and so is a pause that somebody ended meanwhile.

        With ``notice_seconds`` that long passes before, for others to learn of it.

        Raises:
            NotReady: it is neither ready nor paused.
            Unsupported: its node cannot.
            Unavailable: it did not come to rest, and goes on.
        """
        if live.workspace.state != "paused":
            await self._pause(live, actor, notice_seconds)
        elif live.pausing is not None:
            await live.pausing.over.wait()

    async def _pause(
        self,
        live: Live,
        actor: str,
        notice_seconds: float,
        is_idle: Callable[[], Awaitable[bool]] | None = None,
        **data: float,
    ) -> None:
        async with live.turning:
            if live.workspace.state != "ready" or live.end_state is not None:
                raise NotReady(f"Workspace {live.workspace.id} is {live.workspace.state}.")
            live.pausing = pausing = Pausing()
            live.change(state="paused")
        try:
            await self.save(live)
            if notice_seconds:
                with anyio.move_on_after(notice_seconds):
                    await pausing.is_wanted.wait()
                if pausing.is_wanted.is_set() or (is_idle is not None and not await is_idle()):
                    return
                await self.save(live)  # nobody else keeps it by now
            if live.is_lost:
                return
            pausing.may_stand = True
            paused = await self.cluster.pause(live.workspace.sandbox)
            pausing.is_done = True
            await self._record("pause", live, actor, reclaimed_mib=paused.reclaimed_mib, **data)
        except CarrelError as error:
            pausing.may_stand = pausing.may_stand and not isinstance(error, Unsupported)
            if pausing.is_done or not pausing.is_wanted.is_set():
                raise
            _log.info("the pause of %s gave way: %s", live.workspace.id, error.message)
        finally:
            pausing.over.set()
            if not pausing.is_done:
                with anyio.CancelScope(shield=True), suppress(CarrelError):
                    await self._go_on(live)  # each step is bounded

    async def resume(self, live: Live, *, actor: str) -> None:
        """Have it go on, however many ask; one that is not paused is left as it is.

        Raises:
            Unavailable, DesktopLost: it may still be paused.
        """
        if live.pausing is not None:
            live.pausing.is_wanted.set()
        with anyio.CancelScope(shield=True):  # a caller that goes away leaves it whole; bounded
            if await self._go_on(live):
                await self._record("resume", live, actor)

    async def _go_on(self, live: Live) -> bool:
        """Whether it was paused, and this made it ready."""
        async with live.turning:
            if live.workspace.state != "paused" or live.end_state is not None or live.is_lost:
                return False
            pausing = live.pausing
            if pausing is not None and not pausing.over.is_set():
                if pausing.may_stand:  # it takes memory back, which can take seconds
                    with suppress(CarrelError):
                        await self.cluster.resume(live.workspace.sandbox)
                await pausing.over.wait()  # bounded by the cluster
            if pausing is None or pausing.may_stand:
                await self.cluster.resume(live.workspace.sandbox)
            if live.end_state is not None:
                return False
            live.change(state="ready")
            await self.save(live)
            return (pausing is None or pausing.is_done) and not live.is_lost

    async def _record(self, kind: str, live: Live, actor: str, **data: float | None) -> None:
        await self.events.record(kind, actor=actor, workspace_id=live.workspace.id, **data)
