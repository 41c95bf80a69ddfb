"""The recording of the screen."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace.desktopd.desk import desk_of, done
from workspace.desktopd.requests import json_response, parse_json, read_body
from workspace.desktopd.routes.files import Download
from workspace.models import RecordingRequest

_RECORDING = TypeAdapter(RecordingRequest)


async def start(request: Request) -> Response:
    wanted = parse_json(_RECORDING, await read_body(request) or b"{}")
    desk = desk_of(request)
    return json_response(await desk.recorder.start(desk.ready_screen().film, wanted))


async def status(request: Request) -> Response:
    return json_response(desk_of(request).recorder.status())


async def stop(request: Request) -> Response:
    return json_response(await desk_of(request).recorder.stop())


async def forget(request: Request) -> Response:
    await desk_of(request).recorder.forget()
    return done()


async def download(request: Request) -> Response:
    return Download(await desk_of(request).recorder.open(), "video/mp4")


ROUTES: list[BaseRoute] = [
    Route("/recording", start, methods=["POST"]),
    Route("/recording", status, methods=["GET"]),
    Route("/recording", forget, methods=["DELETE"]),
    Route("/recording/stop", stop, methods=["POST"]),
    Route("/recording/file", download),
]
