"""MCP servers for tests, each at a path of its own: a good one by the library, and hostile ones.

``python -m tests.tool_server PORT`` serves ``/good``, ``/some`` (200 tools), ``/many`` (10,000),
``/bad`` (schemas that are none), ``/endless`` (an answer that never ends), ``/hang``,
``/elsewhere`` (a redirect), ``/closed`` (401) and ``/page`` (no MCP at all). :func:`running` is
that as a process.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route

from tests.waiting import until

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NESTED: dict[str, Any] = {"type": "object"}
for _ in range(40):
    NESTED = {"type": "object", "properties": {"a": NESTED}}
# Twenty levels of two alternatives each: a million steps for who judges by it.
DOUBLING: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/d0"}},
    "$defs": {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
        for n in range(20)
    }
    | {"d20": {"type": "integer"}},
}
GOOD = [
    Tool(name="echo", description="Say it again.", input_schema=TEXT),
    Tool(name="header", description="What was sent as X-Secret.", input_schema=TEXT),
    Tool(name="sleep", description="Answer in an hour.", input_schema={"type": "object"}),
    Tool(name="large", description="Answer 5 MiB.", input_schema={"type": "object"}),
    Tool(name="fail", description="Fail.", input_schema={"type": "object"}),
]
BAD = [
    Tool(name="good", input_schema={"type": "object"}, description="\x1b[31m" + "x" * 5000),
    Tool(
        name="none",
        input_schema={"type": "object", "properties": {"a": {"type": "nonsense"}}},
    ),
    Tool(name="far", input_schema={"type": "object", "$ref": "http://127.0.0.1:9/x"}),
    Tool(name="deep", input_schema=NESTED),
    Tool(name="big", input_schema={"type": "object", "description": "x" * 20_000}),
    Tool(name="a b", input_schema={"type": "object"}),
    Tool(name="x" * 61, input_schema={"type": "object"}),
    Tool(name="good", input_schema={"type": "object"}),
    Tool(
        name="slow",
        input_schema={
            "type": "object",
            "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}},
        },
    ),
    Tool(name="doubling", input_schema=DOUBLING),
]
MANY = [Tool(name=f"t{n}", input_schema={"type": "object"}) for n in range(10_000)]


def server(tools: list[Tool]) -> Server[Any]:
    async def listed(_: Any, __: Any) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def called(context: Any, params: Any) -> CallToolResult:
        match params.name:
            case "sleep":
                await asyncio.sleep(3600)
            case "large":
                text = "x" * (5 << 20)
            case "header":
                text = context.request.headers.get("x-secret", "none")
            case "fail":
                said = TextContent(type="text", text="It failed.")
                return CallToolResult(content=[said], is_error=True)
            case _:
                text = json.dumps(params.arguments)
        return CallToolResult(content=[TextContent(type="text", text=text)])

    return Server("for tests", on_list_tools=listed, on_call_tool=called)


LISTED = json.dumps([tool.model_dump(mode="json", by_alias=True) for tool in MANY])


async def many(request: Request) -> Response:
    """Made by hand: to make ten thousand again and again takes too long."""
    asked = await request.json()
    if "id" not in asked:
        return Response(status_code=202)
    match asked["method"]:
        case "initialize":
            about = {"name": "many", "version": "1"}
            result = json.dumps(
                {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {}},
                    "serverInfo": about,
                }
            )
        case "tools/list":
            result = f'{{"tools": {LISTED}}}'
        case _:
            error = {"code": -32601, "message": "no such method"}
            return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": error})
    body = f'{{"jsonrpc": "2.0", "id": {json.dumps(asked["id"])}, "result": {result}}}'
    return Response(body, media_type="application/json")


async def endless(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc": "2.0", "id": 1, "result": {"x": "'
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)  # or it would never see that nobody reads

    return StreamingResponse(pieces(), media_type="application/json")


async def hang(_: Request) -> Response:
    await asyncio.sleep(3600)
    return Response()


async def elsewhere(_: Request) -> Response:
    return RedirectResponse("http://127.0.0.1:9/good", status_code=307)


async def closed(_: Request) -> Response:
    return PlainTextResponse("no", status_code=401)


async def page(_: Request) -> Response:
    return PlainTextResponse("<h1>Hello</h1>", media_type="text/html")


def app() -> Starlette:
    parts = {"good": server(GOOD), "bad": server(BAD), "some": server(MANY[:200])}
    # Answers of any size; sessions, as most servers have them.
    apps = {name: part.streamable_http_app(json_response=True) for name, part in parts.items()}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in parts.values():
                await stack.enter_async_context(part.session_manager.run())
            yield

    routes: list[Route | Mount] = [Mount(f"/{name}", each) for name, each in apps.items()]
    for handler in (many, endless, hang, elsewhere, closed, page):
        routes.append(Route(f"/{handler.__name__}", handler, methods=["GET", "POST", "DELETE"]))
    return Starlette(routes=routes, lifespan=lifespan)


class Running:
    """The process."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.start()

    def url(self, name: str) -> str:
        path = "/mcp" if name in ("good", "bad", "some") else ""
        return f"http://127.0.0.1:{self.port}/{name}{path}"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.tool_server", str(self.port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as each:
            return each.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def running() -> Iterator[Running]:
    process = Running()
    try:
        yield process
    finally:
        process.kill()


if __name__ == "__main__":
    uvicorn.run(app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
