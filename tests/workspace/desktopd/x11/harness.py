"""A real X server, programs on it, and a client of our own that draws and records its events."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xcffib
from xcffib import xproto

from tests.waiting import until


def _write_authority(path: Path, cookie: bytes) -> None:
    """An Xauthority file with one cookie for every display (FamilyWild)."""
    fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", cookie)
    path.write_bytes(
        struct.pack(">H", 0xFFFF) + b"".join(struct.pack(">H", len(f)) + f for f in fields)
    )


class Server:
    """Xtigervnc of the test's own, and the programs started on it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.authority = folder / "authority"
        _write_authority(self.authority, secrets.token_bytes(16))
        self._programs: list[subprocess.Popen[bytes]] = []
        read, write = os.pipe()
        command = [
            *("Xtigervnc", "-displayfd", str(write), "-geometry", "1280x800", "-depth", "24"),
            *("-rfbport", "-1", "-rfbunixpath", str(folder / "rfb"), "-SecurityTypes", "None"),
            *("-nolisten", "tcp", "-auth", str(self.authority), "-noreset", *options),
        ]
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(command, pass_fds=[write], stdout=log, stderr=log)
        os.close(write)
        # The number and the line's end are written apart: a reader that leaves in between
        # kills the server.
        line = b""
        while not line.endswith(b"\n") and select.select([read], [], [], 20)[0]:
            line += os.read(read, 16) or b"\n"
        os.close(read)
        self.display = ":" + line.decode().strip()
        if len(self.display) < 2:
            self.stop()
            raise AssertionError((folder / "server.log").read_text())

    @property
    def environment(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "TMPDIR": str(home),
            "DISPLAY": self.display,
            "XAUTHORITY": str(self.authority),
            "LANG": "C.UTF-8",
            "NO_AT_BRIDGE": "1",
            "GSETTINGS_BACKEND": "memory",
            "DBUS_SESSION_BUS_ADDRESS": "disabled:",
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / "programs.log").open("ab") as log:
            program = subprocess.Popen(
                command,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._programs.append(program)
        return program

    def start_on_bus(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program with a session bus whose socket goes with the test's folder."""
        config = self.folder / "bus.conf"
        config.write_text(
            f"<busconfig><type>session</type><listen>unix:dir={self.folder}</listen>"
            '<policy context="default"><allow send_destination="*" eavesdrop="true"/>'
            '<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>'
        )
        return self.start("dbus-run-session", f"--config-file={config}", "--", *command)

    def end_programs(self) -> None:
        for program in self._programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, 9)
            program.wait(10)
        self._programs.clear()

    def stop(self) -> None:
        self.end_programs()
        self.process.terminate()
        self.process.wait(10)


class Client:
    """A window that is painted, and that records what is done to it."""

    def __init__(
        self, display: str, box: tuple[int, int, int, int] = (0, 0, 1280, 800), colour: int = 0
    ) -> None:
        self.connection: Any = xcffib.connect(display)  # Any: xcffib carries no types
        self.core = self.connection.core
        self.root = self.connection.setup.roots[0].root
        self.events: list[Any] = []
        mask = xproto.EventMask
        self.window = self.connection.generate_id()
        self.core.CreateWindow(
            24,
            self.window,
            self.root,
            *box,
            0,
            xproto.WindowClass.InputOutput,
            0,
            xproto.CW.BackPixel | xproto.CW.OverrideRedirect | xproto.CW.EventMask,
            [
                colour,
                1,
                mask.ButtonPress
                | mask.ButtonRelease
                | mask.PointerMotion
                | mask.KeyPress
                | mask.KeyRelease
                | mask.Exposure,
            ],
        )
        self.gc = self.connection.generate_id()
        self.core.CreateGC(self.gc, self.window, 0, [])
        self.core.MapWindow(self.window)
        self.core.SetInputFocus(xproto.InputFocus.PointerRoot, self.window, 0)
        self.wait_for(xproto.ExposeEvent)
        self.events.clear()

    def fill(self, colour: int, *box: int) -> None:
        self.core.ChangeGC(self.gc, xproto.GC.Foreground, [colour])
        self.core.PolyFillRectangle(
            self.window, self.gc, 1, [xproto.RECTANGLE.synthetic(*box)], is_checked=True
        ).check()

    def collect(self) -> list[Any]:
        """All events that the server has sent so far."""
        self.core.GetInputFocus().reply()
        while (event := self.connection.poll_for_event()) is not None:
            if isinstance(event, xproto.MappingNotifyEvent):
                continue
            self.events.append(event)
        return self.events

    def wait_for(self, kind: type[Any], seconds: float = 5) -> None:
        until(lambda: any(isinstance(event, kind) for event in self.collect()), seconds)

    def told(self) -> list[tuple[Any, ...]]:
        """The recorded input in short: ("press", 1, x, y), ("key", 38), ("move", x, y) ..."""
        names = {2: "key", 3: "key up", 4: "press", 5: "release", 6: "move"}
        told: list[tuple[Any, ...]] = []
        for event in self.collect():
            kind = event.response_type & 0x7F
            if kind in (2, 3):
                told.append((names[kind], event.detail))
            elif kind in (4, 5):
                told.append((names[kind], event.detail, event.root_x, event.root_y))
            elif kind == 6:
                told.append((names[kind], event.root_x, event.root_y))
        return told

    def close(self) -> None:
        self.connection.disconnect()


@contextlib.contextmanager
def painted(display: str, *args: Any) -> Iterator[Client]:
    client = Client(display, *args)
    try:
        yield client
    finally:
        client.close()


def titles(windows: Sequence[Any]) -> list[str]:
    return [window.title for window in windows]
