"""Which IDE of JetBrains there is, and how it is started.

On failure: one that is not there, or cannot be started, is Unavailable; what was started has ended.
"""

from __future__ import annotations

import asyncio
import glob
import os
import secrets
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from workspace import ide as i
from workspace.desktopd.ide.adapter import Launched
from workspace.desktopd.ide.jetbrains import wire
from workspace.desktopd.ide.jetbrains.adapter import JetBrains
from workspace.desktopd.ide.jetbrains.preparing import Choices, Product, prepare, product_of
from workspace.desktopd.ide.jetbrains.wire import DEFAULT_PORT
from workspace.desktopd.programs import Programs, resolve
from workspace.desktopd.threads import in_thread
from workspace.desktopd.x11 import windows as x11_windows
from workspace.desktopd.x11.display import Display
from workspace.errors import CarrelError, DesktopLost, StartFailed, Unavailable
from workspace.models import Window

# In this order, where a template names none.
PROGRAMS = (
    "pycharm", "idea", "webstorm", "goland", "clion", "rustrover", "phpstorm", "rubymine", "rider",
    "dataspell",
)  # fmt: skip
_PLACES = ("/opt/jetbrains/*/bin", "/opt/*/bin")
# Whoever installs an IDE accepts JetBrains' agreement by putting its version into this file.
AGREEMENT = "/opt/jetbrains/agreement-accepted"
_HAND_OVER_SECONDS = 15.0
_LAST_BYTES = 4096


async def launch(
    programs: Programs,
    settings: i.IdeSettings,
    folder: str,
    shown: Callable[[], Awaitable[None]],
) -> Launched:
    """Start it with its folder open; see ``workspace.desktopd.ide.adapter.Launch``."""
    home, path = programs.home, programs.environment.get("PATH", os.defpath)
    program = await in_thread(lambda: find(settings.program, path))
    project = await in_thread(lambda: os.path.realpath(resolve(settings.folder, home)))
    log = os.path.join(folder, "jetbrains.log")

    def ready() -> tuple[Product | None, int]:
        os.makedirs(project, exist_ok=True)
        product, port = product_of(home_of(program)), DEFAULT_PORT
        if product is not None:
            port = free_port()
            prepare(home, product, Choices(port, [project], agreement=_agreement()))
        return product, port

    try:
        product, port = await in_thread(ready)
    except OSError as error:
        raise Unavailable(f"The IDE cannot be prepared: {error}.") from error
    await wire.load()
    await shown()
    token = secrets.token_urlsafe(24)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        child = programs.start(
            [program, project],
            environment={"IJ_MCP_AUTH_TOKEN": token},
            stdout=output,
            stderr=output,
        )
    finally:
        os.close(output)
    started = time.monotonic()
    screen = _Screen(programs.environment.get("DISPLAY", ""))

    async def hand_over(arguments: Sequence[str]) -> bool:
        """Give the IDE that runs something by its own launcher; whether it took it."""
        helper = programs.start([program, *arguments])
        try:
            await asyncio.wait_for(helper.exited.wait(), _HAND_OVER_SECONDS)
        except asyncio.TimeoutError:
            return False
        finally:
            if helper.exit_code is None:  # whoever asked may have gone away
                await helper.end()
        return helper.exit_code == 0

    adapter = JetBrains(
        project,
        settings=settings,
        port=port,
        token=token,
        name=product.name if product else os.path.basename(program),
        version=product.version if product else "",
        pid=lambda: child.pid if child.exit_code is None else None,
        age=lambda: time.monotonic() - started,
        windows=screen.windows,
        hand_over=hand_over,
        on_close=screen.close,
    )
    return Launched(adapter, [child], lambda: _end_of(log))


def find(program: str | None, path: str) -> str:
    """Where the IDE's launcher is: in PATH, or below /opt.

    Raises:
        Unavailable: it is not there.
    """
    if program is not None and "/" in program:
        if os.access(program, os.X_OK):
            return program
        raise Unavailable(f"There is no IDE at {program}.", hint="Put it into the image.")
    for name in (program,) if program else PROGRAMS:
        for spelled in (name, f"{name}.sh"):
            if found := shutil.which(spelled, path=path):
                return found
            for candidate in [
                each for place in _PLACES for each in glob.glob(f"{place}/{spelled}")
            ]:
                if os.access(candidate, os.X_OK):
                    return candidate
    raise Unavailable(
        f"There is no {program or 'IDE of JetBrains'} in this desktop: it is neither in PATH nor "
        "in /opt/jetbrains/*/bin or /opt/*/bin.",
        hint="Use a template whose image has one.",
    )


def home_of(program: str) -> str:
    """The IDE's folder, of the launcher in its ``bin``."""
    return os.path.dirname(os.path.dirname(os.path.realpath(program)))


def free_port() -> int:
    """The usual port of the MCP server, or another where that one is taken."""
    for port in (DEFAULT_PORT, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                return int(listener.getsockname()[1])
    return DEFAULT_PORT


def _agreement() -> str | None:
    with suppress(OSError, UnicodeDecodeError), open(AGREEMENT, encoding="utf-8") as file:
        return file.read(100).strip() or None
    return None


def _end_of(log: str) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


class _Screen:
    """The windows on the screen, over a connection that is opened when they are first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._display: Display | None = None
        self._opening = asyncio.Lock()

    async def windows(self) -> Sequence[Window]:
        """None where they cannot be told; nothing is connected twice."""
        if not self._name:
            return []
        try:
            async with self._opening:
                if self._display is None or self._display.closed.is_set():
                    self._let_go()
                    self._display = await Display.open(self._name, timeout=0.5)
                    if not self._name:  # closed meanwhile
                        self._let_go()
                        return []
                display = self._display
            with display.talking():
                return x11_windows.listed(display)
        except (StartFailed, DesktopLost, CarrelError):
            return []

    def close(self) -> None:
        """For good."""
        self._name = ""
        self._let_go()

    def _let_go(self) -> None:
        display, self._display = self._display, None
        if display is not None:
            display.close()
