"""The controller put together: one FastAPI application and everything it stands on.

:func:`create_app` makes the application over a given cluster; :func:`build` is the whole service
of one machine, with its own Ray and the MCP bridge, as `carrel up` runs it. Nothing starts before
the application's lifespan, and its end leaves nothing: every workspace is released, then what was
started is ended, in reverse.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Protocol

from fastapi import FastAPI
from starlette.types import ASGIApp

from controller import problems
from controller.auth import Auth, Gate
from controller.events import Events
from controller.folders import private_folder
from controller.lifecycle import Cluster, Lifecycle
from controller.routes import (
    ERRORS,
    Parts,
    files,
    processes,
    screen,
    service,
    session,
    sockets,
    workspaces,
)
from controller.routes import (
    cluster as cluster_routes,
)
from controller.settings import Settings
from controller.store import Store
from controller.templates import Templates

_ROUTERS = (workspaces, screen, processes, files, session, cluster_routes, service)
_DESCRIPTION = """Sandboxed Linux desktops for agents.

Send `Authorization: Bearer <key>`. Every error is `{"code", "message", "hint"}`; codes are stable.
"""


class Bridge(Protocol):
    """What is mounted beside /v1: the MCP bridge."""

    @property
    def app(self) -> ASGIApp: ...
    def run(self) -> AbstractAsyncContextManager[None]: ...


def create_app(settings: Settings, cluster: Cluster, *, bridge: Bridge | None = None) -> FastAPI:
    """The application over a cluster that answers."""
    private_folder(settings.home)
    store = Store(settings.database)
    events = Events(store)
    templates = Templates(settings.templates)
    auth = Auth(settings)
    lifecycle = Lifecycle(store, cluster, events, templates)

    @asynccontextmanager
    async def lifespan(_api: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await store.open()
            stack.push_async_callback(store.close)
            await stack.enter_async_context(events.run())
            await stack.enter_async_context(lifecycle.run())
            if bridge is not None:
                await stack.enter_async_context(bridge.run())
            yield

    api = FastAPI(
        title="Carrel",
        version=version("carrel"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=ERRORS,
    )
    api.state.parts = Parts(settings, auth, cluster, events, lifecycle, store, templates)
    for module in _ROUTERS:
        api.include_router(module.router)
    api.include_router(sockets.router)
    api.mount("/static", service.Static())
    if bridge is not None:
        api.mount("/", bridge.app)
    problems.install(api)
    api.add_middleware(Gate, auth=auth, settings=settings)
    api.add_middleware(problems.Shield)
    return api
