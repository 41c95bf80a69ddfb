"""The controller's process as other commands see it: whether it runs, where, and how it ends.

The lock in the run folder is the truth: the kernel lets go of it when its holder dies, and it
holds the process's id. ``home/url`` only tells clients where it serves.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from workspace.errors import CarrelError, Conflict, InvalidRequest, StartFailed, Unavailable
from workspace.settings import controller_url, url_file

if TYPE_CHECKING:
    from controller.settings import Settings

START_SECONDS = 90.0
STOP_SECONDS = 20.0


def settings(**given: object) -> Settings:
    """The controller's settings of this environment.

    Raises:
        InvalidRequest: one of them is not usable.
    """
    from pydantic import ValidationError

    from controller.settings import Settings

    try:
        return Settings.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "CARREL_" + "_".join(str(part) for part in first["loc"]).upper()
        told = f"{name} is not usable: {first['msg']}."
        raise InvalidRequest(told, hint="Correct it.") from error


def running(of: Settings) -> int | None:
    """The process id of the controller of this home; None when none runs."""
    from ray_cluster.keeper import RunDir, is_locked

    lock = RunDir(of.sockets).controller_lock
    if not is_locked(lock):
        return None
    try:
        return int(lock.read_text())
    except (OSError, ValueError):
        return None


def refuse_second(of: Settings) -> None:
    """Raises Conflict when a controller of this home runs."""
    if (pid := running(of)) is not None:
        raise Conflict(
            f"Carrel is already running for {of.home} (process {pid}, {controller_url()}).",
            hint="Use it, end it with `carrel down`, or set another CARREL_HOME.",
        )


def note_url(url: str) -> None:
    file = url_file()
    partial = file.with_name(f".url.{os.getpid()}")
    partial.write_text(url + "\n", encoding="ascii")
    partial.replace(file)


def forget_url(url: str) -> None:
    """Remove the note, unless it is another's."""
    with suppress(OSError, UnicodeDecodeError):
        if url_file().read_text(encoding="ascii").strip() == url:
            url_file().unlink()


def stop(of: Settings) -> str:
    """End the controller of this home, its desktops and its Ray; what was ended, in words.

    Raises:
        Unavailable: it did not end in time.
    """
    ended = "nothing was running"
    pid = running(of)
    if pid is not None and _end(of, pid):
        ended = f"ended the controller (process {pid}), its desktops and its Ray"
    from ray_cluster.keeper import RunDir
    from ray_cluster.local import LocalRay

    ray = LocalRay(of.sockets)
    if ray.is_kept():
        ray.stop()
        if pid is None:
            ended = "ended the Ray that an earlier controller had left, with its desktops"
    url_file().unlink(missing_ok=True)
    if running(of) is None:  # one that was killed has left its lock's file
        RunDir(of.sockets).controller_lock.unlink(missing_ok=True)
        with suppress(OSError):
            of.sockets.rmdir()
    return ended


def _end(of: Settings, pid: int) -> bool:
    """SIGTERM by a handle: the id cannot become another process's between look and signal."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if running(of) != pid:
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], STOP_SECONDS)[0]:
            raise Unavailable(
                f"The controller (process {pid}) has not ended within {STOP_SECONDS:.0f} s.",
                hint=f"`kill -9 {pid}`, then `carrel down` again ends its desktops and Ray.",
            )
        return True
    finally:
        os.close(handle)


def start_detached(of: Settings, arguments: Sequence[str]) -> tuple[str, int]:
    """Start `carrel up` in the background; its address and process id once it serves.

    Raises:
        StartFailed: it did not; the message has its own last words.
    """
    from workspace.folders import private_folder

    log = private_folder(of.home / "log") / "controller.log"
    with log.open("ab") as file:
        began = file.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "controller.cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            start_new_session=True,
        )
    assert child.stdout is not None
    with child.stdout as out:
        line = _first_line(out.fileno(), time.monotonic() + START_SECONDS)
    if line.startswith("ready "):
        child.returncode = 0  # it is on its own from here: no warning that it still runs
        return line.split()[1], child.pid
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(STOP_SECONDS)
    raise StartFailed(
        f"The controller did not start. {_last_words(log, began)}",
        hint=f"The whole log is {log}.",
    )


def _first_line(out: int, deadline: float) -> str:
    text = b""
    while b"\n" not in text and len(text) < 4096:
        if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        piece = os.read(out, 4096)
        if not piece:
            break
        text += piece
    return text.decode(errors="replace")


def _last_words(log: Path, since: int) -> str:
    with log.open("rb") as file:
        file.seek(since)
        text = file.read(1 << 20).decode(errors="replace").strip()
    error = [line for line in text.splitlines() if line.startswith(("error: ", "hint: "))]
    return " ".join(error or text.splitlines()[-3:])


@contextmanager
def at_hand() -> Iterator[Callable[[], None]]:
    """A controller that answers: the one that runs, or one for the block's own duration.

    What is given ends it at once, if it was started here: for a signal's handler.
    """
    from controller.cli import output

    if _answers():
        yield lambda: None
        return
    mine = settings()
    with output.progress("No controller is running: starting one"):
        start_detached(mine, ["--port=0"])
    try:
        yield lambda: _quietly_stop(mine)
    finally:
        with output.progress("Ending it"):
            stop(mine)


def _answers() -> bool:
    from controller.cli.connect import controller, run

    async def ask() -> None:
        async with controller() as carrel:
            await carrel.whoami()

    try:
        run(ask)
    except CarrelError as error:
        if error.code in ("unavailable", "unauthorized") and running(settings()) is None:
            return False
        raise
    return True


def _quietly_stop(mine: Settings) -> None:
    with suppress(CarrelError):  # nobody is left to be told
        stop(mine)
