"""The main job, as its users do it: an MCP client gets a desktop and works in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from agent_bridge.tools import TOOLS
from tests.e2e.conftest import Service, environment

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
NODE_BIN = Path(sys.executable).parent
SYSTEM_NPMRC = Path("/etc/npmrc")


def test_the_demo_does_the_main_job_over_mcp(service: Service, tmp_path: Path) -> None:
    done = service.carrel("demo", "--json", "--out", str(tmp_path), timeout=150)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["text"] == "Grüße, 世界 🚀"
    assert result["screenshots"], result
    for path in result["screenshots"]:
        with Image.open(path) as picture:
            assert picture.size == (1280, 800)
    assert json.loads(service.carrel("ls", "--json").stdout) == []


@pytest.fixture(scope="session")
def inspector(pytestconfig: pytest.Config) -> list[str]:
    """The MCP inspector's command line from npm, by the Node that the dev extra brings."""
    prefix = pytestconfig.rootpath / ".cache" / "inspector"
    program = prefix / "node_modules" / ".bin" / "mcp-inspector"
    if not program.exists():
        npm = [str(NODE_BIN / "npm"), "install", "--no-audit", "--no-fund", "--fetch-retries=1"]
        npm += ["--fetch-timeout=60000", "--prefix", str(prefix)]
        if SYSTEM_NPMRC.exists():  # what Debian's own npm would read
            npm += ["--globalconfig", str(SYSTEM_NPMRC)]
        installed = subprocess.run(
            [*npm, INSPECTOR],
            env=os.environ | {"PATH": f"{NODE_BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        if installed.returncode != 0:
            pytest.skip(f"npm could not install the MCP inspector: {installed.stderr[-300:]}")
    return [str(NODE_BIN / "node"), str(program.resolve())]


def call(inspector: list[str], service: Service, home: Path, *arguments: str) -> dict[str, object]:
    """One inspector call; its JSON answer."""
    done = subprocess.run(
        [
            *inspector,
            "--cli",
            f"{service.url}/mcp",
            "--header",
            f"Authorization: Bearer {service.key}",
            *arguments,
        ],
        env=environment(home) | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_the_mcp_inspector_can_request_and_use_a_desktop(
    inspector: list[str], service: Service, tmp_path: Path
) -> None:
    tools = call(inspector, service, tmp_path, "--method", "tools/list", "--strict")["tools"]
    assert isinstance(tools, list)
    assert len(tools) == len(TOOLS)

    def tool(name: str, *arguments: str) -> str:
        flags = [word for argument in arguments for word in ("--tool-arg", argument)]
        answer = call(
            inspector, service, tmp_path, "--method", "tools/call", "--tool-name", name, *flags
        )
        assert not answer.get("isError"), answer
        return json.dumps(answer)

    tool("desktop_create")
    (desktop,) = json.loads(service.carrel("ls", "--json").stdout)
    id_ = f"desktop_id={desktop['id']}"
    assert "hello from inside" in tool("shell_run", id_, "command=echo hello from inside")
    assert '"image"' in tool("computer", id_, "action=click", "x=640", "y=400")
    tool("desktop_destroy", id_)
    assert json.loads(service.carrel("ls", "--json").stdout) == []
