"""The browser: pages read, acted on, and what they wrote, asked for and saved."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace import browsing as b
from workspace.desktopd import queries
from workspace.desktopd.desk import desk_of, done
from workspace.desktopd.requests import (
    json_response,
    parse_json,
    parse_query,
    read_body,
    unless_gone,
)

_MAX_STATE_BYTES = 16 << 20
_NAVIGATE = TypeAdapter(b.Navigate)
_TAB = TypeAdapter(b.TabChange)
_ACTIONS = TypeAdapter(b.BrowserActions)
_EVALUATE = TypeAdapter(b.Evaluate)
_WAIT = TypeAdapter(b.WaitPage)
_STATE = TypeAdapter(b.BrowserState)
_TRACE = TypeAdapter(b.TraceChange)


async def navigate(request: Request) -> Response:
    wanted = parse_json(_NAVIGATE, await read_body(request))
    desk = desk_of(request)
    desk.ready_screen()
    return json_response(await unless_gone(request, desk.pages.navigate(wanted)))


async def read(request: Request) -> Response:
    query = parse_query(queries.PageRead, request)
    desk = desk_of(request)
    reading = desk.pages.read(**query.model_dump(), screen=desk.screen)
    return json_response(await unless_gone(request, reading))


async def act(request: Request) -> Response:
    query = parse_query(queries.Act, request)
    wanted = parse_json(_ACTIONS, await read_body(request))
    desk = desk_of(request)
    screen = desk.ready_screen()
    acting = desk.pages.act(wanted, screen, settle_ms=query.settle_ms, observe=query.observe)
    acted = await unless_gone(request, acting)
    return json_response(acted.model_copy(update={"observation": desk.telling(acted.observation)}))


async def tabs(request: Request) -> Response:
    return json_response(await unless_gone(request, desk_of(request).pages.tabs()))


async def change_tab(request: Request) -> Response:
    wanted = parse_json(_TAB, await read_body(request))
    desk = desk_of(request)
    desk.ready_screen()
    return json_response(await unless_gone(request, desk.pages.change_tab(wanted)))


async def evaluate(request: Request) -> Response:
    wanted = parse_json(_EVALUATE, await read_body(request))
    return json_response(await unless_gone(request, desk_of(request).pages.evaluate(wanted)))


async def wait(request: Request) -> Response:
    wanted = parse_json(_WAIT, await read_body(request))
    return json_response(await unless_gone(request, desk_of(request).pages.wait(wanted)))


async def log(request: Request) -> Response:
    query = parse_query(queries.PageLog, request)
    return json_response(
        await unless_gone(request, desk_of(request).pages.log(**query.model_dump()))
    )


async def picture(request: Request) -> Response:
    query = parse_query(queries.PagePicture, request)
    data = await unless_gone(request, desk_of(request).pages.picture(**query.model_dump()))
    return Response(data, media_type=f"image/{query.format}")


async def pdf(request: Request) -> Response:
    query = parse_query(queries.OfTab, request)
    data = await unless_gone(request, desk_of(request).pages.pdf(tab=query.tab))
    return Response(data, media_type="application/pdf")


async def downloads(request: Request) -> Response:
    return json_response(desk_of(request).pages.downloads())


async def cancel_download(request: Request) -> Response:
    cancelling = desk_of(request).pages.cancel_download(request.path_params["download"])
    return json_response(await cancelling)


async def save_state(request: Request) -> Response:
    return json_response(await unless_gone(request, desk_of(request).pages.save_state()))


async def load_state(request: Request) -> Response:
    state = parse_json(_STATE, await read_body(request, _MAX_STATE_BYTES))
    desk = desk_of(request)
    desk.ready_screen()
    await unless_gone(request, desk.pages.load_state(state))
    return done()


async def trace(request: Request) -> Response:
    wanted = parse_json(_TRACE, await read_body(request))
    return json_response(await unless_gone(request, desk_of(request).pages.trace(wanted)))


ROUTES: list[BaseRoute] = [
    Route("/browser/navigate", navigate, methods=["POST"]),
    Route("/browser/read", read),
    Route("/browser/act", act, methods=["POST"]),
    Route("/browser/tabs", tabs, methods=["GET"]),
    Route("/browser/tabs", change_tab, methods=["POST"]),
    Route("/browser/evaluate", evaluate, methods=["POST"]),
    Route("/browser/wait", wait, methods=["POST"]),
    Route("/browser/log", log),
    Route("/browser/picture", picture),
    Route("/browser/pdf", pdf),
    Route("/browser/downloads", downloads),
    Route("/browser/downloads/{download}/cancel", cancel_download, methods=["POST"]),
    Route("/browser/state", save_state, methods=["POST"]),
    Route("/browser/state", load_state, methods=["PUT"]),
    Route("/browser/trace", trace, methods=["POST"]),
]
