"""The main job in one go, over MCP, as any client would do it.

It asks for a desktop, writes a small web form and serves it inside, opens it in Chromium, fills it
in by mouse and keyboard, sends it, and reads back the file that the form's server wrote. Nothing
is assumed about where the browser puts things: the page itself notes where its fields are on the
screen, from a mouse event that went through the real display. The desktop is destroyed at the
end, whatever happened.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent
from pydantic import BaseModel

from workspace.client import Carrel
from workspace.errors import CarrelError, TimedOut

TEXT = "Grüße, 世界 🚀"
NOTE = "by keyboard"
FILLED = {"text": TEXT, "note": NOTE, "agree": "yes"}
FOLDER = "/home/user/demo"
PAGE = "http://127.0.0.1:8000/"
BROWSER = (
    "chromium --no-first-run --disable-background-networking --disable-component-update "
    f"--disable-sync {PAGE}"
)
STEP_SECONDS = 45.0
_LOOK_SECONDS = 0.2


class DemoResult(BaseModel):
    """What the demo did."""

    text: str
    sha256: str
    screenshots: list[str]
    desktop_id: str
    seconds: float


async def demo(url: str, key: str, out: Path, on_step: Callable[[str], None]) -> DemoResult:
    """Do the main job on the controller at ``url``; pictures are saved in the folder ``out``.

    Raises:
        Unavailable, Unauthorized: there is no controller, or it does not know the key.
        CarrelError: a step failed; the message names it and what the tool said.
    """
    async with Carrel(url, key) as carrel:
        await carrel.whoami()
    await anyio.Path(out).mkdir(parents=True, exist_ok=True)
    headers = {"Authorization": f"Bearer {key}"}
    result: DemoResult | CarrelError | None = None
    async with httpx2.AsyncClient(headers=headers, timeout=90, trust_env=False) as http:
        transport = streamable_http_client(f"{url.rstrip('/')}/mcp", http_client=http)
        async with Client(transport) as client:
            # Caught inside: what leaves this block comes out wrapped in the client's task groups.
            try:
                result = await _Demo(client, out, on_step).run()
            except CarrelError as error:
                result = error
            except MCPError as error:
                result = CarrelError(f"The MCP server refused: {error}")
    if isinstance(result, DemoResult):
        return result
    raise result or CarrelError("The connection to the MCP server broke.")


class _Demo:
    def __init__(self, client: Client, out: Path, on_step: Callable[[str], None]) -> None:
        self._client = client
        self._out = out
        self._on_step = on_step
        self._desktop: dict[str, str] = {}
        self._pictures: list[str] = []

    async def run(self) -> DemoResult:
        began = time.monotonic()
        self._on_step("requesting a desktop")
        created = await self._call("desktop_create", name="demo", ttl_seconds=600)
        told = json.loads(_text(created))
        self._desktop = {"desktop_id": told["desktop_id"]}
        try:
            with anyio.fail_after(3 * STEP_SECONDS):
                await self._until_ready(told["state"])
                text, digest = await self._work(told["screen"])
        except TimeoutError as error:
            raise TimedOut("The demo took too long and was given up.") from error
        finally:
            with anyio.move_on_after(20, shield=True):
                self._on_step("destroying the desktop")
                await self._call("desktop_destroy")
        return DemoResult(
            text=text,
            sha256=digest,
            screenshots=self._pictures,
            desktop_id=told["desktop_id"],
            seconds=round(time.monotonic() - began, 2),
        )

    async def _work(self, screen: list[int]) -> tuple[str, str]:
        self._on_step("serving a web form inside it")
        for name in ("form.html", "server.py"):
            content = (files("agent_bridge") / "demo_site" / name).read_text("utf-8")
            await self._call("file_write", path=f"{FOLDER}/{name}", content=content)
        await self._call("shell_run", command="python3 server.py", cwd=FOLDER, timeout_seconds=0)
        await self._until("serving", True, "the form's server did not start")

        self._on_step("opening it in Chromium")
        await self._call("shell_run", command=BROWSER, timeout_seconds=0)
        fields = await self._until_open(screen)
        await self._picture("form")

        self._on_step("filling it in")
        await self._call(
            "computer_batch",
            actions=[
                {"action": "click", **fields["text"]},
                {"action": "type", "text": TEXT},
                {"action": "key", "chord": "Tab"},
                {"action": "type", "text": NOTE},
                {"action": "click", **fields["agree"]},
            ],
        )
        await self._until("filled", FILLED, "the form was not filled in")
        await self._picture("filled")

        self._on_step("sending it")
        await self._call("computer", action="click", **fields["send"])
        await self._until("thanked", True, "the form was not sent")
        await self._picture("sent")

        self._on_step("reading back what its server wrote")
        sent = json.loads(await self._read("result.json"))
        text = await self._read("text")
        digest = _text(await self._call("shell_run", command="sha256sum < text", cwd=FOLDER))
        expected = hashlib.sha256(TEXT.encode()).hexdigest()
        if text != TEXT or expected not in digest:
            raise CarrelError(f"The form's server got {text!r}, not {TEXT!r}.")
        if sent != FILLED:
            raise CarrelError(f"The form's server got {sent!r}.")
        return text, expected

    async def _until_ready(self, state: str) -> None:
        while state == "starting":  # bounded by the caller
            await anyio.sleep(_LOOK_SECONDS)
            state = json.loads(_text(await self._call("desktop_get")))["state"]

    async def _until_open(self, screen: list[int]) -> dict[str, dict[str, int]]:
        """Where the page's fields are, once it is painted, feels the mouse and has come to rest."""
        deadline = time.monotonic() + STEP_SECONDS
        step = 0
        before: object = None
        while time.monotonic() < deadline:
            # In the middle of the screen, never twice at the same place: a move is an event.
            step += 1
            x, y = screen[0] // 2 + step % 40, screen[1] // 2
            await self._call("computer", action="move", x=x, y=y, screenshot="none")
            read = await self._try("file_read", path=f"{FOLDER}/fields.json")
            if not read.is_error:
                fields: dict[str, dict[str, int]] = json.loads(_text(read))
                if fields == before:
                    return fields
                before = fields
            await anyio.sleep(_LOOK_SECONDS)
        await self._picture("failed")
        raise TimedOut(
            f"The page did not open in {STEP_SECONDS:g} s.", hint=f"See {self._pictures[-1]}."
        )

    async def _until(self, name: str, expected: object, failure: str) -> None:
        """Wait until the page or its server has told this."""
        deadline = time.monotonic() + STEP_SECONDS
        told: object = None
        while told != expected:
            if time.monotonic() > deadline:
                await self._picture("failed")
                raise TimedOut(
                    f"In {STEP_SECONDS:g} s {failure}.", hint=f"See {self._pictures[-1]}."
                )
            await anyio.sleep(_LOOK_SECONDS)
            read = await self._try("file_read", path=f"{FOLDER}/{name}.json")
            told = None if read.is_error else json.loads(_text(read))

    async def _read(self, name: str) -> str:
        return _text(await self._call("file_read", path=f"{FOLDER}/{name}"))

    async def _picture(self, name: str) -> None:
        self._save(await self._call("screenshot"), name)

    def _save(self, result: CallToolResult, name: str) -> None:
        for item in result.content:
            if isinstance(item, ImageContent):
                path = self._out / f"{len(self._pictures) + 1}-{name}.jpg"
                path.write_bytes(base64.b64decode(item.data))
                self._pictures.append(str(path))

    async def _call(self, tool: str, **arguments: Any) -> CallToolResult:  # Any: JSON values
        result = await self._try(tool, **arguments)
        if result.is_error:
            raise CarrelError(f"{tool} failed: {_text(result)}")
        return result

    async def _try(self, tool: str, **arguments: Any) -> CallToolResult:  # Any: JSON values
        return await self._client.call_tool(tool, {**self._desktop, **arguments})


def _text(result: CallToolResult) -> str:
    return "".join(item.text for item in result.content[:1] if isinstance(item, TextContent))
