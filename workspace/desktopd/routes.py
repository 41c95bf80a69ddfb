"""The routes of one desktop, each thin: parse, call, answer. ARCHITECTURE.md has the table."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from workspace import actions as a
from workspace import frames
from workspace.desktopd import applications, queries, terminal, vnc
from workspace.desktopd.files import Files, OpenFile
from workspace.desktopd.programs import Programs
from workspace.desktopd.requests import (
    json_response,
    parse_json,
    parse_query,
    read_body,
    unless_gone,
)
from workspace.desktopd.shell import Shell
from workspace.desktopd.sockets import send_frames
from workspace.errors import InvalidRequest, NotReady, WindowNotFound
from workspace.models import (
    Clipboard,
    Environment,
    FileMove,
    Health,
    Launch,
    ProcessRequest,
    Signal,
    WindowChange,
    WindowMove,
    WindowResize,
)

if TYPE_CHECKING:
    from workspace.desktopd.screen import Screen

_MAX_CLIPBOARD_BYTES = 26 << 20  # 4 Mi characters, escaped
_MAX_WINDOW = (1 << 32) - 1

_PROCESS = TypeAdapter(ProcessRequest)
_SIGNAL = TypeAdapter(Signal)
_ENVIRONMENT: TypeAdapter[dict[str, str]] = TypeAdapter(Environment)
_MOVE = TypeAdapter(FileMove)
_CLIPBOARD = TypeAdapter(Clipboard)
_LAUNCH = TypeAdapter(Launch)
_WINDOW_MOVE = TypeAdapter(WindowMove)
_WINDOW_RESIZE = TypeAdapter(WindowResize)
_WINDOW_CHANGE = TypeAdapter(WindowChange)
_MEDIA_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass
class Desk:
    """What the routes serve. ``screen`` is None until the desktop is up."""

    shell: Shell
    programs: Programs
    files: Files
    vnc_path: str
    screen: Screen | None = None
    started_at: float = field(default_factory=time.monotonic)

    def ready_screen(self) -> Screen:
        if self.screen is None:
            raise NotReady("The desktop is still starting.")
        return self.screen


def _desk(connection: Request | WebSocket) -> Desk:
    desk = connection.app.state.desk
    assert isinstance(desk, Desk)
    return desk


def _done() -> Response:
    return Response(status_code=204)


# Screen, keyboard and mouse.


async def health(request: Request) -> Response:
    desk = _desk(request)
    if desk.screen is None:
        return json_response(NotReady("The desktop is still starting.").to_wire(), status=503)
    uptime = round(time.monotonic() - desk.started_at, 3)
    pss_mib = await asyncio.to_thread(_pss_mib)
    return json_response(
        Health(ready=True, screen=desk.screen.size, uptime_seconds=uptime, pss_mib=pss_mib)
    )


def _pss_mib() -> float | None:
    """This process's share of memory; None where the kernel does not tell."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return None


async def act(request: Request) -> Response:
    screen, query = _desk(request).ready_screen(), parse_query(queries.Act, request)
    body = await read_body(request)
    if body.lstrip()[:1] == b"[":
        actions = parse_json(a.ACTIONS, body)
    else:
        actions = [parse_json(a.ACTION, body)]
    playing = screen.act(actions, settle_ms=query.settle_ms, observe=query.observe)
    return json_response(await unless_gone(request, playing))


async def screenshot(request: Request) -> Response:
    query = parse_query(queries.Picture, request)
    looking = _desk(request).ready_screen().screenshot(query.action())
    image = await unless_gone(request, looking)
    if image.frame is not None and image.frame == frames.known(query.since, request.headers):
        return Response(status_code=304, headers=frames.tags(image.frame))
    return Response(
        image.data, media_type=_MEDIA_TYPES[image.format], headers=frames.headers(image)
    )


async def get_clipboard(request: Request) -> Response:
    text = await unless_gone(request, _desk(request).ready_screen().clipboard())
    return json_response(Clipboard(text=text))


async def put_clipboard(request: Request) -> Response:
    wanted = parse_json(_CLIPBOARD, await read_body(request, _MAX_CLIPBOARD_BYTES))
    await _desk(request).ready_screen().set_clipboard(wanted.text)
    return _done()


