"""``carrel mcp``: the same tools over standard input and output, for clients that start servers.

It is a client of a running controller like any other and keeps nothing: when its input closes it
ends, and desktops that were not destroyed live until their deadline.
"""

from __future__ import annotations

import httpx
from mcp.server.stdio import stdio_server
from opentelemetry.propagate import inject

from agent_bridge.caller import Caller
from agent_bridge.server import make_server
from workspace import settings
from workspace.client import Carrel
from workspace.http1 import client_transport


async def serve(url: str | None = None, key: str | None = None) -> None:
    """Serve until standard input closes. Nothing else may write to standard output meanwhile.

    Raises:
        Unavailable: no controller answers at ``url``.
        Unauthorized: the controller does not know ``key``, or there is none.
    """
    url = url or settings.controller_url()
    async with Carrel(url, key, transport=_Traced(client_transport(url))) as carrel:
        await carrel.whoami()
        caller = Caller(carrel, public_url=carrel.url)
        server = make_server(lambda: caller)
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())


class _Traced(httpx.AsyncBaseTransport):
    """Tells the controller of which trace a request is, if its tool's call is of one."""

    def __init__(self, wire: httpx.AsyncBaseTransport) -> None:
        self._wire = wire

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        inject(request.headers)
        return await self._wire.handle_async_request(request)
