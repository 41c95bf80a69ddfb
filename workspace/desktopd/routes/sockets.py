"""WebSockets. What fails before the handshake is answered as an HTTP error."""

from __future__ import annotations

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from workspace.desktopd import queries, terminal, toolservers, vnc
from workspace.desktopd.desk import desk_of
from workspace.desktopd.requests import parse_query
from workspace.desktopd.sockets import send_frames


async def stream_job(websocket: WebSocket) -> None:
    query = parse_query(queries.From, websocket)
    job = websocket.path_params["job"]
    shell = desk_of(websocket).shell
    shell.check(job)
    await websocket.accept()
    await send_frames(websocket, shell.stream(job, **query.model_dump()))


async def open_terminal(websocket: WebSocket) -> None:
    query = parse_query(terminal.TerminalQuery, websocket)
    shown = terminal.Terminal(desk_of(websocket).programs, query)
    try:
        await websocket.accept()
        await terminal.serve(websocket, shown)
    finally:
        await shown.aclose()


async def tools(websocket: WebSocket) -> None:
    server = desk_of(websocket).tools.start(websocket.path_params["name"])
    try:
        await websocket.accept()
        await toolservers.serve(websocket, server)
    finally:
        await server.aclose()


async def watch(websocket: WebSocket) -> None:
    query = parse_query(queries.Watch, websocket)
    desk = desk_of(websocket)
    desk.ready_screen()
    grant = query.grant if query.role == "control" else None
    if query.role == "control":
        desk.hands.control.admit(query.holder, query.grant)
    server = await vnc.connect(desk.vnc_path)
    try:
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(subprotocol="binary" if "binary" in offered else None)
        await vnc.serve(websocket, server, desk.hands, grant)
    finally:
        server[1].close()


ROUTES: list[BaseRoute] = [
    WebSocketRoute("/processes/{job}/stream", stream_job),
    WebSocketRoute("/terminal", open_terminal),
    WebSocketRoute("/tools/{name}", tools),
    WebSocketRoute("/vnc", watch),
]
