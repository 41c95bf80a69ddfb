"""Keys beside the admin's own: made, looked up, revoked.

A key reads ``carrel_<id>_<secret>``. It is looked up by its id and proven by the digest of its
secret, compared in constant time; the secret itself is kept nowhere and told once. Secrets are
random and long, so a plain SHA-256 is enough and a request need not wait for a slow one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from datetime import datetime, timedelta, timezone

from controller.access import Caller
from controller.events import Events
from controller.live import SYSTEM, new_id
from controller.remembering import Remembered
from controller.store import Store
from controller.store.keys import KeptKey
from workspace.access import Key, KeyRequest, NewKey
from workspace.errors import InvalidRequest

KEY = re.compile(r"carrel_([a-z0-9]{8,20})_([A-Za-z0-9]{40})")
ADMIN = "admin"
# Who the log tells of otherwise.
_RESERVED = frozenset({ADMIN, SYSTEM, "viewer", "link"})
_LETTERS = string.ascii_letters + string.digits


class Keyring:
    """The keys of one controller's store."""

    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events
        self._known: Remembered[KeptKey] = Remembered(store.keys.get)

    async def caller(self, key: str) -> Caller | None:
        """Whose key this is; None if it is none that is good.

        Raises:
            Unavailable: nobody can tell.
        """
        if (match := KEY.fullmatch(key)) is None:
            return None
        kept = await self.good(match[1])
        if kept is None or not hmac.compare_digest(_digest(match[2]), kept.digest):
            return None
        return caller_of(kept.key)

    async def good(self, key_id: str) -> KeptKey | None:
        """A key by its id, unless it is revoked or expired."""
        kept = await self._known.get(key_id)
        if kept is None or kept.is_revoked or _has_expired(kept.key):
            return None
        return kept

    async def make(self, asked: KeyRequest, *, by: Caller) -> NewKey:
        """A new key.

        Raises:
            Conflict: its tenant has one of that name.
            InvalidRequest: the log would take it for somebody else.
        """
        if asked.name in _RESERVED:
            raise InvalidRequest(f"name: {asked.name!r} is what the log calls another.")
        now = datetime.now(timezone.utc)
        ttl = asked.ttl_seconds
        key = Key(
            id=new_id(),
            name=asked.name,
            role=asked.role,
            tenant=asked.tenant,
            created_at=now,
            created_by=by.name,
            expires_at=None if ttl is None else now + timedelta(seconds=ttl),
        )
        secret = "".join(secrets.choice(_LETTERS) for _ in range(40))
        await self._store.keys.add(key, _digest(secret))
        await self._record("key_created", key, by)
        return NewKey(**key.model_dump(), key=f"carrel_{key.id}_{secret}")

    async def page(self, *, limit: int, after: str | None) -> list[Key]:
        return await self._store.keys.page(limit=limit, after=after)

    async def revoke(self, key_id: str, *, by: Caller) -> None:
        """It opens nothing from now on: here at once, at other controllers within seconds.

        Raises:
            KeyNotFound: there never was one of that id.
        """
        now = datetime.now(timezone.utc)
        try:
            revoked = await self._store.keys.revoke(key_id, now=now)
        finally:  # it may have been done though it failed
            self._known.forget(key_id)
        if revoked is not None:
            await self._record("key_revoked", revoked, by)

    async def _record(self, kind: str, key: Key, by: Caller) -> None:
        told = {"key": key.id, "name": key.name, "role": key.role, "tenant": key.tenant}
        await self._events.record(kind, actor=by.name, **told)


def caller_of(key: Key) -> Caller:
    """Who asks with it."""
    until = None if key.expires_at is None else key.expires_at.timestamp()
    return Caller(key.name, key.role, key.tenant, key_id=key.id, until=until)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _has_expired(key: Key) -> bool:
    return key.expires_at is not None and key.expires_at <= datetime.now(timezone.utc)
