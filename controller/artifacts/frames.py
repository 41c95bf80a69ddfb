"""The frames before and after actions, kept as artifacts.

A workspace that keeps none pays nothing. For one that does, a batch of actions is a look before it
and a look after it. A look asks for what is new since the last one, so that an unchanged screen is
neither encoded nor sent again; an identical frame is not kept again either. The frames are kept
before the event that names them is written, and that before the answer.

An action never fails, and is never held up for longer than ``LOOK_SECONDS`` twice and
``KEEP_SECONDS``, for a frame's sake: the event then says why there is none, and for
``PAUSE_SECONDS`` after what keeps them has failed nobody waits for it again.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import anyio

from controller.artifacts import Artifacts
from workspace.actions import Image
from workspace.artifacts import Artifact
from workspace.desktop import Desktop
from workspace.errors import CarrelError, DesktopLost, TimedOut
from workspace.models import KeepFrames

LOOK_SECONDS = 2.0
KEEP_SECONDS = 4.0
PAUSE_SECONDS = 10.0
AGAIN_SECONDS = 600.0  # then a frame is kept anew: it may have been removed meanwhile
MANY = 256  # workspaces whose last frame is known
QUALITY = 80
_log = logging.getLogger(__name__)


@dataclass
class _Seen:
    """A frame, and what has been kept of it; then its bytes are not held any more."""

    image: Image
    kept: Artifact | None = None
    kept_at: float = 0.0

    @property
    def is_old(self) -> bool:
        return self.kept is not None and time.monotonic() - self.kept_at > AGAIN_SECONDS


class Frames:
    """Keeps the frames of one controller's workspaces."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._last: OrderedDict[str, _Seen] = OrderedDict()
        self._paused_until = 0.0

    @asynccontextmanager
    async def around(
        self,
        desktop: Desktop,
        workspace_id: str,
        keep: KeepFrames,
        told: dict[str, Any],  # Any: JSON values
    ) -> AsyncIterator[None]:
        """Keep the frames before and after the block, as ``keep`` (not "none") wants it, and write
        to ``told`` which they are.

        ``told["frames"]``: ``before`` and ``after``, each with ``artifact`` and ``digest``; only
        ``"changed": false`` if that is why none are kept; ``not_kept`` says why else.
        """
        if time.monotonic() < self._paused_until:
            told["frames"] = {"not_kept": "keeping them failed a moment ago"}
            yield
            return
        before = await self._look(desktop, workspace_id)
        try:
            yield
        except (DesktopLost, TimedOut):
            told["frames"] = await self._kept(workspace_id, keep, before, None)
            raise
        except CarrelError:  # some of it may have been done
            after = await self._look(desktop, workspace_id)
            told["frames"] = await self._kept(workspace_id, keep, before, after)
            raise
        after = await self._look(desktop, workspace_id)
        told["frames"] = await self._kept(workspace_id, keep, before, after)

    async def _look(self, desktop: Desktop, workspace_id: str) -> _Seen | None:
        """What is on the screen; None if the desktop does not say."""
        last = self._last.get(workspace_id)
        since = last.image.frame if last is not None and not last.is_old else None
        try:
            with anyio.fail_after(LOOK_SECONDS):
                image = await desktop.screenshot_since(
                    since, format="jpeg", quality=QUALITY, cursor=False
                )
        except (CarrelError, TimeoutError) as error:
            _log.warning("workspace %s: no frame is seen: %s", workspace_id, error)
            return None
        if image is None:
            return last
        self._last[workspace_id] = seen = _Seen(image)
        self._last.move_to_end(workspace_id)
        while len(self._last) > MANY:
            self._last.popitem(last=False)
        return seen

    async def _kept(
        self, workspace_id: str, keep: KeepFrames, before: _Seen | None, after: _Seen | None
    ) -> dict[str, Any]:  # Any: JSON values
        if before is after and before is not None and keep == "changed":
            return {"changed": False}
        told: dict[str, Any] = {}
        pairs = (("before", before), ("after", after))
        try:
            with anyio.fail_after(KEEP_SECONDS):
                for when, seen in pairs:
                    if seen is not None:
                        told[when] = await self._keep(workspace_id, seen)
        except (CarrelError, TimeoutError) as error:
            why = error.message if isinstance(error, CarrelError) else "it took too long"
            _log.warning("workspace %s: a frame is not kept: %s", workspace_id, why)
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            told["not_kept"] = why[:300]
        if before is None or after is None:
            told.setdefault("not_kept", "the desktop did not show its screen in time")
        return told

    async def _keep(self, workspace_id: str, seen: _Seen) -> dict[str, str]:
        if seen.kept is None:
            image = seen.image
            now = datetime.now(timezone.utc)
            seen.kept = await self._artifacts.save_bytes(
                bytes(image.data),
                workspace_id=workspace_id,
                kind="frame",
                name=f"{workspace_id}-{now:%Y%m%dT%H%M%S%f}.jpg",
                meta={"width": image.width, "height": image.height},
            )
            seen.kept_at = time.monotonic()
            seen.image = image.model_copy(update={"data": b""})
        return {"artifact": seen.kept.id, "digest": seen.kept.digest}
