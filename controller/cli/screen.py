"""Watching from a terminal: the watch page in a browser, or a port for a native VNC viewer."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from controller.cli import output
from controller.cli.connect import controller
from controller.cli.wire import websocket
from workspace.errors import CarrelError, Conflict

# Browsers that draw text: they run no noVNC, and would take the terminal.
TEXT_BROWSERS = {"www-browser", "links", "elinks", "lynx", "w3m", "browsh"}
CHUNK = 1 << 16


async def open_page(workspace_id: str, *, with_control: bool) -> None:
    """Open the watch page; where there is no browser its address is enough."""
    async with controller() as carrel:
        workspace = await carrel.get(workspace_id)
        if workspace.state not in ("starting", "ready"):
            await carrel.wait_ready(workspace)  # says why it ended
    url = workspace.watch_url
    if with_control:
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(query="control"))
    output.result({"watch_url": url}, url)
    if not output.wants_json() and not _open(url):
        output.note("There is no browser here: open the address above in one.")


def _open(url: str) -> bool:
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if Path(getattr(browser, "name", "")).name in TEXT_BROWSERS:
        return False
    return browser.open(url)


async def tunnel(workspace_id: str, role: Literal["view", "control"], port: int) -> None:
    """Serve a desktop's screen as plain VNC on a loopback port until interrupted.

    Only this user's viewers (and root's) are let in: VNC's own passwords protect nothing. The role
    is enforced in the desktop, not here.

    Raises:
        Conflict: the port is taken.
        CarrelError: the desktop is not there.
    """
    path = f"/v1/workspaces/{workspace_id}/vnc?role={role}"
    async with controller() as carrel:
        await carrel.wait_ready(workspace_id)
        ended = asyncio.Event()
        why: list[CarrelError] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
            if owner_of(peer, own) not in (os.getuid(), 0):
                output.note("refused a viewer of another user of this machine")
                writer.close()
                return
            try:
                await _relay(path, reader, writer)
            except CarrelError as error:
                output.note(f"error: {error}")
            finally:
                writer.close()
            try:
                await carrel.wait_ready(workspace_id)
            except CarrelError as error:
                why.append(error)
                ended.set()

        try:
            server = await asyncio.start_server(serve, "127.0.0.1", port, limit=CHUNK)
        except OSError as error:
            raise Conflict(
                f"Port {port} cannot be used: {error.strerror}.", hint="Name another with --port."
            ) from error
        async with server:
            address = "127.0.0.1", server.sockets[0].getsockname()[1]
            url = "vnc://{}:{}".format(*address)
            output.result({"url": url, "role": role}, url)
            output.note(f"for example: vncviewer {address[0]}::{address[1]}  (Ctrl-C ends this)")
            await ended.wait()
        raise why[0]


def owner_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The uid whose socket the client's end of a loopback connection is; None if it is gone."""

    def told(address: tuple[str, int]) -> str:
        (host,) = struct.unpack("=I", socket.inet_aton(address[0]))
        return f"{host:08X}:{address[1]:04X}"

    ends = [told(client), told(server)]
    with open("/proc/net/tcp") as table:  # sl, local, remote, state, queues, timer, retries, uid
        for fields in map(str.split, table):
            if fields[1:3] == ends:
                return int(fields[7])
    return None


async def _relay(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes both ways until either side closes."""
    async with websocket(path) as socket:

        async def inwards() -> None:
            while data := await reader.read(CHUNK):
                await socket.send(data)

        async def outwards() -> None:
            async for message in socket:
                writer.write(message if isinstance(message, bytes) else message.encode())
                await writer.drain()

        both = [asyncio.ensure_future(inwards()), asyncio.ensure_future(outwards())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            for one in both:
                with suppress(asyncio.CancelledError, OSError, _closed()):
                    await one


def _closed() -> type[Exception]:
    from websockets.exceptions import ConnectionClosed

    return ConnectionClosed
