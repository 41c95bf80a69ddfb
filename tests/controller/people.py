"""A controller on a port with the bot's fake desktop, and people with keys of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect

from tests.controller.conftest import BEARER, KEY, LocalCluster, add_template
from tests.serving import listening

NAMES = ("ada", "bob", "bot", "opal", *(f"person{number}" for number in range(40)))


class Site:
    """A controller on a port with a fake desktop, and callers of several names."""

    def __init__(self, port: int, workspace_id: str, keys: Mapping[str, str]) -> None:
        self.keys = keys
        self.url = f"http://127.0.0.1:{port}"
        self.id = workspace_id
        self.base = f"/v1/workspaces/{workspace_id}"

    def of(self, name: str) -> httpx.AsyncClient:
        """A client of somebody with that name."""
        key = {"Authorization": f"Bearer {self.keys[name]}"}
        return httpx.AsyncClient(base_url=self.url, headers=key, timeout=20)

    async def watch(self, name: str, query: str = "role=control") -> ClientConnection:
        return await connect(
            f"{self.url.replace('http', 'ws')}{self.base}/vnc?{query}",
            additional_headers={"Authorization": f"Bearer {self.keys[name]}"},
            proxy=None,
        )

    async def all_events(self) -> list[dict[str, Any]]:  # Any: JSON values
        async with self.of("admin") as http:
            found = (await http.get(f"{self.base}/events", params={"limit": 1000})).json()
        return list(found["events"])

    async def events(self, kind: str) -> list[dict[str, Any]]:  # Any: JSON values
        return [event for event in await self.all_events() if event["kind"] == kind]


@pytest.fixture
async def site(app: FastAPI, cluster: LocalCluster) -> AsyncIterator[Site]:
    async with app.router.lifespan_context(app), listening(app) as port:
        url = f"http://127.0.0.1:{port}"
        keys = {"admin": KEY}
        async with httpx.AsyncClient(base_url=url, headers=BEARER) as http:
            await add_template(http, "fake")
            for name in NAMES:
                role = "operator" if name == "opal" else "user"
                answer = await http.post("/v1/keys", json={"name": name, "role": role})
                keys[name] = answer.json()["key"]
            bots = {"Authorization": f"Bearer {keys['bot']}"}
            answer = await http.post("/v1/workspaces", json={"template": "fake"}, headers=bots)
            made = answer.json()
        yield Site(port, str(made["id"]), keys)
