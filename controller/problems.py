"""Errors as they leave the controller: always ``{"code", "message", "hint"}`` with their status.

:class:`Shield` is the outermost layer. It answers whatever comes up through the application, a
defect included (logged with a reference that the hint names), bounds what a request may send, and
turns a caller that went away into silence. An error after an answer has begun cuts the connection,
so that half an answer is never taken for a whole one.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from workspace import logs
from workspace.errors import (
    CarrelError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    TooLarge,
)

MAX_BODY_BYTES = 32 << 20
# The paths whose bodies are streamed through: the desktop, or the server in it, limits them.
_FILES = re.compile(r"/v1/workspaces/[^/]+/files")
_PORTS = re.compile(r"/v1/workspaces/[^/]+/ports/[0-9]+/.*", re.DOTALL)
_NOT_JSON = InvalidRequest(
    "The body is not said to be JSON.", hint="Send it with 'Content-Type: application/json'."
)
_log = logging.getLogger(__name__)


class CallerGone(Exception):
    """The caller hung up; nobody waits for an answer."""


def invalid(
    problems: Sequence[Mapping[str, Any]],  # Any: what pydantic says of each problem
    *,
    where: str = "",
) -> InvalidRequest:
    """What a validation found, as one error that names the first field and what is allowed."""
    fields = [
        {
            "field": _field(problem["loc"]) or where or "body",
            "message": str(problem["msg"]).removeprefix("Value error, "),
        }
        for problem in problems[:10]
    ]
    message = f"{fields[0]['field']}: {fields[0]['message']}"
    if where and fields[0]["field"] != where:
        message = f"{where}: {message}"
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return InvalidRequest(message[:2000], details={"fields": fields})


# What pydantic calls the branches of a union; no field of ours has such a name.
_BRANCH = re.compile(r"(constrained-)?(str|int|float)|(list|literal|dict)\[.*\]")


def _field(location: Sequence[str | int]) -> str:
    parts = location[1:] if location and location[0] in ("body", "query", "path") else location
    return ".".join(str(part) for part in parts if not _BRANCH.fullmatch(str(part)))


def response(error: CarrelError) -> Response:
    """The answer that tells of ``error``."""
    if (request := logs.current()) is not None:
        request.error = error.code
    return JSONResponse(error.to_wire(), status_code=error.status, headers=_headers(error))


def _headers(error: CarrelError) -> Mapping[str, str]:
    if error.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if error.status == 429:
        return {"Retry-After": str(ceil(error.details.get("retry_after_seconds", 1)))}
    if isinstance(error, MethodNotAllowed):
        return {"Allow": ", ".join(error.details.get("methods", ()))}
    return {}


def no_such_path(scope: Scope, methods: Sequence[str]) -> CarrelError:
    """What is told of a path that there is not, or not with that method."""
    if scope["type"] == "websocket":
        return NotFound(
            f"There is no WebSocket {scope['path'][:200]}.",
            hint="A desktop has vnc, terminal and processes/{job}/stream.",
        )
    message = f"There is no {scope['method']} {scope['path'][:200]}."
    hint = "GET /openapi.json names every path."
    if methods:
        return MethodNotAllowed(message, hint=hint, details={"methods": list(methods)})
    return NotFound(message, hint=hint)


async def deny(websocket: WebSocket, error: CarrelError) -> None:
    """Refuse a WebSocket before it is accepted, as an HTTP answer where the server can."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response(error))
    else:
        await websocket.close(4000 + error.status, error.message[:120])


def install(api: FastAPI) -> None:
    """Let ``api`` answer every error of its own in Carrel's form."""

    async def carrel(_request: Request, error: Exception) -> Response:
        assert isinstance(error, CarrelError)
        return response(error)

    async def validation(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = error.errors()
        if isinstance(error.body, bytes) and error.body:  # not even looked at
            return response(_NOT_JSON)
        if problems and problems[0]["type"] == "json_invalid":
            where = problems[0]["loc"][-1]
            reason = problems[0].get("ctx", {}).get("error", "")
            return response(InvalidRequest(f"The body is not JSON: {reason} at character {where}."))
        if not isinstance(error.body, list):  # one action stands for a list of one
            problems = [
                {**problem, "loc": problem["loc"][2:]}
                if problem["loc"][:2] == ("body", 0)
                else problem
                for problem in problems
            ]
        return response(invalid(problems))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, CarrelError):  # from reading the body
            return response(error.__cause__)
        if error.status_code == 400 and error.__cause__ is not None:
            return response(InvalidRequest("The body cannot be read as JSON in UTF-8."))
        return _with_headers(response(_from_http(request, error)), error.headers)

    api.add_exception_handler(CarrelError, carrel)
    api.add_exception_handler(RequestValidationError, validation)
    api.add_exception_handler(HTTPException, http)


def _from_http(request: Request, error: HTTPException) -> CarrelError:
    if error.status_code == 404:
        return no_such_path(request.scope, ())
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return no_such_path(request.scope, allowed.split(", "))
    return InvalidRequest(f"{request.method} {request.url.path[:200]}: {error.detail}")


def _with_headers(answer: Response, headers: Mapping[str, str] | None) -> Response:
    answer.headers.update(headers or {})
    return answer


class Shield:
    """The outermost ASGI layer; see the module's head."""

    def __init__(self, app: ASGIApp, *, is_bounded: bool = True) -> None:
        self._app = app
        self._is_bounded = is_bounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if scope["type"] == "http" and self._is_bounded and not is_streamed(scope):
                receive = _bounded(scope, receive)
            await self._app(scope, receive, sending)
        except (CallerGone, ClientDisconnect):
            return
        except CarrelError as error:
            if started:
                raise
            await answer(error, scope, receive, send)
        except Exception as error:  # the last door: whatever it is, the caller gets an answer
            reference = secrets.token_hex(4)
            # By its route: some paths hold what lets in.
            _log.exception("%s %s failed (%s)", scope["type"], scope.get("rule"), reference)
            if started:
                raise
            hint = f"This is a defect of Carrel. The controller's log has its trace: {reference}."
            told = Internal(f"The request failed: {type(error).__name__}.", hint=hint)
            await answer(told, scope, receive, send)


async def answer(error: CarrelError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request or a WebSocket that has not been answered yet."""
    if scope["type"] == "websocket":
        await deny(WebSocket(scope, receive, send), error)
    else:
        await response(error)(scope, receive, send)


def is_streamed(scope: Scope) -> bool:
    """Whether a request's body is passed on as it comes."""
    if _PORTS.fullmatch(scope["path"]) is not None:
        return True
    return scope["method"] == "PUT" and _FILES.fullmatch(scope["path"]) is not None


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """``receive`` that refuses a body longer than MAX_BODY_BYTES, before it is read if possible."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise _too_large()
    left = MAX_BODY_BYTES

    async def receiving() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                raise _too_large()
        return message

    return receiving


def _too_large() -> TooLarge:
    return TooLarge(
        f"The body is longer than {MAX_BODY_BYTES >> 20} MiB.",
        hint="Send large data as a file: PUT .../files?path=...",
    )
