"""Starting VS Code on a desktop: a desktop program of its kind, or code-server shown by Chromium.

What Carrel brings lies in :data:`FOLDER`, read-only: the bridge, which is put among the user's
extensions before the IDE looks at them, and code-server for desktops that have no VS Code. What the
IDE keeps lies in :data:`HOME` of the user's home: settings, extensions, the window's own browser
profile. Settings that a person or an agent wrote there stay; those of Carrel's (``settings.json``)
that they have not named are set, so that no dialog, no trust prompt and no side panel comes first.

On failure (nothing there, or what is started ends before it serves): ``Unavailable`` with its last
words, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote

from workspace import ide as i
from workspace.desktopd.browser.chromium import FLAGS
from workspace.desktopd.browser.chromium import NAMES as BROWSERS
from workspace.desktopd.children import Child, drain
from workspace.desktopd.ide.adapter import Launched
from workspace.desktopd.ide.ending import end_children
from workspace.desktopd.programs import Programs, resolve
from workspace.desktopd.threads import in_thread
from workspace.errors import Unavailable

FOLDER = "/opt/carrel/ide"
HOME = ".local/share/carrel-ide"  # in the user's home
DESKTOP_PROGRAMS = ("code", "codium", "windsurf", "cursor")
CODE_SERVER = "code-server"
_ENTRY = "code-server/node_modules/code-server/out/node/entry.js"
_BRIDGE, _SETTINGS, _PYTHON = "carrel-bridge.vsix", "settings.json", "python"
_SERVE_SECONDS = 30.0
_TAIL_BYTES = 4000
_MAX_EXTENSION_BYTES = 64 << 20
_MAX_SETTINGS_BYTES = 4 << 20
_LISTENS = re.compile(rb"listening on http://127\.0\.0\.1:(\d{1,5})/")

_SERVER_FLAGS = (
    "--auth", "none", "--bind-addr", "127.0.0.1:0", "--disable-telemetry",
    "--disable-update-check", "--disable-workspace-trust", "--disable-proxy",
    "--disable-getting-started-override", "--ignore-last-opened",
    # One whose window is gone need not wait for it to come back.
    "--reconnection-grace-time", "5",
)  # fmt: skip
_DESKTOP_FLAGS = (
    "--disable-workspace-trust", "--disable-telemetry", "--disable-updates", "--skip-welcome",
    "--skip-release-notes", "--disable-crash-reporter", "--disable-gpu", "--no-sandbox",
    "--password-store=basic", "--new-window",
)  # fmt: skip


class Place(NamedTuple):
    """Where an IDE keeps what is its user's."""

    data: str
    extensions: str
    browser: str

    @classmethod
    def of(cls, home: str) -> Place:
        own = os.path.join(home, HOME)
        return cls(*(os.path.join(own, name) for name in ("data", "extensions", "browser")))


async def launch(
    programs: Programs,
    settings: i.IdeSettings,
    folder: str,
    shown: Callable[[], Awaitable[None]],
) -> Launched:
    """See :class:`~workspace.desktopd.ide.adapter.Launch`."""
    from workspace.desktopd.ide.vscode import VsCode

    place, token = Place.of(programs.home), secrets.token_urlsafe(24)
    opened = resolve(settings.folder, programs.home)
    own = os.path.join(folder, "ide")
    await in_thread(lambda: _prepare(place, own, opened))
    tail, children = _Tail(), list[Child]()
    environment = {
        "CARREL_IDE_DIR": own,
        "CARREL_IDE_TOKEN": token,
        "CARREL_IDE_PYTHON": os.path.join(FOLDER, _PYTHON),
    }
    adapter = VsCode(own, token, programs.home)
    try:
        program = _program(programs, settings.program)
        if program != CODE_SERVER:
            await shown()
            flags = [f"--user-data-dir={place.data}", f"--extensions-dir={place.extensions}"]
            command = [program, *_DESKTOP_FLAGS, *flags, opened]
            children.append(tail.start(programs, command, environment))
        else:
            await _serve(programs, place, environment, tail, children, opened, shown)
    except BaseException:
        await adapter.aclose()
        await end_children(children)
        raise
    return Launched(adapter, children, tail.last_words)


