"""Applications on real sockets, served from the test's own process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import ASGIApp

from workspace.testing import serving


@asynccontextmanager
async def listening(app: ASGIApp, port: int = 0) -> AsyncIterator[int]:
    """Serve ``app``, whose lifespan is its owner's, on loopback; yields its port."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        # asyncio does not set it on a socket made like this; without it answers wait 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with serving(app, listener):
            yield listener.getsockname()[1]


@contextmanager
def listening_in_thread(app: ASGIApp) -> Iterator[tuple[int, BlockingPortal]]:
    """The same for tests without an event loop; the portal leads to the application's."""
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(listening(app)) as port:
            yield port, portal
