"""The controller put together: one FastAPI application and everything it stands on.

:func:`create_app` makes the application over a given cluster; :func:`build` is the whole service
of one machine, with its own Ray and the MCP bridge, as `carrel up` runs it. Nothing starts before
the application's lifespan, and its end leaves nothing: every workspace is released, then what was
started is ended, in reverse.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller import answers, containers, pods, problems, sealing
from controller.artifacts import Artifacts
from controller.artifacts.frames import Frames
from controller.artifacts.opening import by_settings, quota, retention
from controller.auth import Auth
from controller.channel import Channel, Here, RedisStream
from controller.checkpointing import Checkpointing
from controller.control import Controls
from controller.events import Events
from controller.following import Following
from controller.gate import Gate
from controller.headers import Headers, for_other_origins
from controller.keyring import Keyring
from controller.lifecycle import Lifecycle
from controller.links import Links
from controller.live import Cluster
from controller.metrics import Metrics
from controller.ports.forwarding import Forwarding
from controller.ports.layer import Ports
from controller.ports.origins import Origins
from controller.rejoining import Ray
from controller.requests import Requests
from controller.routes import (
    Parts,
    artifacts,
    browser,
    cdp,
    control,
    egress,
    files,
    following,
    ide,
    keys,
    leases,
    login,
    nodes,
    pools,
    ports,
    processes,
    recording,
    requests,
    screen,
    service,
    session,
    shares,
    sockets,
    tenants,
    tools,
    ui,
    volumes,
    waiting,
    windows,
    workspaces,
)
from controller.routes import (
    cluster as cluster_routes,
)
from controller.settings import Settings
from controller.store import Store, databases
from controller.store.listening import Listening
from controller.store.signing import Signer
from controller.tail import Tail
from controller.templates import Templates
from controller.tools import Connecting, Tools
from controller.warming import Warming
from controller.webhook import Webhook
from workspace.client import Carrel
from workspace.errors import DesktopLost, TooLarge, WorkspaceEnded
from workspace.folders import only_one, private_folder
from workspace.transport import MAX_JSON_BYTES

_ROUTERS = (
    workspaces,
    volumes,
    screen,
    control,
    egress,
    requests,
    windows,
    ui,
    browser,
    ide,
    cdp,
    waiting,
    processes,
    files,
    ports,
    recording,
    artifacts,
    session,
    login,
    keys,
    shares,
    tenants,
    tools,
    leases,
    nodes,
    pools,
    cluster_routes,
    following,
    service,
)
_log = logging.getLogger(__name__)
_DESCRIPTION = """Sandboxed Linux desktops for agents.

