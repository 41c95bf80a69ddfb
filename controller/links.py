"""Links that share one desktop: made, looked up, revoked. What they open is in ``access``.

What proves a link is signed (:mod:`controller.auth`) and kept nowhere; that it still opens anything
is asked of the store.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from controller.access import Caller
from controller.events import Events
from controller.live import new_id
from controller.remembering import Remembered
from controller.store import Store
from controller.store.shares import KeptShare
from workspace.access import NewShare, Share, ShareRequest

MOST = 100  # of one workspace, told at a time


class Links:
    """The links of one controller's store; ``url_of`` signs one."""

    def __init__(self, store: Store, events: Events, url_of: Callable[[Share], str]) -> None:
        self._store = store
        self._events = events
        self._url_of = url_of
        self._known: Remembered[KeptShare] = Remembered(store.shares.get)

    async def good(self, share_id: str) -> Share | None:
        """A link by its id, unless it is revoked or expired.

        Raises:
            Unavailable: nobody can tell.
        """
        kept = await self._known.get(share_id)
        if kept is None or kept.is_revoked or kept.share.expires_at <= datetime.now(timezone.utc):
            return None
        return kept.share

    async def make(self, workspace_id: str, asked: ShareRequest, *, by: Caller) -> NewShare:
        """A new link to a workspace that there is."""
        now = datetime.now(timezone.utc)
        share = Share(
            id=new_id(),
            workspace_id=workspace_id,
            mode=asked.mode,
            created_at=now,
            created_by=by.name,
            expires_at=now + timedelta(seconds=asked.ttl_seconds),
        )
        await self._store.shares.add(share)
        await self._record("shared", share.workspace_id, by, share=share.id, mode=share.mode)
        return NewShare(**share.model_dump(), url=self._url_of(share))

    async def of(self, workspace_id: str) -> list[Share]:
        """The good ones of a workspace, the newest first."""
        now = datetime.now(timezone.utc)
        return await self._store.shares.of(workspace_id, now=now, limit=MOST)

    async def revoke(self, workspace_id: str, share_id: str, *, by: Caller) -> None:
        """It opens nothing from now on; whoever watches by it is cut off within seconds.

        Raises:
            LinkNotFound: the workspace never had it.
        """
        now = datetime.now(timezone.utc)
        try:
            is_news = await self._store.shares.revoke(workspace_id, share_id, now=now)
        finally:  # it may have been done though it failed
            self._known.forget(share_id)
        if is_news:
            await self._record("unshared", workspace_id, by, share=share_id)

    async def _record(self, kind: str, workspace_id: str, by: Caller, **told: str) -> None:
        await self._events.record(kind, actor=by.name, workspace_id=workspace_id, **told)
