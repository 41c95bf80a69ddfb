"""Commands and jobs, and the variables that programs are given."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workspace.desktopd import queries
from workspace.desktopd.desk import desk_of, done
from workspace.desktopd.requests import (
    json_response,
    parse_json,
    parse_query,
    read_body,
    unless_gone,
)
from workspace.errors import InvalidRequest
from workspace.models import Environment, ProcessRequest, Signal

_PROCESS = TypeAdapter(ProcessRequest)
_SIGNAL = TypeAdapter(Signal)
_ENVIRONMENT: TypeAdapter[dict[str, str]] = TypeAdapter(Environment)


async def start_process(request: Request) -> Response:
    wanted = parse_json(_PROCESS, await read_body(request))
    shell = desk_of(request).shell
    if wanted.background:
        return json_response(await shell.start(wanted))
    return json_response(await unless_gone(request, shell.run(wanted)))


async def list_jobs(request: Request) -> Response:
    return json_response(desk_of(request).shell.jobs())


async def poll_job(request: Request) -> Response:
    query = parse_query(queries.Poll, request)
    polling = desk_of(request).shell.poll(request.path_params["job"], **query.model_dump())
    return json_response(await unless_gone(request, polling))


async def write_stdin(request: Request) -> Response:
    query = parse_query(queries.Close, request)
    job = request.path_params["job"]
    await desk_of(request).shell.write_stdin(job, request.stream(), close=query.close)
    return done()


async def signal_job(request: Request) -> Response:
    wanted = parse_json(_SIGNAL, await read_body(request))
    desk_of(request).shell.signal(request.path_params["job"], wanted.signal)
    return done()


async def forget_job(request: Request) -> Response:
    await desk_of(request).shell.forget(request.path_params["job"])
    return done()


async def put_environment(request: Request) -> Response:
    wanted = parse_json(_ENVIRONMENT, await read_body(request))
    if any("\0" in value for value in wanted.values()):
        raise InvalidRequest("A variable cannot hold a NUL byte.")
    desk_of(request).programs.extend_environment(wanted)
    return done()


ROUTES: list[BaseRoute] = [
    Route("/processes", list_jobs, methods=["GET"]),
    Route("/processes", start_process, methods=["POST"]),
    Route("/processes/{job}", poll_job, methods=["GET"]),
    Route("/processes/{job}", forget_job, methods=["DELETE"]),
    Route("/processes/{job}/stdin", write_stdin, methods=["POST"]),
    Route("/processes/{job}/signal", signal_job, methods=["POST"]),
    Route("/environment", put_environment, methods=["PUT"]),
]
