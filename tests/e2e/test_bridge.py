"""`carrel mcp` as an agent starts it: over stdio, with a controller that runs or one of its own."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from agent_bridge import tools
from tests.e2e import conftest
from tests.e2e.conftest import Service
from tests.leaks import Leftovers

pytestmark = pytest.mark.anyio


async def test_an_agent_works_over_stdio(service: Service) -> None:
    program = StdioServerParameters(
        command=conftest.carrel(), args=["mcp"], env=service.environment
    )
    async with Client(stdio_client(program)) as client:
        assert len((await client.list_tools()).tools) == len(tools.TOOLS)
        created = await client.call_tool("desktop_create", {})
        desktop = json.loads(created.content[0].model_dump()["text"])["desktop_id"]
        try:
            said = await client.call_tool(
                "shell_run", {"desktop_id": desktop, "command": "echo from inside"}
            )
            assert "from inside" in said.content[0].model_dump()["text"]
        finally:
            await client.call_tool("desktop_destroy", {"desktop_id": desktop})


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_a_controller_of_its_own_ends_with_it(
    tmp_path: Path, number: signal.Signals | None
) -> None:
    before = Leftovers.now()
    with (tmp_path / "notes").open("w") as notes:
        process = subprocess.Popen(
            [conftest.carrel(), "mcp"],
            env=conftest.environment(tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=notes,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, (tmp_path / "notes").read_text()
    assert json.loads(answer)["result"]["serverInfo"]
    if number is not None:
        process.send_signal(number)
        assert process.wait(conftest.STOP_SECONDS) == 128 + number
    process.communicate(timeout=conftest.STOP_SECONDS)
    before.assert_none_since(seconds=10)
