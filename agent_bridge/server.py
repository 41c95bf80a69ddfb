"""The MCP server: the tools over streamable HTTP at ``/mcp``, in both eras of the protocol.

Each request is complete in itself: it carries the caller's key, which is checked against the
controller's own ``/v1/whoami`` and with which every tool then acts through ``/v1``. No state hangs
on a protocol session, so clients of either era survive a restart of the server.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio
from mcp import MCPError
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from agent_bridge import others, tools
from agent_bridge.caller import Caller
from workspace.client import Carrel
from workspace.errors import CarrelError, NotFound, Unauthorized

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 << 20
_MAX_CALLERS = 256
_MAX_LISTENING = 256
Context = ServerRequestContext[dict[str, Any]]  # Any: the SDK's own type for a server's lifespan


def make_server(
    caller_of: Callable[[], Caller], listening: ListenHandler | None = None
) -> Server[dict[str, Any]]:
    """The tools as an MCP server for any transport; ``caller_of`` says whose call it is.

    ``listening`` tells those who ask for it that the list has changed.
    """

    async def list_tools(context: Context, _: PaginatedRequestParams | None) -> ListToolsResult:
        asked = context.request.query_params if isinstance(context.request, Request) else {}
        try:
            toolsets = asked.get("toolsets")
            listed = list(tools.chosen(toolsets))
        except CarrelError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
        if tools.with_others(toolsets):
            listed += await others.offered(caller_of())
        return ListToolsResult(tools=listed)

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        async def progress(elapsed: float, message: str) -> None:
            await context.session.report_progress(elapsed, None, message)

        try:
            caller = caller_of()
        except CarrelError as error:
            return tools.failure(error)
        return await tools.call(caller, params.name, params.arguments or {}, progress)

    return Server(
        "carrel",
        title="Carrel: sandboxed desktops",
        version=version("carrel"),
        instructions=tools.INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_subscriptions_listen=listening,
    )


class Bridge:
    """The MCP server as an ASGI app, for the controller to mount at ``/``.

    ``carrel_for`` makes a client of the controller for a key, in this process; ``issuer`` names the
    OpenID provider whose tokens are keys too, if there is one. ``app`` serves
    ``/mcp`` and the protected-resource metadata; it answers while :meth:`run` is entered, which
    can be once.
    """

    def __init__(
        self,
        carrel_for: Callable[[str], Carrel],
        *,
        public_url: str,
        allowed_hosts: Sequence[str],
        allowed_origins: Sequence[str],
        issuer: str = "",
    ) -> None:
        self._carrel_for = carrel_for
        self._public_url = public_url.rstrip("/")
        self._callers: OrderedDict[str, Caller] = OrderedDict()
        self._bus = InMemorySubscriptionBus()
        self._listening = ListenHandler(
            self._bus, max_subscriptions=_MAX_LISTENING, max_buffered_events=16
        )
        self._has_changed = anyio.Event()
        self._server = make_server(self._caller, self._listening)
        app = self._server.streamable_http_app(
            stateless_http=True,
            max_request_body_size=MAX_BODY_BYTES,
            transport_security=TransportSecuritySettings(
                allowed_hosts=list(allowed_hosts), allowed_origins=list(allowed_origins)
            ),
            auth=AuthSettings(
                issuer_url=AnyHttpUrl(issuer or self._public_url),
                resource_server_url=AnyHttpUrl(f"{self._public_url}/mcp"),
                validate_token_resource=False,  # keys are the controller's own, for all it serves
            ),
            token_verifier=self,
        )
        app.add_exception_handler(404, _not_found)
        self.app: ASGIApp = app

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve until the block ends; calls in progress are cancelled then."""
        try:
            async with self._server.session_manager.run(), anyio.create_task_group() as tasks:
                tasks.start_soon(self._tell)
                try:
                    yield
                finally:
                    self._listening.close()
                    tasks.cancel_scope.cancel()
        finally:
            while self._callers:
                await self._callers.popitem()[1].carrel.aclose()

    def tools_changed(self) -> None:
        """The tools beside the desktop are others: have those who listen be told."""
        self._has_changed.set()

    async def _tell(self) -> None:
        while True:
            await self._has_changed.wait()
            self._has_changed = anyio.Event()
            await self._bus.publish(ToolsListChanged())

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose key it is, by the controller's own word; the SDK's ``TokenVerifier``."""
        if not (token.isascii() and token.isprintable() and token):
            return None  # no key looks like this, and it would not fit in a header
        caller = self._caller_for(token)
        try:
            identity = await caller.carrel.whoami()
        except Unauthorized:
            self._callers.pop(_digest(token), None)
            return None
        return AccessToken(token=token, client_id=identity.name, scopes=[], subject=identity.name)

    def _caller(self) -> Caller:
        token = get_access_token()
        if token is None:
            raise Unauthorized("This call carries no key.")
        return self._caller_for(token.token)

    def _caller_for(self, key: str) -> Caller:
        name = _digest(key)
        caller = self._callers.get(name)
        if caller is None:
            caller = Caller(self._carrel_for(key), public_url=self._public_url)
            self._callers[name] = caller
            while len(self._callers) > _MAX_CALLERS:
                # Not closed: a call may still use it. A client in this process holds no socket.
                self._callers.popitem(last=False)
        self._callers.move_to_end(name)
        return caller


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def _not_found(request: Request, _: Exception) -> Response:
    error = NotFound(
        f"There is nothing at {request.url.path}.",
        hint="See /openapi.json for /v1; MCP is at /mcp.",
    )
    return JSONResponse(error.to_wire(), status_code=error.status)
