"""desktopd: the daemon inside every desktop.

``desktopd.py --config-fd C --listen-fd L --ready-fd R`` where a supervisor hands it open files, or
``--config FILE --listen HOST:PORT``, with ``--remove-config`` where the file is for its eyes
alone. In a container it fetches the same open files by ``--from SOCKET`` (:func:`_fetch`), and ends
when whoever gave them is gone. By ``--egress-fd`` it sends out, once, the socket that the desktop's
way out is to listen on (:func:`_hand_out`). It serves before the desktop is up (503
``not_ready`` until then) and says once on R how the start went. It ends, and everything it started
with it, on SIGTERM or SIGINT (exit code 0); within a bounded time (:mod:`ending`). When the X
server is gone everything on the screen is started anew, and the next observation says so; the
daemon ends (exit code 1) if that fails, or came too often.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workspace import logs
from workspace.desktopd.children import Children, forbid_tracing
from workspace.desktopd.config import MAX_CONFIG_BYTES, Config
from workspace.desktopd.ending import Ending
from workspace.desktopd.session import Session
from workspace.egress import PROXY_PORT
from workspace.errors import CarrelError, InvalidRequest, StartFailed

if TYPE_CHECKING:
    from workspace.desktopd.screen import Screen
    from workspace.desktopd.service import Service

logger = logging.getLogger("desktopd")

# Folders may lie in each other as deep as a path is long, and the standard library walks them by
# calls that lie in each other too.
_MAX_RECURSION = 8000
_MAX_RESTARTS = 5  # of an X server that keeps dying
_FETCH_SECONDS = 110.0  # whoever gives them watches the time; its death is seen at once
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to end; the exit code."""
    arguments = _parse(argv)
    logging.basicConfig(level=logging.INFO, handlers=[logs.handler(head="%(name)s")])
    forbid_tracing()
    _return_memory()
    sys.setrecursionlimit(_MAX_RECURSION)
    giver = None
    try:
        if arguments.giver is not None:
            giver = _fetch(arguments)
        config = _read_config(arguments)
        listener = _listen(arguments)
        if arguments.egress_fd is not None:
            _hand_out(arguments.egress_fd)
    except CarrelError as error:
        _report(arguments.ready_fd, error)
        return 2
    return asyncio.run(_serve(config, listener, arguments.ready_fd, giver))


