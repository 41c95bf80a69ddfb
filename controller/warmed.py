"""One desktop that is kept warm: its start until it has settled, its watch, and its end.

Its row is written before anything is started and deleted before it is stopped, and who deletes the
row has the desktop: so no claim gets one that is being ended, and nobody ends one that was claimed.
Where the row is gone it is looked up who was first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Literal

import anyio

from controller.live import Cluster, Handed
from controller.store import Store
from controller.store.warm import Warm
from controller.tracing import connect
from workspace.desktop import Desktop
from workspace.errors import BackendUnavailable, CarrelError, StartFailed, TimedOut, Unavailable
from workspace.models import Template

START_SECONDS = 180.0  # in the background: longer than a backend gives it
# Beyond the age at which it is replaced: should nobody do that, its node ends it.
MARGIN_SECONDS = 600.0
STARTUP_SECONDS = 10.0  # for the windows of the template's own programs
REST_MS, REST_SECONDS = 200, 5.0
SETTLE_SECONDS = 30.0  # in all
LOOK_SECONDS = 0.05
IDE_SECONDS, IDE_LOOK_SECONDS = 120.0, 0.25  # in the background, an IDE beside it
AGAIN_SECONDS = 1.0

End = Literal["", "taken", "left"]
_log = logging.getLogger(__name__)


@dataclass
class Warmed:
    """A desktop as who keeps it warm holds it."""

    row: Warm
    of: tuple[str, str] = ("", "")  # what its failures are counted of
    node: str | None = None  # its id
    handed: Handed | None = None  # once it has started
    is_ending: bool = False
    # "taken": a claim has it, connection and all; "left": it lives on for whoever comes next.
    end: End = ""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)

    def finish(self, end: End = "") -> None:
        """Have its task let go of it: end it, unless ``end`` says what else."""
        self.end, self.is_ending = end, True
        self.scope.cancel()


class Warmer:
    """Brings up warm desktops and ends them, for one controller."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster

    async def look_after(
        self,
        own: Warmed,
        template: Template | None,
        *,
        is_warm: Callable[[], None],
        failed: Callable[[str], None],
        is_full: Callable[[], None],
    ) -> None:
        """Start it if there is a ``template``, watch it until it ends, and end it.

        Tells when a claim can have it, why it did not come up or died, and if nobody could have
        started it now. Nothing is raised.
        """
        try:
            with own.scope:
                try:
                    if template is None or await self._start(own, template):
                        is_warm()
                        await self._until_dead(own, failed)
                except BackendUnavailable as error:
                    failed(str(error))
                except Unavailable as error:  # no room, or nobody answers: not the template's fault
                    _log.warning("warm desktop %s: %s", own.row.id, error.message)
                    is_full()
                except CarrelError as error:
                    failed(str(error))
                except Exception as error:  # one desktop's defect must not end the others
                    _log.exception("warm desktop %s failed", own.row.id)
                    failed(f"It failed: {type(error).__name__}.")
        finally:
            own.is_ending = True
            await self._finish(own)
            own.gone.set()

    async def _start(self, own: Warmed, template: Template) -> bool:
        """Whether a claim can have it now; else somebody wanted it no longer."""
        located = await self._cluster.start(
            own.row.id,
            template,
            ttl_seconds=template.pool.max_age_seconds + MARGIN_SECONDS,
            timeout_seconds=START_SECONDS,
            background=True,
            avoid=await self._store.operated.draining(),
        )
        own.node = located.node
        own.handed = Handed(located.endpoint, connect(located.endpoint))
        try:
            with anyio.fail_after(SETTLE_SECONDS + (IDE_SECONDS if template.ide else 0)):
                await _settle(own.handed.desktop, template)
        except TimeoutError as error:
            raise StartFailed("It came up, and did not come to rest.") from error
        now = datetime.now(timezone.utc)
        warm = replace(own.row, state="warm", node=located.node_name or None, ready_at=now)
        # A claim may have it from the moment that this is written.
        if not await self._store.warm.save(warm):
            return False
        own.row = warm
        return True

    async def _until_dead(self, own: Warmed, failed: Callable[[str], None]) -> None:
        while True:
            try:
                end = await self._cluster.ended(own.row.id)
            except Unavailable as error:
                _log.warning("cannot watch warm desktop %s: %s", own.row.id, error.message)
                await anyio.sleep(AGAIN_SECONDS)
                continue
            if end.code == "desktop_lost":  # else its time was up, or its node or Ray has gone
                failed(f"A warm desktop died: {end.message}")
            return

    # Its end.

    async def _finish(self, own: Warmed) -> None:
        if own.end == "taken":
            return
        if own.handed is not None:
            with anyio.move_on_after(AGAIN_SECONDS, shield=True), suppress(CarrelError):
                await own.handed.desktop.aclose()
        if own.end != "left":
            await self.end(own.row.id)

    async def end(self, sandbox: str) -> None:
        """Take it away from claims and stop it, unless one has it; tried until it is done."""
        while True:
            try:
                with anyio.CancelScope(shield=True):  # each step of it is bounded
                    # Should the answer be lost, the next try finds who has it.
                    is_ours = await self._store.warm.drop(sandbox)
                    if is_ours or await self._store.get_of(sandbox) is None:
                        await self._cluster.stop(sandbox)
                return
            except CarrelError as error:
                _log.warning("ending warm desktop %s: %s", sandbox, error.message)
                await anyio.sleep(AGAIN_SECONDS)
            except Exception:  # it is tried again, whatever this time ran into
                _log.exception("ending warm desktop %s failed", sandbox)
                await anyio.sleep(AGAIN_SECONDS)


async def _settle(desktop: Desktop, template: Template) -> None:
    """Wait until it looks as it will be found; a first picture is made at the end.

    The daemon has seen to the window manager, the panel and the backdrop. The template's own
    IDE is waited for until it is ready, its programs by their windows, one each, and then until
    nothing moves. That they came late once says nothing of the next time: where some open none,
    each start takes longer.
    """
    if template.ide is not None:
        await _until_ide(desktop)
    if template.startup:
        there = 0
        with anyio.move_on_after(STARTUP_SECONDS):
            while there < len(template.startup):
                windows = await desktop.windows()
                there = sum(window.kind in ("normal", "dialog") for window in windows)
                await anyio.sleep(LOOK_SECONDS)
        with suppress(TimedOut):  # some never rest
            await desktop.wait_for_rest(stable_ms=REST_MS, seconds=REST_SECONDS)
    await desktop.screenshot()


async def _until_ide(desktop: Desktop) -> None:
    while (told := await desktop.ide_health()).phase != "ready":
        if told.phase == "not_started":  # any more
            raise StartFailed(f"It came up, and its IDE did not: {told.message}")
        await anyio.sleep(IDE_LOOK_SECONDS)
