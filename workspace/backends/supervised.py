"""A sandbox's supervisor as its owner sees it, and as whoever ends the sandbox later finds it.

The owner holds one end of a pipe: as long as it is open, the sandbox lives. What the supervisor
says of the start and the end is its status lines; text from the sandbox in them is only handed on.
When the supervisor was killed, :func:`end` removes what is left, from any process of the same user.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workspace.backends import launch, remains, runtime, volumes, watching
from workspace.errors import BackendUnavailable, CarrelError, DiskFull, StartFailed, VolumeInUse
from workspace.proxy import joining

REMOVE_SECONDS = 60.0  # a home of a million files takes long
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MAX_SOCKET_PATH = 107
_MAX_STATUS_BYTES = 64 << 10
log = logging.getLogger(__name__)


class Supervised:
    """A supervisor that this process owns."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        pipe: int,
        folder: str,
        volume: volumes.Volume | None,
        egress: socket.socket,
    ) -> None:
        self.volume = volume
        self._process = process
        self._pipe = pipe  # as long as it is open, the sandbox lives
        self._folder = folder
        self._egress = egress
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._why = "The sandbox's supervisor was killed."
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def spawn(
        cls, spec: watching.Common, script: str, *, kept: Sequence[str] = ()
    ) -> Supervised:
        """Run a supervisor, with those variables of our own environment."""
        theirs, ours = os.pipe()  # close-on-exec: no other child holds it open
        outside, inside = socket.socketpair()
        outside.setblocking(False)
        given = launch.memory_file(json.dumps({**spec, "egress": inside.fileno()}).encode())
        words = os.open(f"{spec['folder']}/{remains.LOG}", _APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                runtime.PYTHON, "-I", "-S", script, str(given),
                stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=words,
                pass_fds=[given, inside.fileno()], limit=_MAX_STATUS_BYTES,
                env={name: os.environ[name] for name in kept if name in os.environ},
            )  # fmt: skip
            return cls(process, ours, spec["folder"], spec["volume"], outside)
        except BaseException:
            os.close(ours)
            outside.close()
            raise
        finally:
            inside.close()
            for fd in (theirs, given, words):
                os.close(fd)

    async def until_ready(self, seconds: float) -> None:
        """The supervisor keeps the time; past it, the supervisor itself is at fault."""
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), seconds + REMOVE_SECONDS)
        except asyncio.TimeoutError:
            raise StartFailed("The sandbox's supervisor does not answer.") from None

    def way_out(self) -> socket.socket | None:
        """The socket that its proxy is to listen on, once it is ready; None if it sent none."""
        return joining.received(self._egress)

    async def until_ended(self) -> str:
        await asyncio.shield(self._reading)
        return self._why

    async def let_go(self) -> None:
        """Close the pipe and wait until the supervisor has removed everything, or is killed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)  # stopped, it could remove nothing
        self._close()
        try:
            await asyncio.wait_for(asyncio.shield(self._reading), REMOVE_SECONDS)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._reading

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)
            self._egress.close()

    async def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        while True:
            try:
                line = await self._process.stdout.readline()
                if not line:
                    break
                self._heard(json.loads(line))
            except ValueError:  # too long, or cut because nobody had read for long
                log.warning("the supervisor in %s said something unreadable", self._folder)
        await self._process.wait()
        self._close()
        if not self._ready.done():
            self._fail(StartFailed(f"{self._why} {self._last_words()}".strip()))

    def _heard(self, status: dict[str, Any]) -> None:  # Any: the supervisor's own, all of it text
        event, message = status["event"], status.get("message", "")
        if event == "ready" and not self._ready.done():
            self._ready.set_result(None)
        elif event == "notice":
            log.warning("the sandbox in %s: %s", self._folder, message)
        elif event == "ended":
            self._why = f"The sandbox ended: {message}."
        elif event == "failed" and not self._ready.done():
            self._fail(_failure(status))

    def _fail(self, error: CarrelError) -> None:
        self._ready.set_exception(error)
        self._ready.exception()  # seen, even if nobody waits any more

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return Path(self._folder, remains.LOG).read_bytes()[-2000:].decode(errors="replace")
        return ""


def _failure(status: dict[str, Any]) -> CarrelError:  # Any: text
    words = [line for line in status["log"].splitlines() if not line.startswith("carrel: ")]
    message = f"The desktop did not start: {status['message']}."
    if words:
        message += " Its last words:\n" + "\n".join(words[-20:])
    if status["code"] == DiskFull.code:
        return DiskFull(message, hint="Free some space on the node.")
    if status["code"] == VolumeInUse.code:
        return VolumeInUse(message)
    if status["code"] == BackendUnavailable.code:
        return BackendUnavailable(message, hint=status.get("hint") or None)
    return StartFailed(message)


def end(folder: Path, disk: Path, also: Callable[[], None] = lambda: None) -> None:
    """End a sandbox whoever started it, and remove what is left of it; ``also`` is done once its
    supervisor is gone, before its folder is.
    """
    state = remains.load(str(folder))
    if state is not None:
        fd = remains.pidfd(state["supervisor"])
        if fd is not None:
            _end_supervisor(fd)
            state = remains.load(str(folder)) or state
    also()
    if state is not None and not remains.end(state):
        raise CarrelError(
            f"Something in sandbox {folder.name} does not die.", hint="Stop it again."
        )
    try:
        remains.remove(str(folder), str(disk), state)
    except OSError as error:
        raise CarrelError(
            f"Sandbox {folder.name} is dead but cannot be removed: {error}.",
            hint=f"Remove {folder} and {disk}.",
        ) from error


def _end_supervisor(fd: int) -> None:
    """It removes everything itself when it is told to end; killed, it leaves that to us."""
    with select.epoll() as exited:
        exited.register(fd, select.EPOLLIN)
        for number, seconds in ((signal.SIGTERM, REMOVE_SECONDS), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
            if exited.poll(seconds):
                break
    os.close(fd)


def check_path(path: str) -> None:
    """
    Raises:
        BackendUnavailable: it is too long for a unix socket.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise BackendUnavailable(
            f"The path {path} is longer than the {_MAX_SOCKET_PATH} bytes of a unix socket.",
            hint="Choose a shorter folder for sockets (CARREL_RUN_DIR).",
        )


def cannot_write(error: OSError) -> CarrelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"The node's disk is full: {error}.", hint="Free some space on the node.")
    return StartFailed(f"The node refused to make the sandbox's folders: {error}.")
