"""Links that share one desktop, as they are kept."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import insert, select, update

from controller.store.doing import Doing
from controller.store.tables import shares
from workspace.access import Share
from workspace.errors import LinkNotFound


class KeptShare(NamedTuple):
    """A link, and whether it still opens anything."""

    share: Share
    is_revoked: bool


class Shares:
    """The links of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def add(self, share: Share) -> None:
        """Keep a new one."""
        new = insert(shares).values(**share.model_dump())
        await self._doing.do(lambda it: it.execute(new), is_repeatable=False)

    async def get(self, share_id: str) -> KeptShare | None:
        """One by its id, good or not; None if there never was one."""
        rows = await self._doing.rows(select(shares).where(shares.c.id == share_id))
        if not rows:
            return None
        share = Share.model_validate(dict(rows[0]._mapping))
        return KeptShare(share, is_revoked=rows[0].revoked_at is not None)

    async def of(self, workspace_id: str, *, now: datetime, limit: int) -> list[Share]:
        """The good ones of a workspace, the newest first."""
        statement = (
            select(shares)
            .where(shares.c.workspace_id == workspace_id)
            .where(shares.c.revoked_at.is_(None), shares.c.expires_at > now)
            .order_by(shares.c.created_at.desc(), shares.c.id)
            .limit(limit)
        )
        rows = await self._doing.rows(statement)
        return [Share.model_validate(dict(row._mapping)) for row in rows]

    async def revoke(self, workspace_id: str, share_id: str, *, now: datetime) -> bool:
        """It opens nothing from now on; False if it did not before.

        Raises:
            LinkNotFound: the workspace never had one of that id.
        """
        its = (shares.c.id == share_id, shares.c.workspace_id == workspace_id)
        good = update(shares).where(*its, shares.c.revoked_at.is_(None)).values(revoked_at=now)
        if (await self._doing.do(lambda it: it.execute(good))).rowcount:
            return True
        if not await self._doing.rows(select(shares.c.id).where(*its)):
            raise LinkNotFound(f"Workspace {workspace_id} has no link {share_id[:100]!r}.")
        return False
