"""Keys as they are kept: whose each is, what it may do, and the digest that proves it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Row, insert, literal, select, tuple_, update

from controller.store.doing import Clash, Doing
from controller.store.tables import UtcTime, keys
from workspace.access import Key
from workspace.errors import Conflict, InvalidRequest, KeyNotFound


class KeptKey(NamedTuple):
    """A key with what proves it."""

    key: Key
    digest: str  # SHA-256 of its secret part, in hexadecimal
    is_revoked: bool


class Keys:
    """The keys of one store; see :class:`controller.store.Store`."""

    def __init__(self, doing: Doing) -> None:
        self._doing = doing

    async def add(self, key: Key, digest: str) -> None:
        """Keep a new one.

        Raises:
            Conflict: its tenant has one of that name.
        """
        new = insert(keys).values(**key.model_dump(), digest=digest)
        try:
            await self._doing.transact(lambda it: it.execute(new))
        except Clash as error:
            raise Conflict(
                f"Tenant {key.tenant!r} has a key {key.name!r} already.",
                hint="Revoke that one first, or choose another name.",
            ) from error

    async def get(self, key_id: str) -> KeptKey | None:
        """One by its id, good or not; None if there never was one."""
        rows = await self._doing.rows(select(keys).where(keys.c.id == key_id))
        return _kept(rows[0]) if rows else None

    async def page(self, *, limit: int, after: str | None = None) -> list[Key]:
        """Those that are not revoked, newest first, that were made before ``after``.

        Raises:
            InvalidRequest: there never was a key ``after``.
        """
        statement = select(keys).where(keys.c.revoked_at.is_(None))
        statement = statement.order_by(keys.c.created_at.desc(), keys.c.id.desc()).limit(limit)
        if after is not None:
            asked = select(keys.c.created_at).where(keys.c.id == after)
            if not (found := await self._doing.rows(asked)):
                raise InvalidRequest(f"after: there is no key {after!r}.")
            age = tuple_(keys.c.created_at, keys.c.id)
            last = tuple_(literal(found[0].created_at, UtcTime), literal(after))
            statement = statement.where(age < last)
        return [_kept(row).key for row in await self._doing.rows(statement)]

    async def revoke(self, key_id: str, *, now: datetime) -> Key | None:
        """It is no good from now on; None if it was not before.

        Raises:
            KeyNotFound: there never was one of that id.
        """
        if "\0" in key_id:  # PostgreSQL refuses to be asked
            raise KeyNotFound(f"There is no key {key_id[:100]!r}.")
        good = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None))
        done = await self._doing.do(lambda it: it.execute(good.values(revoked_at=now)))
        if (kept := await self.get(key_id)) is None:
            raise KeyNotFound(f"There is no key {key_id[:100]!r}.")
        return kept.key if done.rowcount else None


def _kept(row: Row[tuple[object, ...]]) -> KeptKey:
    return KeptKey(
        Key.model_validate(dict(row._mapping)), row.digest, is_revoked=row.revoked_at is not None
    )