Send `Authorization: Bearer <key>`. Every error is `{"code", "message", "hint"}`; codes are stable.
"""


class Bridge(Protocol):
    """What is mounted beside /v1: the MCP bridge."""

    @property
    def app(self) -> ASGIApp: ...
    def run(self) -> AbstractAsyncContextManager[None]: ...
    def tools_changed(self) -> None: ...


def create_app(settings: Settings, cluster: Cluster, *, bridge: Bridge | None = None) -> FastAPI:
    """The application over a cluster that answers."""
    return _assemble(settings, lambda _auth: nullcontext((cluster, None)), lambda _api: bridge)


def build(settings: Settings, on_lost: Callable[[], None] = lambda: None) -> FastAPI:
    """The whole service of this machine: its lifespan starts Ray and the bridge, and ends them.

    ``on_lost`` is called when Ray is gone: this process can only end then.

    Entering the lifespan raises:
        Conflict: another controller serves this home.
        Unavailable: Ray or the database cannot be used.
    """

    def make_bridge(api: FastAPI) -> Bridge:
        from agent_bridge.server import Bridge as McpBridge

        in_process = httpx.ASGITransport(_bounded(api))
        scheme = urlsplit(settings.url).scheme
        return McpBridge(
            lambda key: Carrel(settings.url, key, transport=in_process),
            public_url=settings.public_origin,
            issuer=settings.oidc_issuer,
            allowed_hosts=_hosts(settings),
            allowed_origins=[f"{scheme}://{host}" for host in _hosts(settings)]
            + [settings.public_origin, *settings.other_origins],
        )

    return _assemble(
        settings, lambda auth: _own_cluster(settings, auth.lease_secret), make_bridge, on_lost
    )


@asynccontextmanager
async def _own_cluster(
    settings: Settings, lease_secret: bytes
) -> AsyncIterator[tuple[Cluster, Ray]]:
    """This home's Ray, or the one that the settings name, for as long as the block runs."""
    from ray_cluster.cluster import Cluster as RayCluster
    from ray_cluster.connection import is_served
    from ray_cluster.keeper import RunDir
    from ray_cluster.leases import Lease
    from ray_cluster.local import LocalRay

    async with AsyncExitStack() as stack:
        # The lock comes first: by it Ray's keeper knows that a controller lives.
        stack.enter_context(only_one(RunDir(settings.sockets).controller_lock))
        stack.callback(_remove_if_empty, settings.disks)
        stack.callback(_remove_if_empty, settings.volumes)
        for parent in (settings.disks, settings.sockets):
            stack.callback(_remove_if_empty, parent / containers.FOLDER)
        address, token = settings.ray_address, settings.ray_token
        if not address:
            local = LocalRay(
                settings.sockets,
                desktops=settings.desktops,
                overcommit=settings.memory_overcommit,
            )
            stack.push_async_callback(anyio.to_thread.run_sync, local.stop)
            address, secret = await anyio.to_thread.run_sync(local.start_or_find)
            ray = Ray(lambda: local.serves(address), is_own=True)
            # They outlive this controller, and the next one may have another port.
            settings.address_file.write_text(settings.url, encoding="ascii")
            controllers = [f"file://{settings.address_file}"]
        else:
            secret = token.get_secret_value() if token else ""
            ray = Ray(
                lambda: is_served(address),
                is_own=False,
                is_same=lambda: cluster.is_same(),
            )
            controllers = settings.controller_urls
        backends = {"bubblewrap": _bubblewrap(settings)}
        if (docker := containers.settings_of(settings)) is not None:
            backends["docker"] = docker
        if (kata := await anyio.to_thread.run_sync(pods.settings_of, settings)) is not None:
            backends["kata"] = kata
        lease = Lease(controllers, lease_secret, grace_seconds=settings.lease_grace_seconds)
        cluster = await anyio.to_thread.run_sync(
            lambda: RayCluster.connect(
                address=address,
                token=secret,
                namespace=f"carrel-{settings.cluster_name}",  # what others started is not ours
                strategy=settings.placement,
                backends=backends,
                lease=lease,
            )
        )
        stack.push_async_callback(anyio.to_thread.run_sync, cluster.close)
        yield cluster, ray


@asynccontextmanager
async def _until_lost(
    ray: Ray, lifecycle: Lifecycle, on_lost: Callable[[], None]
) -> AsyncIterator[None]:
    """Watch Ray as long as the block runs; say how the desktops ended that end with it."""

    async def watch() -> None:
        await ray.lost()
        _log.error("Ray is gone: the controller starts anew")
        if ray.is_own:
            died = "Ray died on this machine, and every desktop with it."
            lifecycle.keeping.fail_all(DesktopLost(died, hint=WorkspaceEnded.default_hint))
        on_lost()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _bubblewrap(settings: Settings) -> dict[str, Any]:  # Any: JSON values
    places: dict[str, Any] = {  # Any: as above
        "run_dir": str(settings.sockets),
        "disk_dir": str(settings.disks),
        "volume_dir": str(settings.volumes),
        "tool_dir": str(settings.tools),
        "egress_private": [each for each in settings.egress_private.split(",") if each.strip()],
    }
    if settings.runtime_dir is not None:
        places["runtime_dir"] = str(settings.runtime_dir)
    return places


def _hosts(settings: Settings) -> list[str]:
    """What MCP clients may call this controller; the gate has looked at the Host before."""
    names = ["127.0.0.1:*", "localhost:*", "[::1]:*", f"{settings.host}:*"]
    public = urlsplit(settings.public_origin).netloc
    return [*names, public]


