"""The servers that run in the desktop."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from workspace.desktopd import ports
from workspace.desktopd.requests import json_response


async def list_ports(_request: Request) -> Response:
    return json_response(ports.listening())


async def open_port(websocket: WebSocket) -> None:
    server = await ports.connect(websocket.path_params["port"])
    try:
        await websocket.accept()
        await ports.serve(websocket, server)
    finally:
        server[1].close()


ROUTES: list[BaseRoute] = [
    Route("/ports", list_ports),
    WebSocketRoute("/ports/{port}", open_port),
]
