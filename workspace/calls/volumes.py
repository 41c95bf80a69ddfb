"""Volumes of a controller: homes that outlive the workspaces they are mounted in."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import anyio
import httpx

from workspace import transport
from workspace.errors import VolumeNotFound
from workspace.models import Volume, VolumeList

MAX_LISTED = 10_000
REMOVE_SECONDS = 700.0  # a volume of a million files
PIECE_SECONDS = 180.0  # until a copy begins, or goes on


class Caller(Protocol):
    """What the client of a controller has for its calls."""

    _http: httpx.AsyncClient

    async def _call(self, method: str, url: str, *, seconds: float = ..., **options: Any) -> bytes:
        """One request. Any: httpx's own options."""


class VolumeCalls:
    """The volumes of this key."""

    async def volumes(self: Caller) -> Sequence[Volume]:
        """All of them, by name; of very many the first ``MAX_LISTED``."""
        found: list[Volume] = []
        after: str | None = None
        while len(found) < MAX_LISTED:
            params: dict[str, str | int] = {"limit": 1000} | ({"after": after} if after else {})
            body = await self._call("GET", "/v1/volumes", params=params)
            page = VolumeList.model_validate_json(body)
            found += page.volumes
            after = page.after
            if after is None:
                break
        return found

    async def volume(self: Caller, name: str) -> Volume:
        """One, and which workspace has it.

        Raises:
            VolumeNotFound.
        """
        return Volume.model_validate_json(await self._call("GET", _path(name)))

    async def remove_volume(self: Caller, name: str, *, forget: bool = False) -> None:
        """Remove it and all in it; with ``forget`` also if its node, where it then stays, is gone.

        Raises:
            VolumeNotFound.
            VolumeInUse: a workspace has it.
            BackendUnavailable: its node is not there.
        """
        params = {"forget": "true"} if forget else {}
        await self._call("DELETE", _path(name), params=params, seconds=REMOVE_SECONDS)

    def open_volume(self: Caller, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A tar of all in it as it comes: ``async with carrel.open_volume(name) as chunks``.

        Raises:
            VolumeNotFound.
            VolumeInUse: a workspace has it.
            DesktopLost: it broke off; what came is not whole.
        """
        return _tar(self._http, _path(name))

    async def save_volume(self: Caller, name: str, path: str | os.PathLike[str]) -> int:
        """Write the tar to a file here, which is there once it is whole; its size in bytes.

        Raises: what :meth:`open_volume` does.
        """
        size, partial = 0, anyio.Path(f"{os.fspath(path)}.part")
        async with _tar(self._http, _path(name)) as chunks:
            try:
                async with await anyio.open_file(partial, "wb") as file:
                    async for chunk in chunks:
                        size += await file.write(chunk)
                await partial.replace(os.fspath(path))
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await partial.unlink(missing_ok=True)
                raise
        return size


@asynccontextmanager
async def _tar(http: httpx.AsyncClient, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
    timeout = transport.timeout(PIECE_SECONDS)
    async with transport.stream(http, "GET", f"{path}/export", timeout=timeout) as response:
        yield response.aiter_bytes()


def _path(name: str) -> str:
    if re.fullmatch(r"[a-z0-9-]{1,63}", name) is None:
        raise VolumeNotFound(f"There is no volume {name[:80]!r}.")
    return f"/v1/volumes/{name}"
