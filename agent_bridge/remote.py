"""The client of other MCP servers: over streamable HTTP, and over lines of a process.

Of both eras of the protocol. A server may be anybody's: of each answer only so many bytes are read,
it can redirect to no other place, ask nothing of this side, and send nothing that it was not asked
for. What it answers is parsed by the library's models and handed on as plain JSON. All that goes
wrong is ToolsDown, but for an error that a tool itself answers.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import cache
from typing import NamedTuple

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mcp.types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    PaginatedRequestParams,
    TextContent,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from workspace.errors import CarrelError, ToolsDown
from workspace.tools import CALL_SECONDS, Json, ToolAnswer

MAX_ANSWER_BYTES = 4 << 20
MAX_LISTING_BYTES = 512 << 10  # of all else: to parse it takes longer than to parse a picture
MAX_PAGES = 8  # of a listing
MAX_LISTED = 1000
MAX_NONSENSE = 1000  # lines of a process that are no messages
STEP_SECONDS = 8.0  # that a server has for each step of connecting
CONNECT_SECONDS = 5.0
FAREWELL_SECONDS = 2.0
_MAX_MESSAGE = 300
TransportStreams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]
# What a server does wrong is told once, by who asked it; not a line of the log for each answer.
for _name in ("mcp.client.streamable_http", "mcp.shared.jsonrpc_dispatcher"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
_OF_A_TOOL = {"name", "description", "input_schema"}
# What says that it was not the tool that answered.
_BROKEN = frozenset({CONNECTION_CLOSED, REQUEST_TIMEOUT})
_SESSION_LOST = "Session terminated"  # by the library, of a server that has begun anew


class Listed(NamedTuple):
    """The tools of a server, as it tells of them."""

    tools: list[Json]
    is_whole: bool


class Server:
    """A server that is connected."""

    def __init__(self, client: Client, trouble: Callable[[], str] = lambda: "") -> None:
        self._client = client
        self._trouble = trouble  # what is known beside of why something failed
        self.calls = 0  # that it has not answered

    async def tools(self) -> Listed:
        """
        Raises:
            ToolsDown: it does not answer, or not as a tool server does.
        """
        found: list[Json] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            asked = PaginatedRequestParams(cursor=cursor)
            with _refusing(), _said(self._trouble):
                page = await self._client.session.list_tools(params=asked)
            found += [
                tool.model_dump(mode="json", by_alias=True, include=_OF_A_TOOL)
                for tool in page.tools[:MAX_LISTED]
            ]
            cursor = page.next_cursor
            if cursor is None or len(found) > MAX_LISTED:
                break
        return Listed(found[:MAX_LISTED], cursor is None and len(found) <= MAX_LISTED)

    async def call(self, tool: str, arguments: Json) -> ToolAnswer:
        """What it answers; its own errors too are answers.

        Raises:
            ToolsDown: it broke off, or does not answer as a tool server does.
        """
        asked = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        self.calls += 1
        try:
            # Not the client's own call: that would judge the answer by the server's own schema.
            with _said(self._trouble):
                result = await self._client.session.send_request(
                    asked, CallToolResult, request_read_timeout_seconds=CALL_SECONDS + 1
                )
        except _Answered as error:
            said = TextContent(type="text", text=str(error)[:_MAX_MESSAGE])
            result = CallToolResult(content=[said], is_error=True)
        finally:
            self.calls -= 1
        return ToolAnswer(is_error=bool(result.is_error), content=_content(result))


class _Answered(Exception):
    """The server answered with an error of its own."""


@asynccontextmanager
async def over_http(url: str, headers: Mapping[str, str]) -> AsyncIterator[Server]:
    """A server over streamable HTTP, for as long as the block runs.

    Raises:
        ToolsDown: it cannot be reached, or is no tool server.
    """
    wire = _Bounded()
    limits = httpx2.Timeout(CALL_SECONDS + 2, connect=CONNECT_SECONDS)
    # No proxy of the environment: an address is reached as it stands, with the limits of `wire`.
    http = httpx2.AsyncClient(
        headers=dict(headers), transport=wire, timeout=limits, trust_env=False
    )
    async with http:
        transport = streamable_http_client(
            url, http_client=http, max_sse_event_size=MAX_ANSWER_BYTES
        )
        with _refusing(), _said(lambda: wire.trouble):
            async with _client(transport) as client:
                yield Server(client, lambda: wire.trouble)


@asynccontextmanager
async def over_lines(
    receive: Callable[[], Awaitable[str | None]], send: Callable[[str], Awaitable[None]]
) -> AsyncIterator[Server]:
    """A server that takes and sends a line for each message; ``receive`` gives None at its end.

    Raises:
        ToolsDown: it is none, or has ended.
    """
    with _refusing(), _said():
        server: Server | None = None

        def limit() -> int:
            is_called = server is not None and server.calls
            return MAX_ANSWER_BYTES if is_called else MAX_LISTING_BYTES

        async with _client(_lines(receive, send, limit)) as client:
            server = Server(client)
            yield server


def _client(transport: AbstractAsyncContextManager[TransportStreams]) -> Client:
    return Client(transport, read_timeout_seconds=STEP_SECONDS, cache=None)


@cache
def _certificates() -> ssl.SSLContext:
    """Those of the system: read once, for it takes a while."""
    return ssl.create_default_context()


class _Bounded(httpx2.AsyncBaseTransport):
    """Carries requests whose answers are read to a limit; there is nothing else to be told."""

    def __init__(self) -> None:
        self._wire = httpx2.AsyncHTTPTransport(verify=_certificates(), trust_env=False)
        self.trouble = ""  # of the last answer

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":  # a stream of what was not asked for
            return httpx2.Response(405, request=request)
        request.headers["Accept-Encoding"] = "identity"
        if request.method == "DELETE":
            with anyio.fail_after(FAREWELL_SECONDS):
                return await self._carried(request)
        return await self._carried(request)

    async def _carried(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await self._wire.handle_async_request(request)
        except httpx2.TransportError as error:
            self.trouble = f"{type(error).__name__}: {error}"
            raise
        self.trouble = f"it answers HTTP {response.status_code}" if response.is_error else ""
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            self.trouble = "it answers compressed, unasked"
            raise httpx2.DecodingError(self.trouble, request=request)
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        is_call = b'"tools/call"' in request.content
        response.stream = _Limited(stream, self, MAX_ANSWER_BYTES if is_call else MAX_LISTING_BYTES)
        return response


class _Limited(httpx2.AsyncByteStream):
    """The bytes of one answer, so many and no more."""

    def __init__(self, stream: httpx2.AsyncByteStream, wire: _Bounded, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._wire = wire

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                self._wire.trouble = f"its answer has more than {self._limit >> 10} KiB"
                raise httpx2.ReadError(self._wire.trouble)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def _lines(
    receive: Callable[[], Awaitable[str | None]],
    send: Callable[[str], Awaitable[None]],
    limit: Callable[[], int],
) -> AsyncIterator[TransportStreams]:
    incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)

    async def reading() -> None:
        nonsense = 0
        async with incoming:
            while (line := await receive()) is not None and nonsense < MAX_NONSENSE:
                if len(line) > limit():
                    return
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    nonsense += 1  # many programs write what is no message to where messages go
                    continue
                await incoming.send(SessionMessage(message))

    async def writing() -> None:
        async with outgoing:
            async for each in outgoing:
                await send(each.message.model_dump_json(by_alias=True, exclude_unset=True))

    async with incoming, read, write, outgoing, anyio.create_task_group() as tasks:
        tasks.start_soon(reading)
        tasks.start_soon(writing)
        try:
            yield read, write
        finally:
            tasks.cancel_scope.cancel()


@contextmanager
def _said(trouble: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Have what goes wrong be of our errors; ``trouble`` is what is known beside of why."""
    try:
        yield
    except Exception as error:
        raise _as_ours(_leaf(error), trouble()) from error


