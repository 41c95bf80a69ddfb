"""`carrel up`: the controller as a process, from the first check to the last desktop's end.

What can be refused is refused before anything is started: another controller of this home, then a
taken port (the socket is opened here and handed on). A signal ends it at any moment: while it
starts, the start is cancelled; while it serves, connections are closed, every workspace is
released and Ray is ended by the application's own lifespan.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from controller import tracing
from controller.cli import output, process
from controller.rejoining import restart
from workspace import folders, logs
from workspace.errors import CarrelError, InvalidRequest, PortTaken, Unavailable
from workspace.protocols import HttpProtocol, WebSocketProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

    from controller.settings import Settings

CLOSE_SECONDS = 2  # what requests and streams get to end before they are cut off
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(settings: Settings, claims: Sequence[str]) -> None:
    """Serve until a signal comes.

    Raises:
        Conflict: another controller serves this home.
        PortTaken: something listens on the port.
        CarrelError: why it could not start.
    """
    logging.basicConfig(level=logging.INFO, handlers=[logs.handler(settings.log_format)])
    for noisy in ("httpx", "httpcore", "uvicorn.error", "mcp", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns that it sets no signal handler.
    logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
    process.refuse_second(settings)
    with listen(settings.host, settings.port) as listener:
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        with tracing.exporting(settings.otlp_endpoint, instance=settings.replica_name):
            is_to_restart = asyncio.run(_run(settings, listener, claims))
    if is_to_restart:
        where = [f"--port={settings.port}", f"--host={settings.host}"]
        restart(["up", *where, *(f"--claim={template}" for template in claims)])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortTaken: something listens there.
        Unavailable: the address is not this machine's, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
        # asyncio sets it only on sockets that name their protocol, which these do not. Without
        # it an answer's body waits 40 ms for the acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"Port {port} on {host} is taken by another program.") from error
        raise Unavailable(
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            hint="Name another address with --host and --port.",
        ) from error


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers; says when it serves."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)


def spare_collector() -> None:
    """Have Python look for cycles less often: a third of what a claim takes was that.

    What a claim leaves is freed by its count; the collector goes through all live workspaces for
    the little that is not.
    """
    gc.freeze()  # modules, routes and models live as long as the process
    gc.set_threshold(50_000, 20, 100)


async def _run(settings: Settings, listener: socket.socket, claims: Sequence[str]) -> bool:
    """Serve to the end; whether that came because Ray is gone, and not by a signal."""
    from controller.app import build

    loop = asyncio.get_running_loop()
    claiming: list[asyncio.Task[None]] = []
    is_lost = is_told = False

    def on_lost() -> None:
        nonlocal is_lost
        is_lost = server.should_exit = True

    def on_ready() -> None:
        _announce(settings)
        if claims:
            claiming.append(asyncio.ensure_future(_claim(settings, claims)))

    spare_collector()
    app = build(settings, on_lost)
    config = uvicorn.Config(
        app,
        lifespan="off",  # it is run here: its errors are told as such, and it ends last
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=16 << 20,
        ws_per_message_deflate=False,  # RFB and pictures do not shrink
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    _load_tls(config)
    server = Server(config, on_ready)
    main = asyncio.ensure_future(_live(app, server, listener, lambda: catch()))

    def on_signal() -> None:
        nonlocal is_told
        is_told = True
        for task in claiming:
            task.cancel()
        if server.started:
            server.force_exit, server.should_exit = server.should_exit, True
        else:
            main.cancel()

    def catch() -> None:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` asks
                loop.add_signal_handler(number, on_signal)

    catch()
    try:
        with suppress(asyncio.CancelledError):
            await main
    finally:
        if not is_lost or is_told:
            process.forget_url(settings.url)
        with suppress(OSError):  # not while desktops or a Ray are still in it
            settings.sockets.rmdir()
    output.note("ended")
    return is_lost and not is_told


def _load_tls(config: uvicorn.Config) -> None:
    """Load the settings' certificate and key, if any: before anything is started.

    Raises:
        InvalidRequest: they cannot be used.
    """
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(
            f"CARREL_TLS_CERT or CARREL_TLS_KEY cannot be used: {why}.",
            hint="Name PEM files: the certificate with its chain, and its private key, that this "
            "user may read.",
        ) from error


async def _live(
    app: FastAPI, server: uvicorn.Server, listener: socket.socket, catch: Callable[[], None]
) -> None:
    output.note("starting Ray and the controller...")
    async with app.router.lifespan_context(app):
        catch()  # Ray puts a handler of its own in place of ours
        await server.serve([listener])
        output.note("ending: releasing every desktop...")


def _announce(settings: Settings) -> None:
    from workspace.settings import url_file

    url = settings.url
    if settings.home == url_file().parent:
        process.note_url(url)
    print(f"ready {url} (dashboard /, REST /v1, MCP /mcp)", flush=True)
    if not sys.stderr.isatty():
        return
    home = Path("~/.local/state/carrel").expanduser()
    env = "" if settings.home == home else f', "env": {{"CARREL_HOME": "{settings.home}"}}'
    has_own_key = settings.api_key is not None
    key = "$CARREL_API_KEY" if has_own_key else f"$(cat {settings.key_file})"
    where = "as set in CARREL_API_KEY" if has_own_key else f"in {settings.key_file}"
    output.note(
        f"""
  Dashboard     {url}/
  Key           {where}

  Claude Code   claude mcp add --transport http carrel {url}/mcp \\
                  --header "Authorization: Bearer {key}"
  Other agents  {{"mcpServers": {{"carrel": {{"type": "http", "url": "{url}/mcp",
                  "headers": {{"Authorization": "Bearer <the key>"}}}}}}}}
  Over stdio    {{"mcpServers": {{"carrel": {{"command": "{_program()}",
                  "args": ["mcp"]{env}}}}}}}

  A desktop     carrel new        Ctrl-C ends everything.
"""
    )


def _program() -> str:
    return str(Path(sys.executable).with_name("carrel"))


async def _claim(settings: Settings, templates: Sequence[str]) -> None:
    """One desktop of each template, unless one is live already."""
    from workspace.client import Carrel

    key = settings.api_key.get_secret_value() if settings.api_key else None
    key = key or folders.private_file(settings.key_file)
    try:
        async with Carrel(settings.url, key) as carrel:
            live = {each.template for each in await carrel.list()}
            for template in templates:
                if template not in live:
                    made = await carrel.create(template)
                    output.note(f"  desktop {made.id} is ready: {made.watch_url}")
    except CarrelError as error:  # the controller serves all the same
        output.note(f"error: no desktop was made: {error}")