async def list_windows(request: Request) -> Response:
    return json_response(_desk(request).ready_screen().windows())


async def focus_window(request: Request) -> Response:
    _desk(request).ready_screen().focus_window(_window(request))
    return _done()


async def close_window(request: Request) -> Response:
    _desk(request).ready_screen().close_window(_window(request))
    return _done()


async def move_window(request: Request) -> Response:
    wanted = parse_json(_WINDOW_MOVE, await read_body(request))
    screen, window = _desk(request).ready_screen(), _window(request)
    return json_response(await unless_gone(request, screen.move_window(window, wanted.x, wanted.y)))


async def resize_window(request: Request) -> Response:
    wanted = parse_json(_WINDOW_RESIZE, await read_body(request))
    screen, window = _desk(request).ready_screen(), _window(request)
    resizing = screen.resize_window(window, wanted.width, wanted.height)
    return json_response(await unless_gone(request, resizing))


async def set_window_state(request: Request) -> Response:
    wanted = parse_json(_WINDOW_CHANGE, await read_body(request))
    screen, window = _desk(request).ready_screen(), _window(request)
    return json_response(await unless_gone(request, screen.set_window_state(window, wanted)))


async def wait_for_window(request: Request) -> Response:
    query = parse_query(queries.WindowWait, request)
    waiting = _desk(request).ready_screen().wait_for_window(**query.model_dump())
    return json_response(await unless_gone(request, waiting))


def _window(request: Request) -> int:
    window = int(request.path_params["window"])
    if window > _MAX_WINDOW:
        raise WindowNotFound(f"There is no window {window}.")
    return window


# Applications.


async def list_applications(request: Request) -> Response:
    query = parse_query(queries.Applications, request)
    return json_response(await applications.listed(_desk(request).programs, **query.model_dump()))


async def launch(request: Request) -> Response:
    wanted = parse_json(_LAUNCH, await read_body(request))
    desk = _desk(request)
    launching = applications.launch(desk.programs, desk.shell, desk.ready_screen(), wanted)
    return json_response(await unless_gone(request, launching))


# Processes.


async def start_process(request: Request) -> Response:
    wanted = parse_json(_PROCESS, await read_body(request))
    shell = _desk(request).shell
    if wanted.background:
        return json_response(await shell.start(wanted))
    return json_response(await unless_gone(request, shell.run(wanted)))


async def list_jobs(request: Request) -> Response:
    return json_response(_desk(request).shell.jobs())


async def poll_job(request: Request) -> Response:
    query = parse_query(queries.Poll, request)
    polling = _desk(request).shell.poll(request.path_params["job"], **query.model_dump())
    return json_response(await unless_gone(request, polling))


async def write_stdin(request: Request) -> Response:
    query = parse_query(queries.Close, request)
    job = request.path_params["job"]
    await _desk(request).shell.write_stdin(job, request.stream(), close=query.close)
    return _done()


async def signal_job(request: Request) -> Response:
    wanted = parse_json(_SIGNAL, await read_body(request))
    _desk(request).shell.signal(request.path_params["job"], wanted.signal)
    return _done()


async def forget_job(request: Request) -> Response:
    await _desk(request).shell.forget(request.path_params["job"])
    return _done()


async def put_environment(request: Request) -> Response:
    wanted = parse_json(_ENVIRONMENT, await read_body(request))
    if any("\0" in value for value in wanted.values()):
        raise InvalidRequest("A variable cannot hold a NUL byte.")
    _desk(request).programs.extend_environment(wanted)
    return _done()


# Files.


class _Download(Response):
    """A file's bytes, read as fast as the caller takes them; closed whatever happens."""

    media_type = "application/octet-stream"

    def __init__(self, file: OpenFile) -> None:
        super().__init__(headers={"content-length": str(file.size)})
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(Request(scope, receive), self._send(send))
        except ClientDisconnect:
            pass
        finally:
            self._file.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self._file.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def read_file(request: Request) -> Response:
    query = parse_query(queries.File, request)
    return _Download(await _desk(request).files.open(query.path))


