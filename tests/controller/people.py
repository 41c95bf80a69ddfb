"""A controller on a port with a fake desktop, and people of several names who use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect

from controller import auth
from controller.auth import Caller
from tests.controller.conftest import BEARER, KEY, LocalCluster, add_template, claim
from tests.serving import listening


class Site:
    """A controller on a port with a fake desktop, and callers of several names."""

    def __init__(self, port: int, workspace_id: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.id = workspace_id
        self.base = f"/v1/workspaces/{workspace_id}"

    def of(self, name: str) -> httpx.AsyncClient:
        """A client of somebody with that name."""
        key = {"Authorization": f"Bearer {KEY}-{name}"}
        return httpx.AsyncClient(base_url=self.url, headers=key, timeout=20)

    async def watch(self, name: str, query: str = "role=control") -> ClientConnection:
        return await connect(
            f"{self.url.replace('http', 'ws')}{self.base}/vnc?{query}",
            additional_headers={"Authorization": f"Bearer {KEY}-{name}"},
            proxy=None,
        )

    async def all_events(self) -> list[dict[str, Any]]:  # Any: JSON values
        async with self.of("admin") as http:
            found = (await http.get(f"{self.base}/events", params={"limit": 1000})).json()
        return list(found["events"])

    async def events(self, kind: str) -> list[dict[str, Any]]:  # Any: JSON values
        return [event for event in await self.all_events() if event["kind"] == kind]


@pytest.fixture
async def site(
    app: FastAPI, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    by_key = auth.Auth.by_key

    def named(self: auth.Auth, key: str) -> Caller:
        """Several people, by the key's end: keys of their own come with their names."""
        found = by_key(self, key[: len(KEY)])
        return found._replace(name=key[len(KEY) + 1 :] or found.name)

    monkeypatch.setattr(auth.Auth, "by_key", named)
    async with app.router.lifespan_context(app), listening(app) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=BEARER) as http:
            await add_template(http, "fake")
            made = await claim(http, template="fake")
        yield Site(port, str(made["id"]))
