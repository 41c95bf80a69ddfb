"""The Chromium of the desktop: the one that answers on :data:`PORT`, or a new one.

Inside a sandbox every Chromium is started with the flags of :data:`FLAGS` (by ``/etc/chromium.d``),
however it is started: from the menu, by a shell, by this module. So there is one profile, and the
browser that a person opened is the browser that is attached to. The port is the sandbox's own
loopback: any program in the desktop can reach it, as it can reach the X server; web pages cannot,
for Chromium refuses WebSockets with an Origin there. It is a fixed one, for Chromium tells its
pages that it is automated if it picks the port itself.

On failure: ``Unavailable`` says that there is no browser here, or what it wrote before it ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from contextlib import suppress

from workspace.browsing import CDP_PORT as PORT
from workspace.desktopd.children import Child, drain
from workspace.desktopd.programs import Programs
from workspace.desktopd.threads import in_thread
from workspace.errors import Unavailable

logger = logging.getLogger(__name__)

PROFILE = ".config/carrel-browser"  # in the home: it stays where the home does
# Chromium takes the last of several; what a caller gives itself comes after these.
FLAGS = (
    f"--remote-debugging-port={PORT}",
    f"--user-data-dir=$HOME/{PROFILE}",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-crash-restore-bubble",
    "--password-store=basic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-back-forward-cache",  # what comes from it is no navigation that Playwright sees
)
NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
_START_SECONDS = 20.0
_LOOK_SECONDS = 0.05
_ASK_SECONDS = 1.0
_TAIL_BYTES = 2000
_MAX_ANSWER = 64 << 10
_MAX_PREFERENCES = 4 << 20
_END_SECONDS = 3.0


def endpoint_of(answer: bytes) -> str | None:
    """Where CDP is, by the answer of ``/json/version``; None if it is not this port's.

    Any program may listen there: only a loopback address of this port is taken.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        return None
    try:
        told = json.loads(body)
    except ValueError:
        return None
    url = told.get("webSocketDebuggerUrl") if isinstance(told, dict) else None
    if not isinstance(url, str) or not url.startswith(f"ws://127.0.0.1:{PORT}/devtools/browser/"):
        return None
    return url


async def endpoint() -> str | None:
    """Where the CDP of a running browser is; None if none answers."""
    try:
        return endpoint_of(await asyncio.wait_for(_ask(), _ASK_SECONDS))
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
        return None


async def _ask() -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    try:
        writer.write(
            f"GET /json/version HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + await reader.readexactly(min(length, _MAX_ANSWER))
    except (ValueError, asyncio.LimitOverrunError):
        return b""
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _holder(profile: str) -> int | None:
    """The process that has a profile, if it lives; its lock is a link to "host-pid"."""
    try:
        pid = int(os.readlink(os.path.join(profile, "SingletonLock")).rpartition("-")[2])
    except (OSError, ValueError):
        return None
    return pid if os.path.exists(f"/proc/{pid}") else None


def _noted_its_end(profile: str) -> bool:
    try:
        with open(os.path.join(profile, "Default", "Preferences"), "rb") as file:
            told = json.loads(file.read(_MAX_PREFERENCES))
        return bool(told["profile"]["exit_type"] != "Crashed")
    except (OSError, ValueError, LookupError, TypeError):
        return False


class Chromium:
    """Starts the browser; ``child`` is the one that was started last, None of one found."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._tail = bytearray()
        self.child: Child | None = None

    async def ready(self, url: str = "about:blank") -> tuple[str, bool]:
        """Where its CDP is, started if it is not there; and whether it was started.

        Raises:
            Unavailable: there is none here, or it does not come up.
        """
        found = await endpoint()
        if found is not None:
            return found, False
        self._start(url)
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            found = await endpoint()
            if found is not None:
                return found, True
            if self.child is not None and self.child.exit_code not in (None, 0):
                raise Unavailable(
                    f"The browser ended with {self.child.exit_code} as it started. It said: "
                    f"{self._last_words()}"
                )
        raise Unavailable(
            f"The browser does not answer on port {PORT} after {_START_SECONDS:g} s.",
            hint="If a Chromium runs with a profile or port of its own, close it and try again.",
        )

    async def ended_well(self) -> bool:
        """Of a browser that has gone: whether it was closed, and did not crash or get killed.

        It notes that in its profile as it ends; whoever is killed does not.
        """
        profile = os.path.join(self._programs.home, PROFILE)
        deadline = asyncio.get_running_loop().time() + _END_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            if _holder(profile) is None:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return await in_thread(lambda: _noted_its_end(profile))

    def _start(self, url: str) -> None:
        path = self._programs.environment.get("PATH")
        program = next((found for name in NAMES if (found := shutil.which(name, path=path))), None)
        if program is None:
            raise Unavailable(
                "There is no Chromium or Chrome in this desktop.",
                hint="`carrel doctor` names the package for the desktop's machine.",
            )
        home = self._programs.home
        profile = os.path.join(home, PROFILE)
        # One of another desktop, which had this home and was killed, holds it no more.
        for name in ("SingletonLock", "SingletonSocket", "SingletonCookie"):
            with suppress(OSError):
                os.unlink(os.path.join(profile, name))
        flags = [flag.replace("$HOME", home) for flag in FLAGS]
        stderr, theirs = os.pipe()
        self._tail.clear()
        try:
            self.child = self._programs.start(
                [program, *flags, "--start-maximized", url], stderr=theirs
            )
        except BaseException:
            os.close(stderr)
            raise
        finally:
            os.close(theirs)
        drain(stderr, self._keep)

    def _keep(self, data: bytes) -> None:
        self._tail += data
        del self._tail[:-_TAIL_BYTES]

    def _last_words(self) -> str:
        return self._tail.decode("utf-8", "replace").strip()[-500:] or "nothing"