async def write_file(request: Request) -> Response:
    query = parse_query(queries.Upload, request)
    length = request.headers.get("content-length")
    written = await _desk(request).files.write(
        query.path,
        request.stream(),
        mode=int(query.mode, 8),
        length=int(length) if length is not None else None,
    )
    return json_response(written)


async def remove_file(request: Request) -> Response:
    query = parse_query(queries.Removal, request)
    await _desk(request).files.remove(query.path, recursive=query.recursive)
    return _done()


async def stat_file(request: Request) -> Response:
    query = parse_query(queries.File, request)
    return json_response(await _desk(request).files.stat(query.path))


async def list_files(request: Request) -> Response:
    query = parse_query(queries.Listing, request)
    page = await _desk(request).files.list(query.path, limit=query.limit, after=query.after)
    return json_response(page)


async def make_directory(request: Request) -> Response:
    query = parse_query(queries.File, request)
    return json_response(await _desk(request).files.make_directory(query.path))


async def move_file(request: Request) -> Response:
    wanted = parse_json(_MOVE, await read_body(request))
    moved = await _desk(request).files.move(
        wanted.source, wanted.destination, overwrite=wanted.overwrite
    )
    return json_response(moved)


# WebSockets. What fails before the handshake is answered as an HTTP error.


async def stream_job(websocket: WebSocket) -> None:
    query = parse_query(queries.From, websocket)
    job = websocket.path_params["job"]
    shell = _desk(websocket).shell
    shell.check(job)
    await websocket.accept()
    await send_frames(websocket, shell.stream(job, **query.model_dump()))


async def open_terminal(websocket: WebSocket) -> None:
    query = parse_query(terminal.TerminalQuery, websocket)
    shown = terminal.Terminal(_desk(websocket).programs, query)
    try:
        await websocket.accept()
        await terminal.serve(websocket, shown)
    finally:
        await shown.aclose()


async def watch(websocket: WebSocket) -> None:
    query = parse_query(queries.Watch, websocket)
    desk = _desk(websocket)
    desk.ready_screen()
    server = await vnc.connect(desk.vnc_path)
    try:
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(subprotocol="binary" if "binary" in offered else None)
        await vnc.serve(websocket, query.role, server)
    finally:
        server[1].close()


ROUTES: list[BaseRoute] = [
    Route("/health", health),
    Route("/actions", act, methods=["POST"]),
    Route("/screenshot", screenshot),
    Route("/clipboard", get_clipboard, methods=["GET"]),
    Route("/clipboard", put_clipboard, methods=["PUT"]),
    Route("/windows", list_windows),
    Route("/windows/wait", wait_for_window),
    Route("/windows/{window:int}/move", move_window, methods=["POST"]),
    Route("/windows/{window:int}/resize", resize_window, methods=["POST"]),
    Route("/windows/{window:int}/state", set_window_state, methods=["POST"]),
    Route("/windows/{window:int}/focus", focus_window, methods=["POST"]),
    Route("/windows/{window:int}/close", close_window, methods=["POST"]),
    Route("/applications", list_applications, methods=["GET"]),
    Route("/applications", launch, methods=["POST"]),
    Route("/processes", list_jobs, methods=["GET"]),
    Route("/processes", start_process, methods=["POST"]),
    Route("/processes/{job}", poll_job, methods=["GET"]),
    Route("/processes/{job}", forget_job, methods=["DELETE"]),
    Route("/processes/{job}/stdin", write_stdin, methods=["POST"]),
    Route("/processes/{job}/signal", signal_job, methods=["POST"]),
    WebSocketRoute("/processes/{job}/stream", stream_job),
    WebSocketRoute("/terminal", open_terminal),
    Route("/environment", put_environment, methods=["PUT"]),
    Route("/files", read_file, methods=["GET"]),
    Route("/files", write_file, methods=["PUT"]),
    Route("/files", remove_file, methods=["DELETE"]),
    Route("/files/stat", stat_file),
    Route("/files/list", list_files),
    Route("/files/directory", make_directory, methods=["PUT"]),
    Route("/files/move", move_file, methods=["POST"]),
    WebSocketRoute("/vnc", watch),
]
