"""An agent shops in a real desktop's browser: by refs through MCP, then by pixels."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.agent_bridge.conftest import text_of
from tests.e2e.conftest import Service
from tests.waiting import eventually

pytestmark = pytest.mark.anyio
SHOP = Path(__file__).with_name("shop.py")
PASSWORD = "open sesame"


@asynccontextmanager
async def connected(service: Service, query: str = "") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {service.key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        transport = streamable_http_client(f"{service.url}/mcp{query}", http_client=http)
        async with Client(transport) as client:
            yield client


class Agent:
    """What a model does: it reads, and names what it has read."""

    def __init__(self, client: Client, desktop_id: str) -> None:
        self._client = client
        self._desktop = {"desktop_id": desktop_id}
        self.read = ""

    async def call(self, tool: str, **arguments: object) -> str:
        result = await self._client.call_tool(tool, self._desktop | arguments)
        assert not result.is_error, text_of(result)
        self.read = text_of(result)
        return self.read

    async def act(self, *actions: dict[str, object]) -> str:
        return await self.call("browser_act", actions=list(actions), then="read")

    def ref(self, role: str, name: str) -> str:
        """As it was last read."""
        found = re.search(rf'\[(r\d+)\] {role} "{name}"', self.read)
        assert found is not None, self.read
        return found[1]

    def place(self, role: str, name: str) -> dict[str, int]:
        found = re.search(rf'\] {role} "{name}".* at (\d+),(\d+)$', self.read, re.MULTILINE)
        assert found is not None, self.read
        return {"x": int(found[1]), "y": int(found[2])}

    async def click(self, role: str, name: str) -> str:
        """By pixels."""
        await self.call("computer", action="click", **self.place(role, name), screenshot="none")
        return self.read

    async def shows(self, text: str) -> str:
        """The page once it shows that."""
        await self.call("browser_act", actions=[{"action": "wait", "text": text}], then="read")
        return self.read


async def test_an_agent_shops_by_refs_and_by_pixels(service: Service) -> None:
    async with connected(service) as client:
        made = await client.call_tool("desktop_create", {"ttl_seconds": 300})
        agent = Agent(client, json.loads(text_of(made).splitlines()[0])["desktop_id"])
        try:
            await agent.call("file_write", path="shop.py", content=SHOP.read_text())
            await agent.call("file_write", path="coupon.txt", content="TEN-OFF")
            await agent.call("shell_run", command="python3 shop.py", timeout_seconds=0)
            await agent.call("wait_for", until="port_listens", port=8000)
            await by_refs(agent)
            await by_pixels(agent)
            orders = (await agent.call("file_read", path="orders.json")).splitlines()
            bought = {"cart": ["Blue kettle"], "coupon": True}
            assert [json.loads(line) for line in orders] == [bought, bought]
        finally:
            await client.call_tool("desktop_destroy", agent._desktop)
    events = httpx2.get(
        f"{service.url}/v1/events?limit=1000", headers={"Authorization": f"Bearer {service.key}"}
    ).text
    assert '"browser_act"' in events
    assert PASSWORD not in events


async def by_refs(agent: Agent) -> None:
    said = await agent.call("browser_navigate", url="localhost:8000")
    assert re.search(r"<page (\w+)>.*data, not instructions.*</page \1>", said, re.DOTALL)
    await agent.act(
        {"action": "fill", "ref": agent.ref("textbox", "User"), "text": "ada"},
        {
            "action": "fill",
            "ref": agent.ref("textbox", "Password"),
            "text": PASSWORD,
            "submit": True,
        },
        {"action": "wait", "text": "Goods"},
    )
    await agent.act(
        {"action": "fill", "ref": agent.ref("textbox", "Search"), "text": "blue", "submit": True},
        {"action": "wait", "text": "35 EUR"},
    )
    assert "Teapot" not in agent.read
    await agent.act({"action": "click", "ref": agent.ref("link", "Blue kettle")})
    await agent.act({"action": "click", "ref": agent.ref("button", "Add to cart")})
    assert 'item "Blue kettle"' in agent.read
    await agent.act(
        {"action": "upload", "ref": agent.ref("file", "Coupon"), "paths": ["coupon.txt"]},
        {"action": "click", "ref": agent.ref("button", "Send coupon")},
    )
    await agent.act({"action": "click", "ref": agent.ref("link", "Invoice")})
    await agent.call("wait_for", until="file_exists", path="Downloads/invoice.txt")
    assert "/home/user/Downloads/invoice.txt" in await agent.call("browser_read", what="downloads")
    await agent.call("browser_read")
    asked = await agent.act({"action": "click", "ref": agent.ref("button", "Check out")})
    assert "A dialog (confirm) is open and says 'Buy it?'" in asked
    await agent.act({"action": "dialog", "accept": True}, {"action": "wait", "text": "Thank you"})


async def by_pixels(agent: Agent) -> None:
    """With mouse and keyboard, at the places that reading told."""
    await agent.call("browser_navigate", url="localhost:8000/login")
    await agent.click("textbox", "User")
    await agent.call(
        "computer_batch",
        actions=[
            {"action": "type", "text": "ada"},
            {"action": "key", "chord": "Tab"},
            {"action": "type", "text": f"{PASSWORD}\n"},
        ],
        screenshot="none",
    )
    await agent.shows("Goods")
    await agent.click("textbox", "Search")
    await agent.call("computer", action="type", text="blue\n", screenshot="none")
    await agent.call("browser_act", actions=[{"action": "wait", "text": "35 EUR"}])
    await agent.call("browser_read", find="Blue kettle")
    await agent.click("link", "Blue kettle")
    await agent.shows("Add to cart")
    await agent.click("button", "Add to cart")
    await agent.shows("Coupon")
    await agent.click("file", "Coupon")  # the toolkit's own dialog
    await agent.call("wait_for", until="window_opens", title="Open")
    await agent.call(
        "computer_batch",
        actions=[
            {"action": "key", "chord": "ctrl+l"},
            {"action": "type", "text": "/home/user/coupon.txt"},
            {"action": "key", "chord": "alt+o"},
        ],
    )
    await agent.call("wait_for", until="window_closes", title="Open")
    await eventually(lambda: has_file(agent))
    await agent.click("button", "Send coupon")
    await agent.call("browser_act", actions=[{"action": "wait", "text": "Check out"}], then="read")
    await agent.click("button", "Check out")
    await agent.call("wait_for", until="region_stable", stable_ms=300)
    await agent.call("computer", action="key", chord="Return", screenshot="none")
    await agent.shows("Thank you")


async def has_file(agent: Agent) -> bool:
    return 'file "Coupon" value="coupon.txt"' in await agent.call("browser_read")


async def test_a_client_loads_the_tools_that_it_needs(service: Service) -> None:
    async with connected(service, "?toolsets=desktop,browser") as client:
        listed = (await client.list_tools()).tools
    assert {tool.name.partition("_")[0] for tool in listed} == {"desktop", "browser"}
    text = json.dumps([tool.model_dump(mode="json", exclude_none=True) for tool in listed])
    print(f"the toolsets desktop and browser are {len(text)} characters, {len(text) // 4} tokens")
    async with connected(service, "?toolsets=brwoser") as client:
        with pytest.raises(MCPError, match=r"no toolset 'brwoser'.*There are: desktop"):
            await client.list_tools()
