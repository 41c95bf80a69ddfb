"""The tools for windows, the clipboard and waiting, by an agent on a real desktop."""

from __future__ import annotations

import json

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import CallToolResult

from tests.agent_bridge.conftest import text_of
from tests.e2e import conftest
from tests.e2e.conftest import Service

pytestmark = pytest.mark.anyio


async def test_an_agent_writes_a_note_without_looking(service: Service) -> None:
    program = StdioServerParameters(
        command=conftest.carrel(), args=["mcp"], env=service.environment
    )
    async with Client(stdio_client(program)) as client:
        created = await client.call_tool("desktop_create", {})
        desktop = {"desktop_id": json.loads(text_of(created).splitlines()[0])["desktop_id"]}

        async def call(tool: str, **arguments: object) -> CallToolResult:
            return await client.call_tool(tool, desktop | arguments)

        async def said(tool: str, **arguments: object) -> str:
            result = await call(tool, **arguments)
            assert not result.is_error, text_of(result)
            return text_of(result)

        try:
            assert "org.xfce.mousepad: " in await said("launch")
            opened = await said("launch", name="mousepad", arguments=["note.txt"])
            job = opened.removeprefix("Started as job ").partition(".")[0]
            window = opened.partition("Its window: ")[2].partition(" ")[0]
            assert "focused" in await said("windows", action="focus", window=window)
            await said("clipboard", text="Grüße, 世界 🚀")
            await said("computer", action="key", chord="ctrl+v", screenshot="none")
            shown = await said("wait_for", until="text_appears", text="世界 🚀")
            assert "Where: " in shown
            await said("computer", action="key", chord="ctrl+s", screenshot="none")
            written = await said("wait_for", until="file_exists", path="note.txt", stable_ms=100)
            assert "/home/user/note.txt" in written
            assert "Grüße, 世界 🚀" in await said("file_read", path="note.txt")
            late = await call("wait_for", until="window_closes", title="note.txt", seconds=0.1)
            assert late.is_error
            assert "note.txt" in text_of(late)
            await said("windows", action="close", window=window)
            await said("wait_for", until="window_closes", title="note.txt")
            assert "exit code is 0" in await said("wait_for", until="process_ends", job_id=job)
            assert await said("windows") == "No window is open."
        finally:
            await call("desktop_destroy")
