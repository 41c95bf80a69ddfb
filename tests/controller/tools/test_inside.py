"""Tool servers inside of desktops: real ones, installed beforehand, in a real sandbox, offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI

from controller.settings import Settings
from tests.agent_bridge.conftest import text_of
from tests.controller.conftest import LocalCluster, bearer, claim, new_key, serving
from tests.controller.tools.test_remote import carrel_of, made, model, offered
from tests.packages import npm_registry, wheel, wheels_of
from tests.waiting import eventually
from workspace.backends import runtime
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.errors import ToolsDown, ToolsNotFound

pytestmark = pytest.mark.anyio
PYTHON = """
import os, sys
from mcp.server.mcpserver import MCPServer

server = MCPServer("inside")

@server.tool()
def add(a: int, b: int) -> str:
    "The sum."
    return str(a + b)

@server.tool()
def where() -> str:
    return f"{os.getuid()} {os.getcwd()} {os.environ['GREETING']} {sys.argv[1:]}"

@server.tool()
def spoil() -> str:
    try:
        open("/opt/carrel/tools/bin/evil", "w")
    except OSError as error:
        return str(error)
    return "done"

@server.tool()
def die() -> str:
    print("I must go", file=sys.stderr, flush=True)
    os._exit(7)

def main():
    server.run("stdio")
