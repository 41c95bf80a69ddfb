"""The screen: its health, actions and pictures."""

from __future__ import annotations

import time

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace import actions as a
from workspace import frames
from workspace.control import Control
from workspace.desktopd import queries
from workspace.desktopd.desk import desk_of
from workspace.desktopd.requests import (
    json_response,
    parse_json,
    parse_query,
    read_body,
    unless_gone,
)
from workspace.desktopd.threads import in_thread
from workspace.models import Health, ScreenChange

_CHANGE = TypeAdapter(ScreenChange)
_MEDIA_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


async def health(request: Request) -> Response:
    desk = desk_of(request)
    pss_mib = await in_thread(_pss_mib)  # first: all that follows is of one moment
    if desk.screen is None:
        return json_response(desk.not_ready().to_wire(), status=503)
    return json_response(
        Health(
            ready=True,
            screen=desk.screen.size,
            uptime_seconds=round(time.monotonic() - desk.started_at, 3),
            restarts=desk.restarts,
            idle_seconds=round(desk.idle_seconds, 3),
            pss_mib=pss_mib,
            control=_shown(desk.hands.control.told()),
        )
    )


def _shown(control: Control) -> Control:
    """Who has it; not all that they do."""
    return control.model_copy(update={"grant": None, "did": [], "returned": None})


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
    desk, query = desk_of(request), parse_query(queries.Act, request)
    screen = desk.ready_screen()
    body = await read_body(request)
    if body.lstrip()[:1] == b"[":
        actions = parse_json(a.ACTIONS, body)
    else:
        actions = [parse_json(a.ACTION, body)]
    playing = screen.act(
        actions, settle_ms=query.settle_ms, observe=query.observe, hands=desk.hands
    )
    return json_response(desk.telling(await unless_gone(request, playing)))


async def screenshot(request: Request) -> Response:
    query = parse_query(queries.Picture, request)
    looking = desk_of(request).ready_screen().screenshot(query.action())
    image = await unless_gone(request, looking)
    if image.frame is not None and image.frame == frames.known(query.since, request.headers):
        return Response(status_code=304, headers=frames.tags(image.frame))
    return Response(
        image.data, media_type=_MEDIA_TYPES[image.format], headers=frames.headers(image)
    )


async def change(request: Request) -> Response:
    wanted = parse_json(_CHANGE, await read_body(request))
    desk = desk_of(request)
    await desk.hands.agents_turn()
    return json_response(await unless_gone(request, desk.ready_screen().change(wanted)))


ROUTES: list[BaseRoute] = [
    Route("/health", health),
    Route("/screen", change, methods=["POST"]),
    Route("/actions", act, methods=["POST"]),
    Route("/screenshot", screenshot),
]
