"""Tool servers: programs that speak MCP on standard input and output, behind a WebSocket.

Each connection has a process of its own, because such a server speaks with one client: a handshake
first, and ids that only that client knows. A text frame is a line, both ways; a line of the program
that is too long ends it. The process ends when the socket closes: its input first, as the protocol
has it, then a signal, then a kill. What it says beside (standard error) is kept to its last words,
which tell why it ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping

from starlette.websockets import WebSocket

from workspace.desktopd.children import Child, drain, write_all
from workspace.desktopd.programs import Programs
from workspace.desktopd.sockets import close, until_first
from workspace.errors import ToolsNotFound, TooMany
from workspace.models import ToolProgram

# Where their packages are mounted, read-only; what those are started by is in its bin.
FOLDER = "/opt/carrel/tools"
MAX_LINE_BYTES = 4 << 20
MAX_RUNNING = 16
WRITE_SECONDS = 30.0
END_SECONDS = 1.0  # for each way of asking it to end
_LAST_WORDS = 1000
_REASON_BYTES = 120  # what a WebSocket's goodbye has room for
_READ_BYTES = 1 << 16


class ToolServers:
    """The servers that this desktop may start, and those that run."""

    def __init__(self, programs: Programs, known: Mapping[str, ToolProgram]) -> None:
        self._programs = programs
        self._known = known
        self._running: set[ToolServer] = set()

    def start(self, name: str) -> ToolServer:
        """Start one; end it with ``aclose``.

        Raises:
            ToolsNotFound: this desktop has none of that name.
            TooMany: as many run as may.
        """
        program = self._known.get(name)
        if program is None:
            raise ToolsNotFound(
                f"This desktop has no tool server {name[:60]!r}.",
                hint=f"It has: {', '.join(self._known) or 'none'}.",
            )
        if len(self._running) >= MAX_RUNNING:
            raise TooMany(
                f"{MAX_RUNNING} tool servers run in this desktop.", hint="Close one of them."
            )
        server = ToolServer(self._programs, program, self._running)
        self._running.add(server)
        return server

    async def aclose(self) -> None:
        """End them all."""
        await asyncio.gather(*(server.aclose() for server in list(self._running)))


class ToolServer:
    """One process."""

    def __init__(self, programs: Programs, program: ToolProgram, running: set[ToolServer]) -> None:
        self._of = running
        self._last_words = b""
        self._buffer = bytearray()
        stdin_read, self._stdin = os.pipe()
        self._stdout, stdout_write = os.pipe()
        stderr_read, stderr_write = os.pipe()
        path = programs.environment.get("PATH", "")
        try:
            self.child: Child = programs.start(
                program.command,
                environment={"PATH": f"{FOLDER}/bin:{path}", **program.environment},
                stdin=stdin_read,
                stdout=stdout_write,
                stderr=stderr_write,
            )
        except BaseException:
            for fd in (self._stdin, self._stdout, stderr_read):
                os.close(fd)
            raise
        finally:
            for fd in (stdin_read, stdout_write, stderr_write):
                os.close(fd)
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._has_ended_speaking = drain(stderr_read, self._hear)
        self._is_closed = False

    def _hear(self, data: bytes) -> None:
        self._last_words = (self._last_words + data)[-_LAST_WORDS:]

    async def line(self) -> str | None:
        """Its next line; None at its end.

        Raises:
            ValueError: the line is too long, or no text.
        """
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return line.decode("utf-8")
            searched = len(self._buffer)
            if searched > MAX_LINE_BYTES:
                raise ValueError(f"a line has more than {MAX_LINE_BYTES >> 20} MiB")
            data = await self._read()
            if not data:
                return None
            self._buffer += data

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._stdout, _READ_BYTES)
            except BlockingIOError:
                readable = asyncio.Event()
                loop.add_reader(self._stdout, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(self._stdout)

    async def tell(self, line: str) -> None:
        """Give it a line. OSError or asyncio.TimeoutError when it does not take it."""
        data = line.replace("\n", " ").encode("utf-8", "replace") + b"\n"
        await write_all(self._stdin, data, WRITE_SECONDS)

    async def how_it_ended(self) -> str:
        """Why, as far as it has said."""
        try:
            await asyncio.wait_for(self.child.exited.wait(), END_SECONDS)
            await asyncio.wait_for(self._has_ended_speaking.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            return "it closed its output"
        lines = self._last_words.decode("utf-8", "replace").strip().splitlines()
        told = f"exit code {self.child.exit_code}"
        return f"{told}: {lines[-1].strip()}" if lines else told

    async def aclose(self) -> None:
        """End it: by its input's end, by SIGTERM, by SIGKILL."""
        if self._is_closed:
            return
        self._is_closed = True
        self._of.discard(self)
        os.close(self._stdin)
        os.close(self._stdout)
        for ask in (None, signal.SIGTERM):
            if ask is not None:
                self.child.signal(ask)
            try:
                await asyncio.wait_for(self.child.exited.wait(), END_SECONDS)
                break
            except asyncio.TimeoutError:
                pass
        await self.child.end()


async def serve(websocket: WebSocket, server: ToolServer) -> None:
    """Carry an accepted WebSocket to and from a server until either ends."""

    async def show() -> None:
        while (line := await server.line()) is not None:
            await websocket.send_text(line)

    async def tell() -> None:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            if text is None or len(text) > MAX_LINE_BYTES:
                raise ValueError("send a line of JSON in each text frame")
            await server.tell(text)

    ended = await until_first(show(), tell())
    if isinstance(ended.error, ValueError):
        await close(websocket, 1003, _short(str(ended.error)))
    elif ended.which == 0 or ended.error is not None:
        await close(websocket, 1011, _short(await server.how_it_ended()))


def _short(reason: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in reason)
    return plain.encode()[:_REASON_BYTES].decode("utf-8", "ignore")
