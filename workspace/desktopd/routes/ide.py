"""The IDE: how it is, and one action of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace.desktopd.desk import desk_of
from workspace.desktopd.requests import json_response, parse_json, read_body, unless_gone
from workspace.ide import IDE_ACTION

_MAX_ACTION_BYTES = 16 << 20


async def health(request: Request) -> Response:
    return json_response(await unless_gone(request, desk_of(request).ready_ide().health()))


async def do(request: Request) -> Response:
    wanted = parse_json(IDE_ACTION, await read_body(request, _MAX_ACTION_BYTES))
    return json_response(await unless_gone(request, desk_of(request).ready_ide().do(wanted)))


ROUTES: list[BaseRoute] = [
    Route("/ide", health, methods=["GET"]),
    Route("/ide", do, methods=["POST"]),
]