def _return_memory() -> None:
    """Have the C library give freed memory back at once.

    Otherwise each thread keeps an arena, and every large upload raises what it holds on to.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 512 << 10)
        libc.mallopt(_M_TRIM_THRESHOLD, 512 << 10)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="desktopd")
    config = parser.add_mutually_exclusive_group(required=True)
    config.add_argument("--config-fd", type=int)
    config.add_argument("--config", metavar="FILE")
    config.add_argument("--from", dest="giver", metavar="SOCKET")
    listen = parser.add_mutually_exclusive_group()
    listen.add_argument("--listen-fd", type=int)
    listen.add_argument("--listen", metavar="HOST:PORT")
    parser.add_argument("--remove-config", action="store_true", help="once it is read")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--egress-fd", type=int)
    arguments = parser.parse_args(argv)
    listens = arguments.listen_fd is not None or arguments.listen is not None
    if listens == (arguments.giver is not None):
        parser.error("one of --listen-fd, --listen and --from is needed")
    for fd in (arguments.config_fd, arguments.listen_fd, arguments.ready_fd, arguments.egress_fd):
        if fd is not None:
            os.set_inheritable(fd, False)
    return arguments


def _fetch(arguments: argparse.Namespace) -> socket.socket:
    """Connect to who gives the open files, and take them: configuration, listening socket, the pipe
    to say on how the start went, and where the socket of the way out goes.

    The connection is to be kept: its end is theirs.
    """
    giver = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        giver.settimeout(_FETCH_SECONDS)
        giver.connect(arguments.giver)
        _, fds, _, _ = socket.recv_fds(giver, 1, 4)
    except OSError as error:
        giver.close()
        raise StartFailed(
            f"What the desktop needs cannot be fetched from {arguments.giver}: {error}."
        ) from error
    for fd in fds:
        os.set_inheritable(fd, False)
    if len(fds) != 4:
        giver.close()
        raise StartFailed(
            f"{arguments.giver} gave {len(fds)} open files in place of 4: the container's runtime "
            "does not pass them on."
        )
    arguments.config_fd, arguments.listen_fd, arguments.ready_fd, arguments.egress_fd = fds
    giver.setblocking(False)
    return giver


def _read_config(arguments: argparse.Namespace) -> Config:
    source = arguments.config if arguments.config_fd is None else arguments.config_fd
    try:
        with open(source, "rb") as file:
            text = file.read(MAX_CONFIG_BYTES)
        if arguments.remove_config and arguments.config is not None:
            os.unlink(arguments.config)  # the desktop's programs are this user's too
        return Config.model_validate_json(text)
    except OSError as error:
        raise InvalidRequest(f"The configuration cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        # Not the error's own text: that repeats the input, and the token is in it.
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "JSON"
        raise InvalidRequest(f"The configuration is wrong at {where}: {fault['msg']}.") from None


def _listen(arguments: argparse.Namespace) -> socket.socket:
    try:
        if arguments.listen_fd is not None:
            return socket.socket(fileno=arguments.listen_fd)
        host, _, port = arguments.listen.rpartition(":")
        listener = socket.create_server((host.strip("[]"), int(port)), backlog=128)
        # asyncio does not set it on a socket made like this; without it answers wait 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, ValueError) as error:
        raise StartFailed(f"The daemon cannot listen: {error}.") from error


def _hand_out(fd: int) -> None:
    """Listen for the proxy outside, in this network, before any program of the desktop runs."""
    try:
        with (
            socket.socket(fileno=fd) as out,
            socket.create_server(("127.0.0.1", PROXY_PORT), backlog=512) as listener,
        ):
            socket.send_fds(out, [b"\0"], [listener.fileno()])
    except OSError as error:
        raise StartFailed(f"The way out of the desktop cannot be made: {error}.") from error


def _report(ready_fd: int | None, error: CarrelError | None) -> None:
    """Say on the pipe how the start went, once."""
    if error is not None:
        logger.error("%s", error)
    if ready_fd is None:
        return
    line = {"ready": True} if error is None else {"error": error.to_wire()}
    try:
        with open(ready_fd, "wb") as pipe:
            pipe.write(json.dumps(line).encode() + b"\n")
    except OSError:
        logger.info("Nobody reads whether the desktop is ready.")


async def _serve(
    config: Config,
    listener: socket.socket,
    ready_fd: int | None,
    giver: socket.socket | None = None,
) -> int:
    home = os.environ.get("HOME") or "/home/user"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    stopping, ending = asyncio.Event(), Ending()
    children = Children(adopts=True)
    session = Session(config, children, home, runtime)

    def stop() -> None:
        ending.begin(0)
        stopping.set()
        session.is_under_way.set()  # which is waited for

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    if giver is not None:
        asyncio.get_running_loop().add_reader(giver, _until_gone, giver, stop)
    starting = asyncio.ensure_future(session.start())
    service: Service | None = None
    try:
        # To load it takes a while: it is time while the desktop's programs start.
        await session.is_under_way.wait()
        loaded = await asyncio.to_thread(importlib.import_module, "workspace.desktopd.service")
        service = loaded.Service(session, config, home, listener)
        return await _run(starting, session, service, stopping, ready_fd)
    finally:
        ending.begin(1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if service is not None:
            await service.aclose()
        await session.aclose()
        await children.end_all()
        if service is not None:
            await asyncio.gather(service.ended, return_exceptions=True)


def _until_gone(giver: socket.socket, stop: Callable[[], None]) -> None:
    """Nothing more ever comes but the end."""
    asyncio.get_running_loop().remove_reader(giver)
    logger.info("Whoever started this desktop is gone.")
    stop()


async def _run(
    starting: asyncio.Future[Screen],
    session: Session,
    service: Service,
    stopping: asyncio.Event,
    ready_fd: int | None,
) -> int:
    """Wait for the desktop's start and for its end; the exit code."""
    stop = asyncio.ensure_future(stopping.wait())
    waiting: list[asyncio.Future[Any]] = [stop, service.ended]  # Any: two kinds of result
    try:
        await asyncio.wait([starting, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            _report(ready_fd, StartFailed("The daemon was told to end while it started."))
            return 0 if stop.done() else 1
        service.desk.screen = starting.result()
        gc.freeze()  # all that was loaded stays
        gc.enable()
        _report(ready_fd, None)
        while not await _until_lost(session, service, waiting):
            pass
        return 0 if stop.done() else 1
    except CarrelError as error:
        _report(ready_fd, error)
        return 1
    finally:
        stop.cancel()
        await asyncio.gather(stop, return_exceptions=True)


async def _until_lost(
    session: Session,
    service: Service,
    waiting: list[asyncio.Future[Any]],  # Any: see _run
) -> bool:
    """Wait for the X server's end, and start its desktop anew; True when the daemon is to end."""
    desk = service.desk
    ended = asyncio.ensure_future(session.ended.wait())
    try:
        await asyncio.wait([ended, *waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
    if any(each.done() for each in waiting) or desk.restarts >= _MAX_RESTARTS:
        return True
    await desk.lose_screen()
    restarting = asyncio.ensure_future(session.restart())
    try:
        await asyncio.wait([restarting, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if not restarting.done():
            return True
        desk.screen = restarting.result()
    except CarrelError as error:
        logger.error("The desktop cannot be started anew: %s", error)
        return True
    finally:
        restarting.cancel()
        await asyncio.gather(restarting, return_exceptions=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
