"""Desktop: the client of one desktop.

The same class speaks to ``desktopd`` itself (the controller and the tests do, over a unix socket
or a pod's address) and to the controller's ``/v1/workspaces/{id}`` (the SDK does): both serve the
same paths. What comes back is parsed into models and limited in size.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from workspace import actions as a
from workspace import frames, transport
from workspace.errors import DesktopLost, TooLarge
from workspace.models import (
    ApplicationList,
    Clipboard,
    Environment,
    FileInfo,
    FileList,
    FileMove,
    Health,
    Job,
    Launch,
    Launched,
    ProcessRequest,
    ProcessResult,
    Signal,
    Window,
    WindowChange,
    WindowMove,
    WindowResize,
)
from workspace.transport import asked

if TYPE_CHECKING:
    from workspace.backends.base import Endpoint

# How long past the work it was asked for a desktop may take to answer.
GRACE_SECONDS = 15.0
STDIN_SECONDS = 30.0  # how long the daemon waits for a command that reads nothing
P = ParamSpec("P")
T = TypeVar("T")
_JOBS = TypeAdapter(list[Job])
_WINDOWS = TypeAdapter(list[Window])


def connect(endpoint: Endpoint) -> Desktop:
    """A client straight to the daemon at ``endpoint``; close it with ``aclose``."""
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    if endpoint.url.startswith("unix://"):
        wire = httpx.AsyncHTTPTransport(
            uds=endpoint.url.removeprefix("unix://"),
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=20),
        )
        http = httpx.AsyncClient(transport=wire, base_url="http://desktop", headers=headers)
    else:
        http = httpx.AsyncClient(base_url=endpoint.url, headers=headers, trust_env=False)
    return Desktop(http)


class Desktop:
    """One desktop: screen, keyboard, mouse, shell, files, clipboard, windows.

    Every method may raise :class:`~workspace.errors.DesktopLost` (the connection broke; nothing is
    retried) and :class:`~workspace.errors.TimedOut`.
    """

    def __init__(self, http: httpx.AsyncClient, *, prefix: str = "") -> None:
        self._http = http
        self._prefix = prefix

    async def aclose(self) -> None:
        await self._http.aclose()

    async def health(self) -> Health:
        return _parse(Health.model_validate_json, await self._call("GET", "/health"))

    # Screen, keyboard and mouse.

    async def act(
        self,
        *actions: a.Action,
        settle_ms: int = 1500,
        observe: a.Observe = "frame",
    ) -> a.Observation:
        """Play the actions in order, stopping at the first failure; see ``CanAct.act``.

        Once they are done, wait until the screen has changed and come to rest, ``settle_ms`` at
        most (0: do not wait). ``observe="frame"`` brings a screenshot and the effect that was
        seen.
        """
        work = sum(getattr(action, "seconds", 0.0) for action in actions)
        work += sum(len(action.text) * 0.05 for action in actions if isinstance(action, a.Type))
        body = await self._call(
            "POST",
            "/actions",
            params={"settle_ms": settle_ms, "observe": observe},
            content=a.ACTIONS.dump_json(list(actions)),
            headers={"Content-Type": "application/json"},
            seconds=work + settle_ms / 1000,
        )
        return _parse(a.Observation.model_validate_json, body)

    async def _just(
        self, kind: Callable[P, a.Action], *args: P.args, **fields: P.kwargs
    ) -> a.Observation:
        return await self.act(asked(kind, *args, **fields), settle_ms=0, observe="none")

    async def screenshot(
        self,
        *,
        format: a.ImageFormat = "jpeg",
        quality: int = 80,
        scale: float = 1.0,
        region: a.Region | None = None,
        cursor: bool = True,
    ) -> bytes:
        """The encoded picture of the screen or of a region of it."""
        _, picture = await self._look(None, format, quality, scale, region, cursor)
        return picture

    async def screenshot_since(
        self,
        frame: str | None,
        *,
        format: a.ImageFormat = "jpeg",
        quality: int = 80,
        scale: float = 1.0,
        region: a.Region | None = None,
        cursor: bool = True,
    ) -> a.Image | None:
        """The picture as it is now; None if it is still ``frame``, an ``Image.frame`` of before."""
        answer, picture = await self._look(frame, format, quality, scale, region, cursor)
        if frame is not None and answer.status_code == httpx.codes.NOT_MODIFIED:
            return None
        return _parse(lambda data: frames.image(format, answer.headers, data), picture)

    async def _look(
        self,
        since: str | None,
        format: a.ImageFormat,
        quality: int,
        scale: float,
        region: a.Region | None,
        cursor: bool,
    ) -> tuple[httpx.Response, bytes]:
        params: dict[str, str | int | float] = {
            "format": format,
            "quality": quality,
            "scale": scale,
            "cursor": str(cursor).lower(),
        }
        if region is not None:
            params |= region.model_dump()
        if since is not None:
            params["since"] = since
        return await transport.answer(
            self._http,
            "GET",
            self._prefix + "/screenshot",
            params=params,
            timeout=transport.timeout(GRACE_SECONDS),
        )

    async def zoom(self, region: a.Region, *, width: int | None = None) -> a.Image:
        """A region at the screen's own resolution, as a picture to read."""
        observation = await self._just(a.Zoom, region=region, width=width)
        assert observation.screenshot is not None, "a zoom brings a picture"
        return observation.screenshot

    async def cursor_position(self) -> tuple[int, int]:
        return (await self._just(a.CursorPosition)).cursor

    async def move(self, x: int, y: int) -> a.Observation:
        return await self._just(a.Move, x=x, y=y)

    async def click(
        self,
        x: int | None = None,
        y: int | None = None,
        *,
        button: a.Button = "left",
        count: int = 1,
        modifiers: Sequence[str] = (),
    ) -> a.Observation:
        return await self._just(
            a.Click, x=x, y=y, button=button, count=count, modifiers=list(modifiers)
        )

    async def double_click(self, x: int | None = None, y: int | None = None) -> a.Observation:
        return await self.click(x, y, count=2)

    async def right_click(self, x: int | None = None, y: int | None = None) -> a.Observation:
        return await self.click(x, y, button="right")

    async def mouse_down(
        self, x: int | None = None, y: int | None = None, *, button: a.Button = "left"
    ) -> a.Observation:
        return await self._just(a.MouseDown, x=x, y=y, button=button)

    async def mouse_up(
        self, x: int | None = None, y: int | None = None, *, button: a.Button = "left"
    ) -> a.Observation:
        return await self._just(a.MouseUp, x=x, y=y, button=button)

    async def drag(
        self,
        *path: tuple[int, int],
        button: a.Button = "left",
        modifiers: Sequence[str] = (),
    ) -> a.Observation:
        return await self._just(a.Drag, path=list(path), button=button, modifiers=list(modifiers))

    async def scroll(
        self,
        x: int | None = None,
        y: int | None = None,
        *,
        dx: int = 0,
        dy: int = 0,
        modifiers: Sequence[str] = (),
    ) -> a.Observation:
        return await self._just(a.Scroll, x=x, y=y, dx=dx, dy=dy, modifiers=list(modifiers))

    async def type(self, text: str) -> a.Observation:
        return await self._just(a.Type, text=text)

    async def key(self, chord: str, *, repeat: int = 1) -> a.Observation:
        return await self._just(a.Key, chord=chord, repeat=repeat)

    async def key_down(self, chord: str) -> a.Observation:
        return await self._just(a.KeyDown, chord=chord)

    async def key_up(self, chord: str) -> a.Observation:
        return await self._just(a.KeyUp, chord=chord)

    async def hold_key(self, chord: str, seconds: float) -> a.Observation:
        return await self._just(a.HoldKey, chord=chord, seconds=seconds)

    async def wait(self, seconds: float) -> a.Observation:
        return await self._just(a.Wait, seconds=seconds)

    # Shell.

    async def run(
        self,
        command: str | list[str],
        *,
        timeout_seconds: float = 30,
        cwd: str = "/home/user",
        environment: Environment | None = None,
        stdin: str | None = None,
    ) -> ProcessResult:
        """Run a command to its end.

        Raises:
            CommandTimedOut: it was ended after ``timeout_seconds``; ``details`` hold the
                ``stdout`` and ``stderr`` that it had written.
        """
        request = asked(
            ProcessRequest,
            command=command,
            timeout_seconds=timeout_seconds,
            cwd=cwd,
            environment=environment or {},
            stdin=stdin,
        )
        return _parse(ProcessResult.model_validate_json, await self._start(request))

    async def start(
        self,
        command: str | list[str],
        *,
        cwd: str = "/home/user",
        environment: Environment | None = None,
        stdin: str | None = None,
    ) -> Job:
        """Start a command in the background; poll it with :meth:`poll`."""
        request = asked(
            ProcessRequest,
            command=command,
            background=True,
            cwd=cwd,
            environment=environment or {},
            stdin=stdin,
        )
        return _parse(Job.model_validate_json, await self._start(request))

    async def _start(self, request: ProcessRequest) -> bytes:
        return await self._call(
            "POST",
            "/processes",
            json=request.model_dump(exclude_defaults=True),
            seconds=0 if request.background else request.timeout_seconds,
        )

    async def jobs(self) -> list[Job]:
        """The background commands, without their output."""
        return _parse(_JOBS.validate_json, await self._call("GET", "/processes"))

    async def poll(
        self, job: str, *, wait_seconds: float = 0, stdout_from: int = 0, stderr_from: int = 0
    ) -> Job:
        """A job and its output from those offsets on, once it ends or ``wait_seconds`` pass."""
        params = {
            "wait_seconds": wait_seconds,
            "stdout_from": stdout_from,
            "stderr_from": stderr_from,
        }
        body = await self._call(
            "GET", f"/processes/{_segment(job)}", params=params, seconds=wait_seconds
        )
        return _parse(Job.model_validate_json, body)

    async def send_stdin(self, job: str, data: bytes, *, close: bool = False) -> None:
        await self._call(
            "POST",
            f"/processes/{_segment(job)}/stdin",
            content=data,
            params={"close": str(close).lower()},
            seconds=STDIN_SECONDS,
        )

    async def signal(self, job: str, signal: str = "TERM") -> None:
        """Signal a job and all that it started in its process group."""
        body = asked(Signal.model_validate, {"signal": signal})
        await self._call("POST", f"/processes/{_segment(job)}/signal", json=body.model_dump())

    async def forget(self, job: str) -> None:
        """Kill a job if it still runs, and drop its output."""
        await self._call("DELETE", f"/processes/{_segment(job)}")

    async def set_environment(self, environment: Environment) -> None:
        """Variables for every program started from now on."""
        await self._call("PUT", "/environment", json=dict(environment))

    # Files. Relative paths start in /home/user.

    def open_file(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A file's bytes as they come: ``async with desktop.open_file(p) as chunks``."""
        return self._download("/files", {"path": path})

    @asynccontextmanager
    async def _download(
        self, url: str, params: dict[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with transport.stream(
            self._http,
            "GET",
            self._prefix + url,
            params=params,
            timeout=transport.timeout(GRACE_SECONDS),
        ) as response:
            yield response.aiter_bytes()

    async def read_file(self, path: str, *, limit: int = 32 << 20) -> bytes:
        """A whole file, at most ``limit`` bytes.

        Raises:
            TooLarge: it is longer; use :meth:`open_file`.
        """
        data = bytearray()
        async with self.open_file(path) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > limit:
                    raise TooLarge(
                        f"{path} is longer than {limit} bytes.", hint="Read it as a stream."
                    )
        return bytes(data)

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: str = "644"
    ) -> FileInfo:
        """Write a file whole, creating folders on the way; it appears only when complete."""
        body = await self._call(
            "PUT",
            "/files",
            params={"path": path, "mode": mode},
            content=data,
            seconds=3600,
        )
        return _parse(FileInfo.model_validate_json, body)

    async def list_files(
        self, path: str = "/home/user", *, limit: int = 1000, after: str | None = None
    ) -> FileList:
        params: dict[str, str | int] = {"path": path, "limit": limit}
        if after is not None:
            params["after"] = after
        return _parse(
            FileList.model_validate_json, await self._call("GET", "/files/list", params=params)
        )

    async def stat(self, path: str) -> FileInfo:
        body = await self._call("GET", "/files/stat", params={"path": path})
        return _parse(FileInfo.model_validate_json, body)

    async def make_directory(self, path: str) -> FileInfo:
        body = await self._call("PUT", "/files/directory", params={"path": path})
        return _parse(FileInfo.model_validate_json, body)

    async def move_file(
        self, source: str, destination: str, *, overwrite: bool = False
    ) -> FileInfo:
        body = asked(FileMove, source=source, destination=destination, overwrite=overwrite)
        return _parse(
            FileInfo.model_validate_json,
            await self._call("POST", "/files/move", json=body.model_dump()),
        )

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        await self._call(
            "DELETE", "/files", params={"path": path, "recursive": str(recursive).lower()}
        )

    # Clipboard and windows.

    async def clipboard(self) -> str:
        return _parse(Clipboard.model_validate_json, await self._call("GET", "/clipboard")).text

    async def set_clipboard(self, text: str) -> None:
        await self._call("PUT", "/clipboard", json=asked(Clipboard, text=text).model_dump())

    async def windows(self) -> list[Window]:
        return _parse(_WINDOWS.validate_json, await self._call("GET", "/windows"))

    async def wait_for_window(
        self, *, title: str | None = None, window_class: str | None = None, seconds: float = 15
    ) -> Window:
        """The window with those texts in its title and class, once it is on the screen.

        Raises:
            TimedOut: none came; the hint has the titles that there are.
        """
        params: dict[str, str | float] = {"seconds": seconds}
        if title is not None:
            params["title"] = title
        if window_class is not None:
            params["window_class"] = window_class
        body = await self._call("GET", "/windows/wait", params=params, seconds=seconds)
        return _parse(Window.model_validate_json, body)

    async def move_window(self, window: int, x: int, y: int) -> Window:
        """Move a window's box; it comes back as the window manager then left it."""
        return await self._arrange(window, "move", asked(WindowMove, x=x, y=y))

    async def resize_window(self, window: int, width: int, height: int) -> Window:
        """Resize a window, without its frame; it comes back as it then is."""
        return await self._arrange(
            window, "resize", asked(WindowResize, width=width, height=height)
        )

    async def set_window_state(self, window: int, state: str) -> Window:
        """Make a window ``normal``, ``minimised``, ``maximised`` or ``fullscreen``."""
        change = asked(WindowChange.model_validate, {"state": state})
        return await self._arrange(window, "state", change)

    async def _arrange(
        self, window: int, how: str, wanted: WindowMove | WindowResize | WindowChange
    ) -> Window:
        body = await self._call("POST", f"/windows/{window}/{how}", json=wanted.model_dump())
        return _parse(Window.model_validate_json, body)

    async def focus_window(self, window: int) -> None:
        await self._call("POST", f"/windows/{window}/focus")

    async def close_window(self, window: int) -> None:
        await self._call("POST", f"/windows/{window}/close")

    async def applications(self, *, limit: int = 500, after: str | None = None) -> ApplicationList:
        """The applications that are installed, by the names that :meth:`launch` takes."""
        params: dict[str, str | int] = {"limit": limit}
        if after is not None:
            params["after"] = after
        body = await self._call("GET", "/applications", params=params)
        return _parse(ApplicationList.model_validate_json, body)

    async def launch(
        self, name: str, arguments: Sequence[str] = (), *, wait_seconds: float = 15
    ) -> Launched:
        """Start an application by name ("mousepad") and wait for its window.

        Raises:
            ApplicationNotFound: there is none of that name; the hint has the nearest.
        """
        request = asked(Launch, name=name, arguments=list(arguments), wait_seconds=wait_seconds)
        body = await self._call(
            "POST", "/applications", json=request.model_dump(), seconds=wait_seconds
        )
        return _parse(Launched.model_validate_json, body)

    async def _call(
        self, method: str, url: str, *, seconds: float = 0, **options: Any
    ) -> bytes:  # Any: httpx's own request options
        return await transport.request(
            self._http,
            method,
            self._prefix + url,
            timeout=transport.timeout(seconds + GRACE_SECONDS),
            **options,
        )


def _parse(read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except ValueError as error:  # not its text: that repeats what the desktop said
        raise DesktopLost("The desktop answered what no desktop says.") from error


def _segment(text: str) -> str:
    # Dots too: as ".." it would be another path.
    return quote(text, safe="").replace(".", "%2E")