def _bounded(app: ASGIApp) -> ASGIApp:
    """``app`` for callers in this process, whose answers are held in memory: not too large ones."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        left = MAX_JSON_BYTES

        async def sending(message: Message) -> None:
            nonlocal left
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge(f"The answer is longer than {MAX_JSON_BYTES} bytes.")
            await send(message)

        await app(scope, receive, sending)

    return bounded


def _beside(otherwise: ASGIApp, bridge: ASGIApp | None) -> ASGIApp:
    """Where what no route knows goes. Not a mount at "/": that would hide every 405 of /v1."""

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            error = problems.no_such_path(scope, ())
            await problems.answer(error, scope, receive, send)
        elif bridge is not None and scope["path"].startswith(("/mcp", "/.well-known/")):
            await bridge(scope, receive, send)
        else:
            await otherwise(scope, receive, send)

    return either


def _connecting() -> Connecting:
    """What speaks MCP with tool servers; loaded when the first one is reached."""
    from agent_bridge import remote

    return remote


def _channel(settings: Settings) -> Channel:
    """What tells this controller of new events."""
    if settings.redis_url:
        return RedisStream(settings.redis_url)
    is_sqlite = settings.database.startswith("sqlite")
    return Here() if is_sqlite else Listening(settings.database)


def _assemble(
    settings: Settings,
    open_cluster: Callable[[Auth], AbstractAsyncContextManager[tuple[Cluster, Ray | None]]],
    make_bridge: Callable[[FastAPI], Bridge | None],
    on_lost: Callable[[], None] = lambda: None,
) -> FastAPI:
    private_folder(settings.home)
    auth = Auth(settings)
    metrics = Metrics()
    origins = Origins(settings.public_origin, settings.ports_host)

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        channel = _channel(settings)
        store = Store(settings.database, notifies=isinstance(channel, Listening))
        store.appended = channel.told
        events = Events(store, metrics)
        tail = Tail(store, channel)
        templates = Templates(settings.templates, backend=settings.backend)
        kept = Artifacts(store, by_settings(settings), settings.incoming, quota(settings))
        async with AsyncExitStack() as stack:
            stack.enter_context(databases.alone(settings.database))
            cluster, ray = await stack.enter_async_context(open_cluster(auth))
            await stack.enter_async_context(store.run())
            await stack.enter_async_context(events.run())
            auth.keyring = Keyring(store, events)
            auth.links = Links(store, events, auth.share_url)
            await stack.enter_async_context(kept.run())
            await stack.enter_async_context(tail.run())
            lifecycle = Lifecycle(
                store,
                cluster,
                events,
                templates,
                replica=settings.replica_name,
                lives_on=bool(settings.ray_address),
                metrics=metrics,
            )
            warming = Warming(lifecycle.keeping, templates, lives_on=bool(settings.ray_address))
            lifecycle.keeping.pools = warming
            signer = Signer(auth.audit_key)
            await stack.enter_async_context(
                Checkpointing(store, events, signer, days=settings.events_days).run()
            )
            await stack.enter_async_context(lifecycle.run())
            await stack.enter_async_context(warming.run())
            controls = Controls(lifecycle, events)
            await stack.enter_async_context(controls.run())
            secret = settings.webhook_secret
            webhook = Webhook(
                settings.webhook_url,
                secret.get_secret_value() if secret else "",
                events,
                origin=settings.public_origin,
            )
            await stack.enter_async_context(webhook.run())
            await stack.enter_async_context(retention(kept, store, events, settings).running())
            forwarding = Forwarding()
            stack.push_async_callback(forwarding.aclose)
            beside = Tools(
                store,
                events,
                lifecycle,
                sealing.by_settings(settings),
                _connecting,
                probe_seconds=settings.tool_probe_seconds,
                changed=bridge.tools_changed if bridge is not None else lambda: None,
            )
            await stack.enter_async_context(beside.run())
            if ray is not None:
                await stack.enter_async_context(_until_lost(ray, lifecycle, on_lost))
            if bridge is not None:
                await stack.enter_async_context(bridge.run())
            api.state.parts = Parts(
                settings,
                auth,
                cluster,
                events,
                lifecycle,
                store,
                templates,
                warming,
                controls,
                Requests(store, lifecycle, controls, events, webhook),
                kept,
                Frames(kept),
                tail,
                origins,
                forwarding,
                beside,
            )
            yield

    api = FastAPI(
        title="Carrel",
        version=version("carrel"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # ``service`` answers it, off the loop
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        # Its own spans hold queries, and so the texts that are looked for: ours are by tracing.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for module in _ROUTERS:
        # Of what the service tells of itself, some is not behind the gate.
        gated = None if module is service else answers.GATED
        api.include_router(module.router, responses=gated)
    answers.describe(api)
    for sockets_of in (sockets.router, following.sockets, ports.sockets, cdp.sockets):
        api.include_router(sockets_of)
    api.mount("/static", service.Static())
    bridge = make_bridge(api)
    api.router.default = _beside(api.router.default, bridge.app if bridge is not None else None)
    problems.install(api)
    api.add_middleware(Gate, auth=auth, settings=settings)
    api.add_middleware(for_other_origins, settings=settings)
    api.add_middleware(problems.Shield)
    api.add_middleware(Headers, is_secure=settings.public_origin.startswith("https:"))
    api.add_middleware(Ports, auth=auth, origins=origins)
    api.add_middleware(Following, metrics=metrics, is_traced=bool(settings.otlp_endpoint))
    return api
