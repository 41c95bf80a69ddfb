"""Reading requests and answering them: limits, models, and every failure as one kind of error.

Nothing a caller sends makes a 5xx: what cannot be parsed is ``invalid_request`` and names the
field. A caller that goes away cancels the work that it asked for.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from workspace.errors import (
    CarrelError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthorized,
)

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 << 20
_JSON = TypeAdapter[Any](Any)  # Any: JSON values
_SHOWN_FAULTS = 10

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def json_response(value: object, *, status: int = 200) -> Response:
    """JSON of a model, a list of models, or plain values."""
    return Response(_JSON.dump_json(value), status, media_type="application/json")


def parse_query(model: type[M], connection: HTTPConnection) -> M:
    """The query as ``model``; InvalidRequest names the field that is wrong."""
    try:
        return model.model_validate(dict(connection.query_params))
    except ValidationError as error:
        raise _from_validation(error, "query") from error


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body; TooLarge when it is longer than ``limit`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"The body is longer than {limit} bytes.")
    return bytes(body)


def parse_json(kind: TypeAdapter[T], body: bytes) -> T:
    """The JSON body as ``kind``; InvalidRequest names the field that is wrong."""
    try:
        return kind.validate_json(body)
    except ValidationError as error:
        raise _from_validation(error, "body") from error


def _from_validation(error: ValidationError, part: str) -> InvalidRequest:
    faults = [
        {"field": ".".join([part, *map(str, fault["loc"])]), "message": fault["msg"]}
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ][:_SHOWN_FAULTS]
    told = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults[:3])
    return InvalidRequest(told, details={"errors": faults})


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:  # Any: asyncio's own
    """Await ``work``, cancelling it when the caller goes away; the body must have been read.

    Raises:
        ClientDisconnect: it went away, and the work has been cancelled.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watcher = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


# Errors.


def on_error(connection: HTTPConnection, error: Exception) -> Response:
    """The answer for whatever was raised."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody hears it
    told = _as_carrel_error(connection, error)
    response = json_response(told.to_wire(), status=told.status)
    if int(connection.headers.get("content-length") or 0) > 0 or (
        "transfer-encoding" in connection.headers
    ):
        # The body may not have been read: without this the server would take all of it.
        response.headers["connection"] = "close"
    return response


def _as_carrel_error(connection: HTTPConnection, error: Exception) -> CarrelError:
    path = connection.url.path
    if isinstance(error, CarrelError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotFound(f"There is nothing at {path}.", hint="Check the path.")
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return MethodNotAllowed(f"{path} is not served so.", hint=f"Use {allowed}.")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return InvalidRequest(error.detail)
    logger.error("A request for %s failed.", path, exc_info=error)
    return Internal("The desktop's daemon failed.")


class Authorized:
    """Lets only requests with the token through, HTTP and WebSocket alike."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            given = [value for name, value in scope["headers"] if name == b"authorization"]
            if len(given) != 1 or not hmac.compare_digest(given[0], self._expected):
                error = Unauthorized("The token is missing or wrong.")
                await on_error(HTTPConnection(scope), error)(scope, receive, send)
                return
        try:
            await self._app(scope, receive, send)
        except WebSocketDisconnect:
            pass  # it went away while it was being answered