@contextmanager
def _refusing() -> Iterator[None]:
    """Have a server that answers with an error be down: nobody has asked a tool yet."""
    try:
        yield
    except _Answered as error:
        raise ToolsDown(f"It is no tool server: {error}.") from error


def _as_ours(error: BaseException, trouble: str) -> Exception:
    match error:
        case CarrelError() | TimeoutError() | _Answered():
            return error
        case MCPError() if error.code not in _BROKEN and error.message != _SESSION_LOST:
            return _Answered(trouble or error.message)
        case MCPError():
            return ToolsDown(f"It broke off: {trouble or error.message[:_MAX_MESSAGE]}.")
        case ValidationError():
            where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            return ToolsDown(f"It answered what no tool server says: {where[:100]}.")
        case httpx2.HTTPError() | httpx2.StreamError():
            return ToolsDown(f"It cannot be reached: {trouble or type(error).__name__}.")
        case anyio.ClosedResourceError() | anyio.BrokenResourceError() | anyio.EndOfStream():
            return ToolsDown(f"It broke off{trouble and f': {trouble}'}.")
    assert isinstance(error, Exception)
    return error


def _leaf(error: BaseException) -> BaseException:
    """What went wrong first, of a group of tasks."""
    while isinstance(inner := getattr(error, "exceptions", None), tuple) and inner:
        error = next((each for each in inner if isinstance(each, CarrelError)), inner[0])
    return error


def _content(result: CallToolResult) -> list[Json]:
    """Its blocks without what a server says of how they are to be shown."""
    blocks: list[Json] = [
        block.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"meta", "annotations", "icons"}
        )
        for block in result.content
    ]
    if not blocks and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
        blocks = [{"type": "text", "text": text}]
    return blocks
