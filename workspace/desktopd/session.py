"""The desktop's own programs: X server, session bus, window manager, XFCE's panel and backdrop.

They are started side by side as far as one does not need the other, and waited for by what they
do (a socket that answers, a selection owned, a window mapped), never by time. A program that dies
on the way, or a deadline that passes, is ``StartFailed`` with the last lines it wrote. Once the
desktop is up, the X server's end is the session's end (:attr:`Session.ended`), and all of it can be
started anew (:meth:`Session.restart`); a window manager that ends is started again by itself; of
the others it is logged.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import secrets
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from workspace.desktopd import locality
from workspace.desktopd.children import Child, Children, drain
from workspace.desktopd.config import Config
from workspace.desktopd.look import furnish
from workspace.desktopd.programs import Programs
from workspace.errors import CarrelError, StartFailed, TimedOut
from workspace.models import SessionKind

if TYPE_CHECKING:
    from workspace.desktopd.screen import Screen

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TAIL_BYTES = 4096
_FAMILY_WILD, _FAMILY_LOCAL = 0xFFFF, 256  # of X authority entries
_END_SECONDS = 1.0
_WINDOW_MANAGERS: Mapping[SessionKind, Sequence[str]] = {
    "xfce": ("xfwm4", "--compositor=off"),
    "openbox": ("openbox", "--sm-disable"),
}
_MAX_WINDOW_MANAGERS = 10  # one that keeps dying is not started for ever
_A11Y = "/usr/libexec/at-spi-bus-launcher"
# What every program of the desktop is given; the configuration may say otherwise.
_DEFAULTS: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "TMPDIR": "/tmp",
    "XDG_SESSION_TYPE": "x11",
    # Toolkits that ask for it before they describe their windows to assistive programs.
    "GNOME_ACCESSIBILITY": "1",
    "QT_ACCESSIBILITY": "1",
    "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
}
_NAMES: Mapping[SessionKind, Mapping[str, str]] = {
    "xfce": {
        "XDG_CURRENT_DESKTOP": "XFCE",
        "XDG_MENU_PREFIX": "xfce-",
        "DESKTOP_SESSION": "xfce",
    },
    "openbox": {"XDG_CURRENT_DESKTOP": "openbox", "DESKTOP_SESSION": "openbox"},
}


class _Part:
    """One program of the session and the last lines it wrote."""

    def __init__(self, name: str, child: Child, stderr: int, *, is_needed: bool = True) -> None:
        self.name = name
        self.is_needed = is_needed  # whether the desktop cannot come up without it
        self.child = child
        self._tail = bytearray()
        drain(stderr, self._keep)

    def _keep(self, data: bytes) -> None:
        self._tail += data
        del self._tail[:-_TAIL_BYTES]

    def last_words(self) -> str:
        lines = self._tail.decode("utf-8", "replace").split("\n")
        return "\n".join(line for line in lines[-20:] if line.strip())


class Session:
    """A running desktop; everything it started ends with ``Children.end_all``."""

    def __init__(self, config: Config, children: Children, home: str, runtime: str) -> None:
        self._config = config
        self._children = children
        self._parts: list[_Part] = []
        self._watchers: list[asyncio.Task[None]] = []
        self.folder = os.path.join(runtime, "carrel")
        self._began = time.monotonic()
        self._marks: list[str] = []
        self._window_managers = 1
        self.is_under_way = asyncio.Event()  # only programs have yet to do something, or it failed
        self.ended = asyncio.Event()
        self.vnc_path = os.path.join(self.folder, "vnc")
        self.programs = Programs(
            children,
            dict(_DEFAULTS)
            | dict(_NAMES[config.session])
            | locality.environment(locale=config.locale, timezone=config.timezone)
            | config.defaults
            | config.environment
            | _places(home, runtime, os.path.join(self.folder, "xauthority")),
            oom_score_adj=config.oom_score_adj,
        )

    async def start(self) -> Screen:
        """Start everything; the desktop is ready to act when this returns.

        Raises:
            InvalidRequest: there is no such locale, time zone or keyboard layout here.
            StartFailed: a program is missing or died, or the deadline passed.
        """
        try:
            screen = await asyncio.wait_for(self._start(), self._config.start_seconds)
        except asyncio.TimeoutError as error:
            raise StartFailed(
                f"The desktop was not up after {self._config.start_seconds:g} s; it came to: "
                f"{', '.join(self._marks) or 'nothing'}."
            ) from error
        finally:
            self.is_under_way.set()
        logger.info("The desktop is up: %s.", ", ".join(self._marks))
        for part in self._parts:
            self._watchers.append(asyncio.ensure_future(self._watch(part)))
        self._watchers.append(asyncio.ensure_future(self._watch_screen(screen)))
        for command in self._config.startup:
            try:
                part = self._user_part(command[:80], command)
            except CarrelError as error:
                logger.error("A startup program was not started: %s", error)
            else:
                self._watchers.append(asyncio.ensure_future(self._watch(part)))
        return screen

    async def restart(self) -> Screen:
        """Start everything anew, after the end: X server, bus, programs and startup commands.

        Jobs go on, but those that showed a window have ended with it. Raises like :meth:`start`.
        """
        await self._watch_no_more()
        parts, self._parts = self._parts, []
        ends = asyncio.gather(*(part.child.end() for part in parts))
        try:
            await ends
        except asyncio.TimeoutError as error:
            raise StartFailed("The programs of the desktop that was do not end.") from error
        self._began, self._marks, self._window_managers = time.monotonic(), [], 1
        self.ended.clear()
        return await self.start()

    async def _watch_no_more(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    async def aclose(self) -> None:
        """Stop watching the parts, and ask those that would leave a socket behind to end."""
        await self._watch_no_more()
        leaving = [part.child for part in self._parts if part.name in ("Xtigervnc", "dbus-daemon")]
        for child in leaving:
            child.signal(signal.SIGTERM)
        exits = asyncio.gather(*(child.exited.wait() for child in leaving))
        try:
            await asyncio.wait_for(exits, _END_SECONDS)
        except asyncio.TimeoutError:
            logger.info("The X server or the bus did not end when asked.")

    async def _start(self) -> Screen:
        config = self._config
        locality.check(locale=config.locale, timezone=config.timezone, keyboard=config.keyboard)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        os.makedirs("/tmp/.X11-unix", mode=0o1777, exist_ok=True)
        self._write_cookie()
        starting_x, starting_bus = self._start_x(), self._start_bus()
        furnish(self.programs.home, config.session, config.theme, config.screen.dpi)
        # What the screen needs takes a while to load: meanwhile the programs start.
        loading = asyncio.ensure_future(
            asyncio.to_thread(importlib.import_module, "workspace.desktopd.screen")
        )
        display = f":{int(await self._or_death(starting_x))}"
        self._mark("X")
        address = (await self._or_death(starting_bus)).decode()
        environment = self.programs.environment
        environment |= {"DISPLAY": display, "DBUS_SESSION_BUS_ADDRESS": address}
        os.environ["XAUTHORITY"] = environment["XAUTHORITY"]  # for this process's X connection
        self._mark("bus")
        await self._or_death(self._set_keyboard())
        await self._or_death(self._make_locale())
        self._start_programs()
        await loading
        self._mark("imports")
        return await self._or_death(self._wait_for_desktop(display))

    async def _make_locale(self) -> None:
        """Make the locale that is asked for, if it is not installed."""
        folder = os.path.join(self.folder, "locales")
        making = locality.making(self._config.locale, folder)
        if making is not None:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            # It warns by its exit code of what is no obstacle: it is the locale that counts.
            done = await self._run(making.command)
            if not locality.is_made(self._config.locale, folder):
                raise StartFailed(
                    f"The locale {self._config.locale} could not be made: {done.last_words()}"
                )
            self.programs.environment |= making.environment
            self._mark("locale")

    async def _set_keyboard(self) -> None:
        """Before any program reads the keyboard's map."""
        command = locality.setting_keyboard(self._config.keyboard)
        if command is not None:
            done = await self._run(command)
            if done.child.exit_code != 0:
                raise StartFailed(
                    f"The keyboard {self._config.keyboard} could not be set: {done.last_words()}"
                )
            self._mark("keyboard")

    async def _run(self, command: Sequence[str]) -> _Part:
        """Run a program to its end."""
        self._part(command[0], command, self.programs.environment, is_needed=False)
        part = self._parts.pop()
        await part.child.exited.wait()
        return part

    def _start_window_manager(self) -> None:
        # It has nothing to be read aloud and draws nothing by OpenGL: it starts sooner without.
        environment = self.programs.environment | {"NO_AT_BRIDGE": "1", "GDK_GL": "disable"}
        command = _WINDOW_MANAGERS[self._config.session]
        self._part(command[0], command, environment)

    def _start_programs(self) -> None:
        mine = self.programs.environment
        self._start_window_manager()
        if os.path.exists(_A11Y):
            launch = [_A11Y, "--launch-immediately", "--a11y=1"]
            self._part("at-spi", launch, mine, is_needed=False)

    def _start_panel(self) -> None:
        # What a person starts from these inherits their oom score: they are user programs.
        for name, option in (("xfce4-panel", "-d"), ("xfdesktop", "-D")):
            self._user_part(name, [name, option])

    def _user_part(self, name: str, command: str | list[str]) -> _Part:
        stderr, theirs = os.pipe()
        try:
            child = self.programs.start(command, stderr=theirs)
        except BaseException:
            os.close(stderr)
            raise
        finally:
            os.close(theirs)
        part = _Part(name, child, stderr)
        self._parts.append(part)
        return part

    async def _wait_for_desktop(self, display: str) -> Screen:
        from workspace.desktopd import readiness
        from workspace.desktopd.screen import Screen

        seconds = self._config.start_seconds
        bus = self.programs.environment["DBUS_SESSION_BUS_ADDRESS"]
        screen = await Screen.open(display, bus)
        screen.appearance.dress(self._config.theme, self._config.screen.dpi)
        self._mark("screen")
        if self._config.session == "xfce":
            self._start_panel()
        self.is_under_way.set()
        try:
            await screen.wait_for_window_manager(seconds)
            self._mark("window manager")
            if self._config.session == "openbox":
                screen.appearance.paint_root()
                self._mark("backdrop")
                return screen
            await screen.wait_for_panel(seconds)
            self._mark("panel")
            await readiness.until_painted(screen)
            self._mark("backdrop")
            await readiness.until_rest(screen)
            self._mark("rest")
        except TimedOut as error:
            raise StartFailed(error.message) from error
        return screen

    # The parts.

    def _start_x(self) -> asyncio.Future[bytes]:
        size = self._config.screen
        ready, theirs = os.pipe()
        command = [
            "Xtigervnc", "-displayfd", str(theirs),
            "-geometry", f"{size.width}x{size.height}", "-depth", "24", "-dpi", str(size.dpi),
            "-auth", self.programs.environment["XAUTHORITY"],
            "-nolisten", "tcp", "-noreset", "-s", "0",
            "-rfbport", "-1", "-rfbunixpath", self.vnc_path, "-rfbunixmode", "0600",
            "-SecurityTypes", "None", "-AlwaysShared", "-UseBlacklist=0",
            "-AcceptSetDesktopSize=0", "-AllowOverride", "",
        ]  # fmt: skip
        if self._config.session == "openbox":
            command += ["-extension", "GLX"]  # its libraries are a third of a light desktop
        return self._part_with_pipe("Xtigervnc", command, ready, theirs)

    def _start_bus(self) -> asyncio.Future[bytes]:
        ready, theirs = os.pipe()
        address = f"--address=unix:path={self.folder}/bus"
        command = ["dbus-daemon", "--session", "--nofork", address, f"--print-address={theirs}"]
        return self._part_with_pipe("dbus-daemon", command, ready, theirs)

    def _part_with_pipe(
        self, name: str, command: Sequence[str], ready: int, theirs: int
    ) -> asyncio.Future[bytes]:
        """Start a part that writes a line when it is ready; the line is what comes back."""
        try:
            self._part(name, command, self.programs.environment, pass_fds=[theirs])
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(theirs)
        said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        line = bytearray()

        def hear(data: bytes) -> None:
            line.extend(data)
            if b"\n" in line and not said.done():
                said.set_result(bytes(line).strip())

        drain(ready, hear)
        return said

    def _part(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        *,
        is_needed: bool = True,
    ) -> None:
        stderr, theirs = os.pipe()
        try:
            child = self._children.spawn(
                command, environment=environment, stderr=theirs, pass_fds=pass_fds, name=name
            )
        except OSError as error:
            os.close(stderr)
            raise StartFailed(
                f"{name} cannot be started: {os.strerror(error.errno or 0).lower()}.",
                hint="Install the desktop's programs: `carrel doctor` names the packages.",
            ) from error
        finally:
            os.close(theirs)
        self._parts.append(_Part(name, child, stderr, is_needed=is_needed))

    async def _or_death(self, work: Awaitable[T]) -> T:
        """What ``work`` brings, unless a part of the session dies first."""
        task = asyncio.ensure_future(work)
        deaths = {
            asyncio.ensure_future(part.child.exited.wait()): part
            for part in self._parts
            if part.is_needed
        }
        try:
            await asyncio.wait({task, *deaths}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            part = next(part for death, part in deaths.items() if death.done())
            raise StartFailed(
                f"{part.name} ended with {part.child.exit_code} while the desktop started. "
                f"It said: {part.last_words() or 'nothing'}"
            )
        finally:
            for each in (task, *deaths):
                each.cancel()
            await asyncio.gather(task, *deaths, return_exceptions=True)

    async def _watch(self, part: _Part) -> None:
        await part.child.exited.wait()
        logger.error("%s ended with %s: %s", part.name, part.child.exit_code, part.last_words())
        if part.name == "Xtigervnc":
            self.ended.set()
        elif (
            part.name == _WINDOW_MANAGERS[self._config.session][0]
            and self._window_managers < _MAX_WINDOW_MANAGERS
        ):
            # Without one no window gets the keyboard.
            self._window_managers += 1
            try:
                self._start_window_manager()
            except CarrelError as error:
                logger.error("%s", error)
            else:
                self._parts.remove(part)
                self._watchers.append(asyncio.ensure_future(self._watch(self._parts[-1])))

    async def _watch_screen(self, screen: Screen) -> None:
        await screen.closed.wait()
        try:  # its exit is noticed a moment after its connection, and says more
            await asyncio.wait_for(self.ended.wait(), _END_SECONDS)
        except asyncio.TimeoutError:
            logger.error("The X server closed the daemon's connection.")
            self.ended.set()

    def _mark(self, stage: str) -> None:
        self._marks.append(f"{stage} {(time.monotonic() - self._began) * 1000:.0f} ms")

    def _write_cookie(self) -> None:
        """An Xauthority file that fits whatever display the server picks."""
        cookie = secrets.token_bytes(16)
        # Python's own Xlib does not know what fits any host.
        hosts = ((_FAMILY_WILD, b""), (_FAMILY_LOCAL, socket.gethostname().encode()))
        entries = b""
        for family, host in hosts:
            fields = (host, b"", b"MIT-MAGIC-COOKIE-1", cookie)
            entries += struct.pack(">H", family)
            entries += b"".join(struct.pack(">H", len(field)) + field for field in fields)
        path = self.programs.environment["XAUTHORITY"]
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(entries)


def _places(home: str, runtime: str, xauthority: str) -> dict[str, str]:
    return {"HOME": home, "XDG_RUNTIME_DIR": runtime, "XAUTHORITY": xauthority}
