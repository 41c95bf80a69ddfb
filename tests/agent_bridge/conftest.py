"""A bridge over a controller in memory, in process and over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent

from agent_bridge.caller import Caller
from agent_bridge.server import Bridge, make_server
from tests.agent_bridge.fake import KEY, FakeController
from tests.serving import listening
from workspace.client import Carrel

URL = "http://127.0.0.1:8700"


def carrel_for(controller: FakeController, key: str) -> Carrel:
    return Carrel(URL, key, transport=httpx.ASGITransport(app=controller.app))


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
async def client(controller: FakeController) -> AsyncIterator[Client]:
    """A client in process, without HTTP or a key to check."""
    async with carrel_for(controller, KEY) as carrel:
        caller = Caller(carrel, public_url=URL)
        async with Client(make_server(lambda: caller)) as client:
            yield client


@asynccontextmanager
async def serving(controller: FakeController, port: int = 0) -> AsyncIterator[int]:
    """The bridge's app over real HTTP on loopback; yields its port."""
    bridge = Bridge(
        lambda key: carrel_for(controller, key),
        public_url=URL,
        allowed_hosts=["127.0.0.1:*"],
        allowed_origins=["http://127.0.0.1:*"],
    )
    async with bridge.run(), listening(bridge.app, port) as port:
        yield port


@asynccontextmanager
async def connected(port: int, *, mode: str = "auto", key: str = KEY) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


def text_of(result: CallToolResult) -> str:
    return "\n".join(item.text for item in result.content if isinstance(item, TextContent))


def pictures_of(result: CallToolResult) -> Sequence[ImageContent]:
    return [item for item in result.content if isinstance(item, ImageContent)]
