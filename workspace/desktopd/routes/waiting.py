"""Waiting for things."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace.desktopd.desk import desk_of
from workspace.desktopd.requests import json_response, parse_json, read_body, unless_gone
from workspace.waits import WAIT


async def wait(request: Request) -> Response:
    wanted = parse_json(WAIT, await read_body(request))
    desk = desk_of(request)
    return json_response(await unless_gone(request, desk.waiting.wait(desk, wanted)))


ROUTES: list[BaseRoute] = [Route("/wait", wait, methods=["POST"])]
