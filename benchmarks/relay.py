"""Many viewers of one screen: what the controller's relay needs for them. Simulated.

Three processes: a source that sends each viewer pictures as a busy desktop does, the relay of
:mod:`controller.watch` behind the server that the controller runs in, and the viewers. What is
told is the processor that the relay's process used, by the kernel's count.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from os import sysconf
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from benchmarks.rows import Measured
from controller.watch import relay
from workspace.backends.base import Endpoint
from workspace.protocols import HttpProtocol, WebSocketProtocol

VIEWERS = 200
FRAMES_A_SECOND = 10
FRAME_BYTES = 16 << 10  # an update of a part of the screen, as a JPEG
SECONDS = 10.0
OPEN_SECONDS = 60.0
WHO = "Carrel, the relay"
_TICK = 1 / sysconf("SC_CLK_TCK")


async def source(path: str) -> None:
    """Send every connection the frames that it asks for, no faster than a screen changes."""
    frame = bytes(FRAME_BYTES)

    async def serve(connection: ServerConnection) -> None:
        try:
            frames = int(await connection.recv())
            due = time.monotonic()
            for _ in range(frames):
                await connection.send(frame)
                due = max(due + 1 / FRAMES_A_SECOND, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
        except ConnectionClosed:
            return

    async with unix_serve(serve, path, compression=None, ping_interval=None):
        await asyncio.Event().wait()


async def _nothing() -> None:
    """Nothing is written down of it."""


async def serve_relay(path: str, listener: socket.socket) -> None:
    """The relay, as the controller serves it."""
    endpoint = Endpoint(url=f"unix://{path}", token="none")

    async def vnc(websocket: WebSocket) -> None:
        await relay(websocket, endpoint, "/vnc?role=view", _nothing)

    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/vnc", vnc)]),
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


async def _view(viewer: ClientConnection, frames: int) -> None:
    await viewer.send(str(frames))
    for _ in range(frames):
        await viewer.recv()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


@contextmanager
def _process(*arguments: str, passed: int | None = None) -> Iterator[int]:
    fds = () if passed is None else (passed,)
    command = [sys.executable, "-m", "benchmarks.relay", *arguments]
    process = subprocess.Popen(command, pass_fds=fds)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def measure(viewers: int = VIEWERS, seconds: float = SECONDS) -> list[Measured]:
    """The cores that the relay needs for the viewers."""
    with tempfile.TemporaryDirectory(prefix="c-") as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        path, port = f"{folder}/source", listener.getsockname()[1]
        fd = listener.fileno()
        with _process("source", path), _process("relay", path, str(fd), passed=fd) as pid:
            while not Path(path).exists():
                time.sleep(0.01)
            used, took = asyncio.run(_watch(port, pid, viewers, int(seconds * FRAMES_A_SECOND)))
    task = f"{viewers} viewers, {FRAMES_A_SECOND} frames a second of {FRAME_BYTES >> 10} KiB each"
    # Of what it used for each frame: on a machine with other work they come later than they should.
    note = f"{seconds:g} s of them took {took:.1f} s"
    return [Measured(f"processor for {task}", WHO, "cores", (used / seconds,), note)]


async def _watch(port: int, pid: int, viewers: int, frames: int) -> tuple[float, float]:
    """Seconds of processor that the relay used for that many frames each, and that they took."""
    url = f"ws://127.0.0.1:{port}/vnc"
    async with AsyncExitStack() as stack:
        watching = []
        for _ in range(viewers):
            viewer = connect(
                url,
                compression=None,
                proxy=None,
                max_size=None,
                open_timeout=OPEN_SECONDS,
                ping_interval=None,
            )
            watching.append(await stack.enter_async_context(viewer))
        begin, used = time.monotonic(), _cpu_seconds(pid)
        await asyncio.gather(*(_view(each, frames) for each in watching))
        return _cpu_seconds(pid) - used, time.monotonic() - begin


def main() -> None:
    match sys.argv[1:]:
        case ["source", path]:
            asyncio.run(source(path))
        case ["relay", path, fd]:
            asyncio.run(serve_relay(path, socket.socket(fileno=int(fd))))
        case _:
            for each in measure():
                print(each.row())


if __name__ == "__main__":
    main()