async def _serve(
    programs: Programs,
    place: Place,
    environment: Mapping[str, str],
    tail: _Tail,
    children: list[Child],
    opened: str,
    shown: Callable[[], Awaitable[None]],
) -> None:
    """Start code-server, and a window that shows it."""
    node, entry = os.path.join(FOLDER, "node/bin/node"), os.path.join(FOLDER, _ENTRY)
    flags = ["--config", os.devnull, "--user-data-dir", place.data]
    flags += ["--extensions-dir", place.extensions, "--app-name", "VS Code"]
    command = [node, entry, *_SERVER_FLAGS, *flags]
    server = tail.start(programs, command, environment)
    children.append(server)
    port = await tail.port_of(server)
    url = f"http://127.0.0.1:{port}/?folder={quote(opened)}"
    with suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(_warm(port), _SERVE_SECONDS)
    await shown()
    children.append(tail.start(programs, _window(programs, place.browser, url), {}))


async def _warm(port: int) -> None:
    """Have it load what it serves with its first answer: there may be no screen yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        await reader.readline()
    finally:
        writer.close()


def _window(programs: Programs, profile: str, url: str) -> list[str]:
    """The command of a Chromium that shows one page, as a program of its own."""
    path = programs.environment.get("PATH")
    browser = next((found for name in BROWSERS if (found := shutil.which(name, path=path))), None)
    if browser is None:
        raise Unavailable(
            "There is no Chromium or Chrome in this desktop to show VS Code.",
            hint="`carrel doctor` names the package for the desktop's machine.",
        )
    # One of another desktop, which had this home and was killed, holds it no more.
    for name in ("SingletonLock", "SingletonSocket", "SingletonCookie"):
        with suppress(OSError):
            os.unlink(os.path.join(profile, name))
    flags = [flag for flag in FLAGS if "remote-debugging" not in flag and "user-data" not in flag]
    return [browser, f"--user-data-dir={profile}", *flags, "--start-maximized", f"--app={url}"]


def _program(programs: Programs, wanted: str | None) -> str:
    """What to run: a desktop program's file, or :data:`CODE_SERVER`.

    Raises:
        Unavailable: that is not here.
    """
    path = programs.environment.get("PATH")
    for name in [wanted] if wanted else DESKTOP_PROGRAMS:
        found = shutil.which(name, path=path) if name != CODE_SERVER else None
        if found is not None:
            return _behind(found)
    is_served = os.path.exists(os.path.join(FOLDER, _ENTRY))
    if wanted in (None, CODE_SERVER) and is_served:
        return CODE_SERVER
    raise Unavailable(
        f"There is no {wanted or 'VS Code'} in this desktop.",
        hint="`make setup-ide` on the node brings code-server; other IDEs are of the image.",
    )


def _behind(command: str) -> str:
    """The program itself: the command of that name asks it to start, and ends."""
    real = os.path.realpath(command)
    folder, name = os.path.split(real)
    program = os.path.join(os.path.dirname(folder), name)
    if os.path.basename(folder) == "bin" and os.path.isfile(program):
        return program
    return real


class _Tail:
    """The last that the IDE's programs wrote."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._has_more = asyncio.Event()

    def start(
        self, programs: Programs, command: Sequence[str], environment: Mapping[str, str]
    ) -> Child:
        read, write = os.pipe()
        try:
            child = programs.start(command, environment=environment, stdout=write, stderr=write)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        drain(read, self._keep)
        return child

    def _keep(self, data: bytes) -> None:
        self._tail += data
        del self._tail[:-_TAIL_BYTES]
        self._has_more.set()

    def last_words(self) -> str:
        return self._tail.decode("utf-8", "replace")

    async def port_of(self, server: Child) -> int:
        """Where it says that it listens."""
        ended = asyncio.ensure_future(server.exited.wait())
        deadline = asyncio.get_running_loop().time() + _SERVE_SECONDS
        try:
            while (found := _LISTENS.search(self._tail)) is None:
                left = deadline - asyncio.get_running_loop().time()
                if server.exit_code is not None or left <= 0:
                    how = "does not serve" if left <= 0 else f"ended with {server.exit_code}"
                    words = self.last_words().strip()[-500:]
                    raise Unavailable(f"code-server {how}. It said: {words or 'nothing'}")
                self._has_more.clear()
                more = asyncio.ensure_future(self._has_more.wait())
                await asyncio.wait({more, ended}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
        finally:
            ended.cancel()
        return int(found[1])


# What it finds when it starts.


def _prepare(place: Place, own: str, opened: str) -> None:
    """Make the folders, the settings, and put the bridge among the extensions."""
    try:
        shutil.rmtree(own, ignore_errors=True)
        os.makedirs(own, mode=0o700)
        for folder in (*place, opened):
            os.makedirs(folder, exist_ok=True)
        _write_settings(os.path.join(place.data, "User", "settings.json"))
        vsix = os.path.join(FOLDER, _BRIDGE)
        if os.path.exists(vsix):  # else it is the image's
            _put_bridge(vsix, place.extensions)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Unavailable(
            f"The IDE's folders cannot be made: {error}.",
            hint="Look at what lies in ~/.local/share/carrel-ide, and at the disk's room.",
        ) from error


def _write_settings(path: str) -> None:
    ours, theirs = _read_json(os.path.join(FOLDER, _SETTINGS), {}), _read_json(path, {})
    # One that is no JSON, but has comments, say, is its writer's alone.
    if isinstance(ours, dict) and isinstance(theirs, dict) and not set(ours) <= set(theirs):
        _write_json(path, {**ours, **theirs})


def _put_bridge(vsix: str, extensions: str) -> None:
    """Unpack it there, in place of another of it, and have it in the list that the IDE reads."""
    with zipfile.ZipFile(vsix) as archive:
        own = json.loads(archive.read("extension/package.json"))
        id_ = f"{own['publisher']}.{own['name']}".lower()
        name = f"{id_}-{own['version']}"
        target = os.path.join(extensions, name)
        size = sum(info.file_size for info in archive.infolist())
        if size > _MAX_EXTENSION_BYTES:
            raise ValueError(f"{vsix} is of {size} bytes")
        shutil.rmtree(target, ignore_errors=True)
        for info in archive.infolist():
            inner = info.filename.partition("extension/")[2]
            if info.filename.startswith("extension/") and inner and not info.is_dir():
                path = os.path.normpath(os.path.join(target, inner))
                if not path.startswith(target + os.sep):
                    raise ValueError(f"{vsix} has the name {info.filename!r}")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(archive.read(info))
    listed = os.path.join(extensions, "extensions.json")
    known = _read_json(listed, [])
    others = [each for each in known if _id_of(each) != id_] if isinstance(known, list) else []
    for entry in os.listdir(extensions):
        if entry.startswith(f"{id_}-") and entry != name:
            shutil.rmtree(os.path.join(extensions, entry), ignore_errors=True)
    mine = {
        "identifier": {"id": id_},
        "version": own["version"],
        "location": {"$mid": 1, "path": target, "scheme": "file"},
        "relativeLocation": name,
        "metadata": {"isApplicationScoped": True, "isMachineScoped": False, "source": "vsix"},
    }
    _write_json(listed, [*others, mine])


def _id_of(entry: object) -> str:
    identifier = entry.get("identifier") if isinstance(entry, dict) else None
    return str(identifier.get("id", "")).lower() if isinstance(identifier, dict) else ""


def _read_json(path: str, default: Any) -> Any:  # Any: JSON values
    """None if it is there and no JSON."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(_MAX_SETTINGS_BYTES))
    except FileNotFoundError:
        return default
    except ValueError:
        return None


def _write_json(path: str, value: object) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
    os.replace(new, path)
