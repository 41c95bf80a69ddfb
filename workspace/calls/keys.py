"""Keys and tenants of a controller, for its admin; and links that share one desktop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import TypeAdapter

from workspace.access import (
    KEY_ID,
    Key,
    KeyList,
    KeyRequest,
    NewKey,
    NewShare,
    Quotas,
    Share,
    ShareMode,
    ShareRequest,
    Tenant,
    TenantList,
)
from workspace.errors import InvalidRequest, KeyNotFound, LinkNotFound, WorkspaceNotFound
from workspace.models import DEFAULT_TENANT, TEMPLATE_NAME, WORKSPACE_ID, Role
from workspace.transport import asked

MAX_LISTED = 10_000
_SHARES = TypeAdapter(list[Share])


class Caller(Protocol):
    """What the client of a controller has for its calls."""

    async def _call(self, method: str, url: str, *, seconds: float = ..., **options: Any) -> bytes:
        """One request. Any: httpx's own options."""


class KeyCalls:
    """Who else may enter."""

    async def new_key(
        self: Caller,
        name: str,
        *,
        role: Role = "user",
        tenant: str = DEFAULT_TENANT,
        ttl_seconds: float | None = None,
    ) -> NewKey:
        """A new key; its ``key`` is told this once.

        Raises:
            Forbidden: only an admin makes keys.
            Conflict: the tenant has one of that name.
        """
        wanted = asked(KeyRequest, name=name, role=role, tenant=tenant, ttl_seconds=ttl_seconds)
        body = await self._call("POST", "/v1/keys", json=wanted.model_dump())
        return NewKey.model_validate_json(body)

    async def keys(self: Caller) -> Sequence[Key]:
        """Those that are not revoked, newest first; of very many the first ``MAX_LISTED``."""
        found: list[Key] = []
        after: str | None = None
        while len(found) < MAX_LISTED:
            params: dict[str, str | int] = {"limit": 1000} | ({"after": after} if after else {})
            page = KeyList.model_validate_json(await self._call("GET", "/v1/keys", params=params))
            found += page.keys
            after = page.after
            if after is None:
                break
        return found

    async def revoke_key(self: Caller, key_id: str) -> None:
        """Have it open nothing from now on; one already revoked is success.

        Raises:
            KeyNotFound: there never was one of that id.
        """
        if re.fullmatch(KEY_ID, key_id) is None:
            raise KeyNotFound(f"There is no key {key_id[:80]!r}.")
        await self._call("DELETE", f"/v1/keys/{key_id}")

    async def tenants(self: Caller) -> Sequence[Tenant]:
        """What each may have, and has; of very many the first ``MAX_LISTED``."""
        found: list[Tenant] = []
        after: str | None = None
        while len(found) < MAX_LISTED:
            params: dict[str, str | int] = {"limit": 1000} | ({"after": after} if after else {})
            body = await self._call("GET", "/v1/tenants", params=params)
            page = TenantList.model_validate_json(body)
            found += page.tenants
            after = page.after
            if after is None:
                break
        return found

    async def set_quotas(
        self: Caller,
        tenant: str,
        *,
        workspaces: int | None = None,
        cpus: float | None = None,
        memory_mib: int | None = None,
        desktop_hours: float | None = None,
        requests_per_minute: int | None = None,
        artifact_days: float | None = None,
        event_days: float | None = None,
    ) -> Tenant:
        """What a tenant may have from now on; None is as much as there is, and is kept as long as
        the controller's settings say.
        """
        quotas = asked(
            Quotas,
            workspaces=workspaces,
            cpus=cpus,
            memory_mib=memory_mib,
            desktop_hours=desktop_hours,
            requests_per_minute=requests_per_minute,
            artifact_days=artifact_days,
            event_days=event_days,
        )
        if re.fullmatch(TEMPLATE_NAME, tenant) is None:
            raise InvalidRequest(f"{tenant[:80]!r} is no tenant's name.")
        body = await self._call("PUT", f"/v1/tenants/{tenant}", json=quotas.model_dump())
        return Tenant.model_validate_json(body)


class ShareCalls:
    """Links for others."""

    async def share(
        self: Caller, workspace_id: str, *, mode: ShareMode = "view", ttl_seconds: float = 3600
    ) -> NewShare:
        """A link to one desktop for whoever has it: its ``url`` is told this once."""
        wanted = asked(ShareRequest, mode=mode, ttl_seconds=ttl_seconds)
        body = await self._call("POST", _path(workspace_id), json=wanted.model_dump())
        return NewShare.model_validate_json(body)

    async def shares(self: Caller, workspace_id: str) -> Sequence[Share]:
        """The links that still open a desktop, the newest hundred."""
        return _SHARES.validate_json(await self._call("GET", _path(workspace_id)))

    async def revoke_share(self: Caller, workspace_id: str, share_id: str) -> None:
        """Have a link open nothing from now on; who watches by it is cut off.

        Raises:
            LinkNotFound: the workspace never had it.
        """
        if re.fullmatch(KEY_ID, share_id) is None:
            raise LinkNotFound(f"There is no link {share_id[:80]!r}.")
        await self._call("DELETE", f"{_path(workspace_id)}/{share_id}")


def _path(workspace_id: str) -> str:
    if re.fullmatch(WORKSPACE_ID, workspace_id) is None:
        raise WorkspaceNotFound(f"There is no desktop {workspace_id[:80]!r}.")
    return f"/v1/workspaces/{workspace_id}/shares"
