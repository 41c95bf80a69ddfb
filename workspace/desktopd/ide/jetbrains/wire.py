"""The connection to the MCP server in an IDE of JetBrains: one session, made anew when it is lost.

The server (2025.2 and later) listens on the desktop's loopback: streamable HTTP at ``/stream``, and
the older SSE at ``/sse``, which is tried where the first is not there. It is spoken to in the
protocol's era of handshakes, all that it knows. ``mcp`` is imported by :func:`load`, in a thread:
it takes a second and 45 MB, and most desktops have no such IDE.

What answers may be any program of the desktop: of each answer only so many bytes are read, and it
can redirect to no other place and ask nothing of this side. A call is sent once. When the session
breaks off under it, that is IdeFailed, for it may have been done, and the next call connects anew.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workspace.desktopd.threads import in_thread
from workspace.errors import CarrelError, IdeFailed, IdeNotReady, TimedOut

if TYPE_CHECKING:
    import httpx2
    from mcp import Client

DEFAULT_PORT = 64342
MAX_ANSWER_BYTES = 8 << 20
MAX_TOOLS = 1000
CONNECT_SECONDS = 5.0
FAREWELL_SECONDS = 1.0
_LIBRARIES = ("httpx2", "mcp", "mcp.client.streamable_http", "mcp.types", "mcp.client.sse")
_LOUD = ("mcp.client.streamable_http", "mcp.client.sse", "mcp.shared.jsonrpc_dispatcher", "httpx2")
_MAX_PAGES = 8
_MAX_WORDS = 2000
_PATH_HEADER = "IJ_MCP_SERVER_PROJECT_PATH"
_TOKEN_HEADER = "IJ_MCP_AUTH_TOKEN"


@dataclass
class Offer:
    """A tool that the IDE has, and the names of its parameters."""

    name: str
    parameters: frozenset[str] = frozenset()


@dataclass
class Said:
    """What a tool answered: its text, and ``data`` if that is JSON or it was structured."""

    text: str
    data: Any = None  # Any: JSON, of whatever shape; checked where it is used
    is_error: bool = False


@dataclass
class Peer:
    """Who answers: the server's name ("PyCharm MCP Server") and the IDE's version."""

    name: str = ""
    version: str = ""
    offers: dict[str, Offer] = field(default_factory=dict)


async def load() -> None:
    """Import what speaks MCP, so that nothing else waits for it."""
    if "mcp.client.sse" not in sys.modules:
        await in_thread(lambda: [importlib.import_module(name) for name in _LIBRARIES])
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # told once, by who asked


class Wire:
    """The session with the server on ``port``; ``folder`` is the project that calls are about."""

    def __init__(self, port: int, token: str, folder: str) -> None:
        self.port = port
        self.folder = folder
        self.peer = Peer()
        self._token = token
        self._client: Client | None = None
        self._owner: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._trouble = _Trouble()

    @property
    def is_refused(self) -> bool:
        """Whether the server wants another token than it was sent (HTTP 401 or 403)."""
        return self._trouble.is_refused

    @property
    def is_connected(self) -> bool:
        return self._client is not None

    async def connect(self, seconds: float = CONNECT_SECONDS) -> Peer:
        """Who answers; nothing is done where a session is open.

        Raises:
            IdeFailed: it wants another token. IdeNotReady: nobody listens there, or no MCP server.
        """
        async with self._connecting:
            if self._client is None:
                await load()
                await self._drop()
                try:
                    await asyncio.wait_for(self._open(), seconds)
                except asyncio.TimeoutError:
                    await self._drop()
                    raise IdeNotReady(
                        f"The IDE's MCP server did not answer in {seconds:g} s."
                    ) from None
            return self.peer

    async def call(self, tool: str, arguments: Mapping[str, Any], seconds: float) -> Said:
        """Have a tool do something; what it answers, its own errors too.

        Raises:
            IdeFailed: the session broke off, or what came is no answer: it may have been done.
            TimedOut: no answer in ``seconds``. IdeNotReady: as connecting does.
        """
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult

        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        await self.connect(min(seconds, CONNECT_SECONDS))
        client, seconds = self._client, max(0.05, deadline - loop.time())
        assert client is not None
        asked = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments)))
        # Not the client's own call: that would judge the answer by the server's own schema.
        asking = asyncio.ensure_future(
            client.session.send_request(
                asked, CallToolResult, request_read_timeout_seconds=seconds + 5
            )
        )
        broken = asyncio.ensure_future(self._leaving.wait())
        try:
            await asyncio.wait(
                {asking, broken}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if asking.done():
                return _said(asking.result())
            if broken.done():
                raise IdeFailed(f"The IDE broke off while it did {tool}.")
            raise TimedOut(
                f"The IDE did not answer to {tool} in {seconds:g} s; it may still be at it."
            )
        except CarrelError:
            raise
        except Exception as error:
            leaf = _leaf(error)
            if _is_the_tools_own(leaf):
                return Said(str(leaf)[:_MAX_WORDS], is_error=True)
            trouble = self._trouble.text
            await self._drop()
            if self._trouble.is_refused:
                raise _refused() from error
            raise IdeFailed(
                f"The IDE broke off while it did {tool}: {trouble or _words(leaf)}."
            ) from error
        finally:
            for task in (asking, broken):
                task.cancel()
            await asyncio.gather(asking, broken, return_exceptions=True)

    async def list_again(self, seconds: float) -> Peer:
        """What it offers now: tools come and go with its plug-ins and settings."""
        await self.connect(seconds)
        client = self._client
        assert client is not None
        try:
            self.peer.offers = await asyncio.wait_for(_offers(client), seconds)
        except asyncio.TimeoutError:
            raise TimedOut(f"The IDE did not list its tools in {seconds:g} s.") from None
        except Exception as error:
            await self._drop()
            raise IdeFailed(f"The IDE's MCP server broke off: {_words(_leaf(error))}.") from error
        return self.peer

    async def turn_to(self, folder: str) -> None:
        """Let the calls from now on be about another project."""
        self.folder = folder
        await self._drop()

    async def aclose(self) -> None:
        await self._drop()

    # The session belongs to a task of its own: it must be left where it was entered.

    async def _open(self) -> None:
        opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._leaving = asyncio.Event()
        self._owner = asyncio.ensure_future(self._own(opened, self._leaving))
        try:
            client = await opened
            offers = await _offers(client)
        except CarrelError:
            raise
        except Exception as error:
            if self._trouble.is_refused:
                raise _refused() from error
            words = self._trouble.text or _words(_leaf(error))
            raise IdeNotReady(f"The IDE's MCP server cannot be reached: {words}.") from error
        told = client.server_info
        self.peer = Peer(offers=offers)
        if told is not None:
            self.peer = Peer(told.name[:200], told.version[:100], offers)
        self._client = client

    async def _own(self, opened: asyncio.Future[Client], leaving: asyncio.Event) -> None:
        try:
            async with AsyncExitStack() as stack:
                try:
                    client = await self._entered(stack, "/stream")
                except Exception:
                    if not self._trouble.is_absent:
                        raise
                    client = None
                if client is None:
                    client = await self._entered(stack, "/sse")
                opened.set_result(client)
                await leaving.wait()
        except asyncio.CancelledError:
            if not opened.done():
                opened.cancel()
            raise
        except BaseException as error:
            if not opened.done():
                opened.set_exception(_leaf(error))
        finally:
            leaving.set()
            if self._leaving is leaving:
                self._client = None

    async def _entered(self, stack: AsyncExitStack, path: str) -> Client:
        import httpx2
        from mcp import Client
        from mcp.client.sse import sse_client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.types import Implementation

        url = f"http://127.0.0.1:{self.port}{path}"
        self._trouble = trouble = _Trouble()
        bounded = _bounded(trouble)

        def http(
            headers: dict[str, str] | None = None, timeout: Any = None, auth: Any = None
        ) -> httpx2.AsyncClient:
            # No proxy of the environment: it is on the loopback.
            return httpx2.AsyncClient(
                headers={**(headers or {}), **self._headers()},
                transport=bounded(),
                timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
                trust_env=False,
            )

        inner = AsyncExitStack()
        async with inner:
            if path == "/sse":
                transport = sse_client(url, httpx_client_factory=http)
            else:
                client = await inner.enter_async_context(http())
                transport = streamable_http_client(url, http_client=client)
            connected = await inner.enter_async_context(
                Client(
                    transport,
                    mode="legacy",
                    cache=None,
                    read_timeout_seconds=CONNECT_SECONDS,
                    client_info=Implementation(name="carrel", version="1"),
                )
            )
            stack.push_async_exit(inner.pop_all())
        return connected

    def _headers(self) -> dict[str, str]:
        """The project, and the token in both ways that are known.

        By the IDE's published source the server that its settings enable asks for no token, and
        one that it opens for its own agents asks for IJ_MCP_AUTH_TOKEN; a proxy before it may ask
        for a bearer's.
        """
        headers = {"Accept-Encoding": "identity"}
        if self.folder.isascii():
            headers[_PATH_HEADER] = self.folder
        if self._token:
            headers |= {_TOKEN_HEADER: self._token, "Authorization": f"Bearer {self._token}"}
        return headers

    async def _drop(self) -> None:
        owner, self._owner, self._client = self._owner, None, None
        if owner is None:
            return
        self._leaving.set()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(owner), FAREWELL_SECONDS)
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)


@dataclass
class _Trouble:
    """What is known of an answer beside of why something failed."""

    text: str = ""
    is_refused: bool = False
    is_absent: bool = False


def _bounded(trouble: _Trouble) -> Any:  # Any: a class of a library that is imported late
    import httpx2

    class Limited(httpx2.AsyncByteStream):
        """The bytes of one answer; of a stream of events, those of each event, and no more."""

        def __init__(self, stream: httpx2.AsyncByteStream, *, is_events: bool) -> None:
            self._stream = stream
            self._is_events = is_events

        async def __aiter__(self) -> AsyncIterator[bytes]:
            read, end = 0, b""
            async for piece in self._stream:
                whole = (end + piece).replace(b"\r\n", b"\n")
                end = piece[-3:]
                cut = whole.rfind(b"\n\n") if self._is_events else -1
                read = len(whole) - cut if cut >= 0 else read + len(piece)
                if read > MAX_ANSWER_BYTES:
                    trouble.text = f"its answer has more than {MAX_ANSWER_BYTES >> 20} MiB"
                    raise httpx2.ReadError(trouble.text)
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Bounded(httpx2.AsyncBaseTransport):
        """Carries requests whose answers are read to a limit."""

        def __init__(self) -> None:
            self._wire = httpx2.AsyncHTTPTransport(trust_env=False, verify=False)

        async def aclose(self) -> None:
            await self._wire.aclose()

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.method == "GET" and request.url.path == "/stream":
                return httpx2.Response(405, request=request)  # a stream of what nobody asked for
            try:
                response = await self._wire.handle_async_request(request)
            except httpx2.TransportError as error:
                trouble.text = _words(error)
                raise
            status = response.status_code
            trouble.text = f"it answers HTTP {status}" if response.is_error else ""
            trouble.is_refused = status in (401, 403)
            trouble.is_absent = status in (404, 405)
            stream = response.stream
            assert isinstance(stream, httpx2.AsyncByteStream)
            kind = response.headers.get("Content-Type", "").lower()
            response.stream = Limited(stream, is_events=kind.startswith("text/event-stream"))
            return response

    return Bounded


async def _offers(client: Client) -> dict[str, Offer]:
    from mcp.types import PaginatedRequestParams

    found: dict[str, Offer] = {}
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        for tool in page.tools[:MAX_TOOLS]:
            properties = (tool.input_schema or {}).get("properties")
            names = properties if isinstance(properties, dict) else {}
            found[tool.name] = Offer(tool.name, frozenset(str(name) for name in names))
        cursor = page.next_cursor
        if cursor is None or len(found) >= MAX_TOOLS:
            break
    return found


def _said(result: Any) -> Said:  # Any: a model of a library that is imported late
    text = "\n".join(block.text for block in result.content if block.type == "text")
    data = result.structured_content
    if data is None and text[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            data = json.loads(text)
    return Said(text, data, bool(result.is_error))


def _is_the_tools_own(error: BaseException) -> bool:
    """Whether the server answered with an error of its own, so the session goes on."""
    from mcp import MCPError
    from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

    return (
        isinstance(error, MCPError)
        and error.code not in (CONNECTION_CLOSED, REQUEST_TIMEOUT)
        and error.message != "Session terminated"  # of a server that has begun anew
        and error.code in (-32601, -32602, -32603)
    )


def _refused() -> IdeFailed:
    return IdeFailed(
        "The IDE's MCP server refuses the token.",
        hint="Start the IDE anew: it is given one for this desktop when it starts.",
    )


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]


def _leaf(error: BaseException) -> BaseException:
    """What went wrong first, of a group of tasks."""
    while isinstance(inner := getattr(error, "exceptions", None), tuple) and inner:
        error = next((each for each in inner if isinstance(each, CarrelError)), inner[0])
    return error
