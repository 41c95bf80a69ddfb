"""``carrel mcp``: the same tools over standard input and output, for clients that start servers.

It is a client of a running controller like any other and keeps nothing: when its input closes it
ends, and desktops that were not destroyed live until their deadline.
"""

from __future__ import annotations

from mcp.server.stdio import stdio_server

from agent_bridge.caller import Caller
from agent_bridge.server import make_server
from workspace.client import Carrel


async def serve(url: str | None = None, key: str | None = None) -> None:
    """Serve until standard input closes. Nothing else may write to standard output meanwhile.

    Raises:
        Unavailable: no controller answers at ``url``.
        Unauthorized: the controller does not know ``key``, or there is none.
    """
    async with Carrel(url, key) as carrel:
        await carrel.whoami()
        caller = Caller(carrel, public_url=carrel.url)
        server = make_server(lambda: caller)
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
