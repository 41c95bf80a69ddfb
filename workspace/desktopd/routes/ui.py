"""What is on the screen by accessibility: as a tree, by role and name, and marked in a picture."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace.desktopd import queries
from workspace.desktopd.desk import desk_of
from workspace.desktopd.requests import json_response, parse_query, unless_gone


async def tree(request: Request) -> Response:
    query = parse_query(queries.Ui, request)
    reading = (
        desk_of(request)
        .ready_screen()
        .accessibility.tree(
            window=query.window,
            max_nodes=query.max_nodes,
            max_depth=query.max_depth,
            seconds=query.seconds,
            everything=query.all,
        )
    )
    found = await unless_gone(request, reading)
    if query.format == "text":
        return Response(found.as_text(), media_type="text/plain")
    return json_response(found)


async def find(request: Request) -> Response:
    query = parse_query(queries.UiFind, request)
    finding = desk_of(request).ready_screen().accessibility.find(**query.model_dump())
    return json_response(await unless_gone(request, finding))


async def marks(request: Request) -> Response:
    query = parse_query(queries.UiMarks, request)
    marking = desk_of(request).ready_screen().marks(**query.model_dump())
    return json_response(await unless_gone(request, marking))


ROUTES: list[BaseRoute] = [
    Route("/ui", tree),
    Route("/ui/find", find),
    Route("/ui/marks", marks),
]
