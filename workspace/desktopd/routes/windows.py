"""Windows, applications and the clipboard."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace.desktopd import applications, queries
from workspace.desktopd.desk import desk_of, done
from workspace.desktopd.requests import (
    json_response,
    parse_json,
    parse_query,
    read_body,
    unless_gone,
)
from workspace.desktopd.x11.contents import HTML, PNG, TEXT, Contents
from workspace.errors import WindowNotFound
from workspace.models import (
    Clipboard,
    ClipboardContents,
    ClipboardPart,
    Launch,
    WindowChange,
    WindowMove,
    WindowResize,
)
from workspace.waits import WindowOpens

_MAX_CLIPBOARD_BYTES = 26 << 20  # 4 Mi characters, escaped; or 16 MiB in base64
_TARGETS: dict[ClipboardPart, str] = {"text": TEXT, "html": HTML, "image": PNG}
_MAX_WINDOW = (1 << 32) - 1

_CLIPBOARD = TypeAdapter(Clipboard)
_LAUNCH = TypeAdapter(Launch)
_MOVE = TypeAdapter(WindowMove)
_RESIZE = TypeAdapter(WindowResize)
_CHANGE = TypeAdapter(WindowChange)


async def get_clipboard(request: Request) -> Response:
    query = parse_query(queries.ClipboardRead, request)
    asked = tuple(_TARGETS.values()) if query.only is None else (_TARGETS[query.only],)
    clipboard = desk_of(request).ready_screen().clipboard
    found = await unless_gone(request, clipboard.contents(query.selection, only=asked))
    # model_construct: validation would take the picture for base64.
    told = ClipboardContents.model_construct(
        text=found.text, html=found.html, image=found.image, targets=list(found.targets)
    )
    return json_response(told)


async def put_clipboard(request: Request) -> Response:
    query = parse_query(queries.ClipboardWrite, request)
    wanted = parse_json(_CLIPBOARD, await read_body(request, _MAX_CLIPBOARD_BYTES))
    contents = Contents.of(text=wanted.text, html=wanted.html, image=wanted.image)
    await desk_of(request).hands.agents_turn()
    desk_of(request).ready_screen().clipboard.offer(contents, query.selection)
    return done()


async def list_windows(request: Request) -> Response:
    return json_response(desk_of(request).ready_screen().windows.listed())


async def focus_window(request: Request) -> Response:
    await desk_of(request).hands.agents_turn()
    desk_of(request).ready_screen().windows.focus(_window(request))
    return done()


async def close_window(request: Request) -> Response:
    await desk_of(request).hands.agents_turn()
    desk_of(request).ready_screen().windows.close(_window(request))
    return done()


async def move_window(request: Request) -> Response:
    wanted = parse_json(_MOVE, await read_body(request))
    await desk_of(request).hands.agents_turn()
    screen, window = desk_of(request).ready_screen(), _window(request)
    return json_response(
        await unless_gone(request, screen.windows.move(window, wanted.x, wanted.y))
    )


async def resize_window(request: Request) -> Response:
    wanted = parse_json(_RESIZE, await read_body(request))
    await desk_of(request).hands.agents_turn()
    screen, window = desk_of(request).ready_screen(), _window(request)
    resizing = screen.windows.resize(window, wanted.width, wanted.height)
    return json_response(await unless_gone(request, resizing))


async def set_window_state(request: Request) -> Response:
    wanted = parse_json(_CHANGE, await read_body(request))
    await desk_of(request).hands.agents_turn()
    screen, window = desk_of(request).ready_screen(), _window(request)
    return json_response(await unless_gone(request, screen.windows.set_state(window, wanted)))


async def wait_for_window(request: Request) -> Response:
    query = parse_query(queries.WindowWait, request)
    desk = desk_of(request)
    found = await unless_gone(request, desk.waiting.wait(desk, WindowOpens(**query.model_dump())))
    return json_response(found.window)


def _window(request: Request) -> int:
    window = int(request.path_params["window"])
    if window > _MAX_WINDOW:
        raise WindowNotFound(f"There is no window {window}.")
    return window


async def list_applications(request: Request) -> Response:
    query = parse_query(queries.Applications, request)
    return json_response(await applications.listed(desk_of(request).programs, **query.model_dump()))


async def launch(request: Request) -> Response:
    wanted = parse_json(_LAUNCH, await read_body(request))
    desk = desk_of(request)
    await desk.hands.agents_turn()
    launching = applications.launch(desk.programs, desk.shell, desk.ready_screen(), wanted)
    return json_response(await unless_gone(request, launching))


ROUTES: list[BaseRoute] = [
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
]
