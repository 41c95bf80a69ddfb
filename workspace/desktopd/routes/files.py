"""Files."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from workspace.desktopd import queries
from workspace.desktopd.desk import desk_of, done
from workspace.desktopd.files import OpenFile
from workspace.desktopd.requests import (
    json_response,
    parse_json,
    parse_query,
    read_body,
    unless_gone,
)
from workspace.models import FileMove

_MOVE = TypeAdapter(FileMove)


class Download(Response):
    """A file's bytes, read as fast as the caller takes them; closed whatever happens."""

    def __init__(self, file: OpenFile, media_type: str = "application/octet-stream") -> None:
        super().__init__(headers={"content-length": str(file.size)}, media_type=media_type)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(Request(scope, receive), self._send(send))
        except ClientDisconnect:
            pass
        finally:
            self._file.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self._file.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def read_file(request: Request) -> Response:
    query = parse_query(queries.File, request)
    return Download(await desk_of(request).files.open(query.path))


async def write_file(request: Request) -> Response:
    query = parse_query(queries.Upload, request)
    length = request.headers.get("content-length")
    written = await desk_of(request).files.write(
        query.path,
        request.stream(),
        mode=int(query.mode, 8),
        length=int(length) if length is not None else None,
    )
    return json_response(written)


async def remove_file(request: Request) -> Response:
    query = parse_query(queries.Removal, request)
    await desk_of(request).files.remove(query.path, recursive=query.recursive)
    return done()


async def stat_file(request: Request) -> Response:
    query = parse_query(queries.File, request)
    return json_response(await desk_of(request).files.stat(query.path))


async def list_files(request: Request) -> Response:
    query = parse_query(queries.Listing, request)
    page = await desk_of(request).files.list(query.path, limit=query.limit, after=query.after)
    return json_response(page)


async def make_directory(request: Request) -> Response:
    query = parse_query(queries.File, request)
    return json_response(await desk_of(request).files.make_directory(query.path))


async def move_file(request: Request) -> Response:
    wanted = parse_json(_MOVE, await read_body(request))
    moved = await desk_of(request).files.move(
        wanted.source, wanted.destination, overwrite=wanted.overwrite
    )
    return json_response(moved)


ROUTES: list[BaseRoute] = [
    Route("/files", read_file, methods=["GET"]),
    Route("/files", write_file, methods=["PUT"]),
    Route("/files", remove_file, methods=["DELETE"]),
    Route("/files/stat", stat_file),
    Route("/files/list", list_files),
    Route("/files/directory", make_directory, methods=["PUT"]),
    Route("/files/move", move_file, methods=["POST"]),
]
