"""A terminal: a shell on a PTY behind a WebSocket.

The shell ends when the socket closes: a hang-up first, as when a terminal window is closed, and a
kill when it stays. Bytes flow only as fast as the other side takes them, both ways.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket

from workspace.desktopd.children import Child, write_all
from workspace.desktopd.programs import Programs
from workspace.desktopd.sockets import close, until_first

HANGUP_SECONDS = 1.0
WRITE_SECONDS = 60.0
_READ_BYTES = 1 << 16

Cells = Annotated[int, Field(ge=1, le=1000)]


class TerminalQuery(BaseModel):
    """The query of ``WS /terminal``."""

    model_config = ConfigDict(extra="forbid")
    cols: Cells = 80
    rows: Cells = 24
    command: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None


class _Resize(BaseModel):
    model_config = ConfigDict(extra="forbid")
    resize: tuple[Cells, Cells]


class Terminal:
    """One PTY and the shell on it; end it with ``aclose``."""

    def __init__(self, programs: Programs, query: TerminalQuery) -> None:
        self._is_closed = False
        self._master, slave = os.openpty()
        try:
            self.resize(query.cols, query.rows)
            self.child: Child = programs.start(
                ["/bin/bash", "-i"] if query.command is None else query.command,
                environment={"TERM": "xterm-256color", "COLORTERM": "truecolor"},
                stdin=slave,
                stdout=slave,
                stderr=slave,
                terminal=os.ttyname(slave),
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)

    def resize(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    async def read(self) -> bytes:
        """What was written to the terminal; nothing when it has ended."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._master, _READ_BYTES)
            except BlockingIOError:
                readable = asyncio.Event()
                loop.add_reader(self._master, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(self._master)
            except OSError:  # EIO: nobody has the other end open any more
                return b""

    async def write(self, data: bytes) -> None:
        """Type ``data``. OSError or asyncio.TimeoutError when nobody takes it."""
        await write_all(self._master, data, WRITE_SECONDS)

    async def aclose(self) -> None:
        """Hang up; kill what stays. The shell and what runs in its foreground are gone then."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            foreground = os.tcgetpgrp(self._master)
        except OSError:
            foreground = 0
        self.child.signal(signal.SIGHUP)
        os.close(self._master)
        try:
            await asyncio.wait_for(self.child.exited.wait(), HANGUP_SECONDS)
        except asyncio.TimeoutError:
            pass
        if foreground not in (0, self.child.pid):  # it may outlive the shell that waits for it
            try:
                os.killpg(foreground, signal.SIGKILL)
            except ProcessLookupError:
                pass
        await self.child.end()


async def serve(websocket: WebSocket, terminal: Terminal) -> None:
    """Carry an accepted WebSocket to and from a terminal until either ends."""

    async def show() -> None:
        while data := await terminal.read():
            await websocket.send_bytes(data)
        await asyncio.wait_for(terminal.child.exited.wait(), HANGUP_SECONDS)
        await websocket.send_json({"exit_code": terminal.child.exit_code})

    async def type_in() -> None:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            if message.get("bytes") is not None:
                await terminal.write(message["bytes"])
            else:
                cols, rows = _Resize.model_validate_json(message["text"]).resize
                terminal.resize(cols, rows)

    ended = await until_first(show(), type_in())
    if isinstance(ended.error, ValidationError):
        await close(websocket, 1003, "send bytes, or {'resize': [columns, rows]}")
    elif ended.which == 0 and ended.error is None:
        await close(websocket)
