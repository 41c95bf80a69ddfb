"""Control: who has mouse and keyboard."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace.control import Park, Take
from workspace.desktopd import queries
from workspace.desktopd.desk import desk_of, done
from workspace.desktopd.requests import (
    json_response,
    parse_json,
    parse_query,
    read_body,
    unless_gone,
)
from workspace.errors import NotFound

_TAKE = TypeAdapter(Take)
_PARK = TypeAdapter(Park)


async def get(request: Request) -> Response:
    query = parse_query(queries.ControlWatch, request)
    telling = desk_of(request).hands.told(after=query.after, seconds=query.wait_seconds)
    return json_response(await unless_gone(request, telling))


async def take(request: Request) -> Response:
    wanted = parse_json(_TAKE, await read_body(request))
    desk = desk_of(request)
    desk.ready_screen()
    return json_response(await desk.hands.take(wanted))


async def hand_back(request: Request) -> Response:
    query = parse_query(queries.HandBack, request)
    hands = desk_of(request).hands
    await hands.hand_back(query.holder, force=query.force)
    return json_response(await hands.told())


async def collect(request: Request) -> Response:
    query = parse_query(queries.Collect, request)
    returned = await desk_of(request).hands.collect(query.taking)
    if returned is None:
        raise NotFound("That taking goes on, or was collected before.", hint="")
    return json_response(returned)


async def park(request: Request) -> Response:
    wanted = parse_json(_PARK, await read_body(request))
    return json_response(await desk_of(request).hands.park(wanted))


async def unpark(request: Request) -> Response:
    query = parse_query(queries.Unpark, request)
    desk_of(request).hands.unpark(query.ticket)
    return done()


ROUTES: list[BaseRoute] = [
    Route("/control", get, methods=["GET"]),
    Route("/control", take, methods=["POST"]),
    Route("/control", hand_back, methods=["DELETE"]),
    Route("/control/returned", collect, methods=["DELETE"]),
    Route("/control/parked", park, methods=["POST"]),
    Route("/control/parked", unpark, methods=["DELETE"]),
]