"""
NODE = """#!/usr/bin/env node
const lines = require("readline").createInterface({ input: process.stdin });
const say = (id, result) => console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
console.log("this line is no message");
lines.on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  if (method === "initialize")
    say(id, { protocolVersion: "2025-06-18", capabilities: { tools: {} },
              serverInfo: { name: "node", version: "1" } });
  else if (method === "tools/list")
    say(id, { tools: [{ name: "upper", inputSchema: { type: "object" } }] });
  else if (method === "tools/call")
    say(id, { content: [{ type: "text", text: params.arguments.text.toUpperCase() }] });
  else console.log(JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32601, message: "no" } }));
});
"""
TEMPLATE = {
    "name": "helped",
    "session": "openbox",
    "memory_mib": 1024,
    "tools": {
        "py": {
            "command": ["inside-tools", "--x"],
            "package": "pip:carrel-inside-tools==1.0",
            "environment": {"GREETING": "hi"},
        },
        "js": {"command": ["node-tools"], "package": "npm:@carrel/node-tools@1.0.0"},
        "gone": {"command": ["no-such-program"]},
    },
}


class Site(NamedTuple):
    app: FastAPI
    http: httpx.AsyncClient
    tool_dir: Path


@pytest.fixture(scope="module")
def places() -> Iterator[Path]:
    """As root, what a desktop is to see lies where other users can pass."""
    folder = Path(tempfile.mkdtemp(prefix="carrel-tools-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def site(settings: Settings, short_dir: Path, places: Path) -> AsyncIterator[Site]:
    runtime_dir = runtime.default_dir()
    runtime.build(runtime_dir)
    settings = settings.model_copy(update={"tool_dir": places / "tools", "tool_probe_seconds": 0.5})
    cluster = LocalCluster(short_dir)
    homes = places / "homes"
    cluster.backend = BubblewrapBackend(short_dir, homes, runtime_dir, tool_dir=settings.tools)  # type: ignore[assignment]
    app = made(settings, cluster)
    async with serving(app) as http:
        answer = await http.post("/v1/templates", json=TEMPLATE)
        assert answer.status_code == 201, answer.text
        yield Site(app, http, settings.tools)


def cached(settings: Settings, tool_dir: Path, folder: Path) -> list[dict[str, object]]:
    """What `carrel tools cache` says of a template, where only these packages are to be had."""
    wheels_of(folder, "mcp")
    files = {"inside_tools.py": PYTHON}
    command = "inside-tools = inside_tools:main"
    wheel(folder, "carrel-inside-tools", files, requires="mcp", command=command)
    about = {"name": "@carrel/node-tools", "version": "1.0.0", "bin": {"node-tools": "./run.js"}}
    about |= {"scripts": {"postinstall": "touch /tmp/carrel-was-here"}}
    packed = {"package.json": json.dumps(about), "run.js": NODE}
    with npm_registry("@carrel/node-tools", packed) as registry:
        environment = os.environ | {
            "CARREL_HOME": str(settings.home),
            "CARREL_TOOL_DIR": str(tool_dir),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(folder),
            "npm_config_registry": registry,
            "npm_config_cache": str(folder / "npm"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "controller.cli", "tools", "cache", "helped", "--json"],
            env=environment, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not Path("/tmp/carrel-was-here").exists()
    assert {path.name for path in tool_dir.iterdir()} == {"bin", "npm", "pip"}
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


async def test_the_tools_of_a_desktop(site: Site, settings: Settings, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    assert cached(settings, site.tool_dir, wheels) == [
        {"package": "pip:carrel-inside-tools==1.0", "commands": ["inside-tools"]},
        {"package": "npm:@carrel/node-tools@1.0.0", "commands": ["node-tools"]},
    ]

    stranger = await new_key(site.http, "stranger", tenant="other")
    async with carrel_of(site.app) as carrel, model(site.app) as mcp:
        assert await offered(mcp) == {}  # there is no desktop yet
        desktop = str((await claim(site.http, template="helped"))["id"])
        assert [(it.name, it.state) for it in await carrel.tools_of(desktop)] == [
            ("gone", "new"), ("js", "new"), ("py", "new"),
        ]  # fmt: skip
        await carrel.start_tools(desktop, "py")
        tools = await offered(mcp)
        assert set(tools) == {"py__add", "py__where", "py__spoil", "py__die", "js__upper"}
        assert tools["py__add"].input_schema["required"] == ["desktop_id", "a", "b"]
        gone = await carrel.tool_server("gone")
        assert (gone.kind, gone.template, gone.state) == ("template", "helped", "down")
        assert "no-such-program" in gone.reason

        async def said(tool: str, **arguments: object) -> str:
            return text_of(await mcp.call_tool(tool, {"desktop_id": desktop, **arguments}))

        assert (await said("py__add", a=2, b=3)).endswith("\n5")
        assert (await said("py__where")).endswith("\n1000 /home/user hi ['--x']")
        assert "Read-only file system" in await said("py__spoil")
        assert (await said("js__upper", text="hello")).endswith("\nHELLO")
        for tool, arguments, code in (
            ("py__add", {"a": 2}, "invalid_request: desktop_id"),
            ("py__add", {"desktop_id": desktop, "a": 2}, "invalid_request: 'b' is a required"),
            ("py__add", {"desktop_id": "abcdefghjk", "a": 2, "b": 3}, "workspace_not_found: "),
            ("gone__x", {"desktop_id": desktop}, "tools_down: "),
        ):
            assert text_of(await mcp.call_tool(tool, arguments)).startswith(code)
        with pytest.raises(ToolsNotFound):
            await carrel.call_tool("none", "x", workspace_id=desktop)

        async with carrel_of(site.app, stranger["key"]) as other:
            assert all(it.listed == [] for it in await other.tools(listed=True))
        foreign = await site.http.post(
            f"/v1/workspaces/{desktop}/tools/py/calls",
            json={"tool": "add", "arguments": {"a": 1, "b": 1}},
            headers=bearer(stranger["key"]),
        )
        assert foreign.json()["code"] == "workspace_not_found"

        assert (await said("py__die")).startswith("tools_down: ")

        async def is_down() -> bool:
            return (await carrel.tool_server("py")).state == "down"

        await eventually(is_down)
        assert "I must go" in (await carrel.tool_server("py")).reason
        assert not any(name.startswith("py__") for name in await offered(mcp))

        async def is_back() -> bool:
            try:
                await carrel.call_tool("py", "add", {"a": 1, "b": 1}, workspace_id=desktop)
            except ToolsDown:
                return False
            return True

        await eventually(is_back)
        assert "py__add" in await offered(mcp)
        events = (await site.http.get(f"/v1/workspaces/{desktop}/events?limit=500")).json()
        assert {"tool_call", "tools_started"} <= {it["kind"] for it in events["events"]}
        assert (await site.http.delete(f"/v1/workspaces/{desktop}")).status_code == 204
        assert text_of(await mcp.call_tool("py__add", {"desktop_id": desktop, "a": 1, "b": 1}))
