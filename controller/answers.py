"""What the API says of its answers: for each route, every status that it may answer with.

A route names its own errors by their classes (``responses=raises(Conflict)``), a router those that
all its routes have in common; what the gate answers for all of them is :data:`GATED`. An error that
is not told of here is a defect: the tests hold every answer they get to what its route says of
itself, so a new one cannot come in silently. Of ``internal`` alone, which always is a defect,
nothing is said.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import ConfigDict

from controller import access
from workspace.errors import (
    CarrelError,
    Conflict,
    DesktopLost,
    DiskFull,
    Forbidden,
    InvalidRequest,
    NotFound,
    StartFailed,
    TimedOut,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    Unsupported,
    WorkspaceEnded,
)
from workspace.models import ErrorInfo

Responses = dict[int | str, dict[str, Any]]  # Any: FastAPI's own type

# A body of any bytes, of a route that reads them itself.
BYTES: dict[str, Any] = {  # Any: OpenAPI's own words
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Problem(ErrorInfo):
    """Every error: a stable code, what failed and why, and what to do next."""

    details: dict[str, Any] | None = None  # Any: JSON values
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "code": "workspace_not_found",
                "message": "There is no workspace 'k7mq2xw9ra'.",
                "hint": "List the live ones, or create one.",
            }
        }
    )


_SAID: dict[int, str] = {
    401: "No valid key or session came with it",
    403: "The role, the origin or the host may not",
    404: "There is none of that name",
    409: "How things are now does not allow it",
    410: "The workspace has ended",
    413: "It is too large",
    422: "The request itself is wrong",
    429: "Too many: `Retry-After` says when to come again",
    500: "It was tried and failed",
    501: "This cannot be done here",
    502: "The desktop went away: what was asked may have been done",
    503: "What it needs does not answer now, or there is no room",
    504: "It was not so, or not done, in time",
    507: "A disk is full: the database's, the node's or the desktop's",
}
_HEADERS: dict[int, dict[str, Any]] = {  # Any: OpenAPI's own words
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}},
}


# By reference, and not as FastAPI's ``model``: that makes a validator for every status of every
# route, some nine hundred, as soon as the first request comes.
_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def raises(*errors: type[CarrelError]) -> Responses:
    """What a route answers with when it raises one of ``errors``."""
    found: Responses = {}
    for status in sorted({error.status for error in errors}):
        found[status] = {"content": _PROBLEM, "description": _SAID[status]}
        if status in _HEADERS:
            found[status]["headers"] = _HEADERS[status]
    return found


# What the gate, the layers around it and the store answer, whatever is asked.
GATED = raises(Unauthorized, Forbidden, TooLarge, InvalidRequest, TooMany, Unavailable, DiskFull)
# Of a workspace, without asking its desktop.
OF_WORKSPACE = raises(NotFound)
# Of a desktop: it may not be ready or be over, be held by a person, not come up again, go away or
# take too long; and what it says of a file, a window or a program is handed on.
OF_DESKTOP = raises(
    NotFound, Conflict, WorkspaceEnded, StartFailed, Unsupported, DesktopLost, TimedOut
)


def describe(api: FastAPI) -> None:
    """Have the OpenAPI of ``api`` say by what one proves who one is, and where that is needed."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:  # Any: OpenAPI's own words
        is_new = api.openapi_schema is None
        schema = plain()
        if is_new:
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            schemes = schema["components"].setdefault("securitySchemes", {})
            schemes["key"] = {"type": "http", "scheme": "bearer"}
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    rule = access.find(method.upper(), path).rule
                    if rule is not None and rule.least is not None:
                        operation["security"] = [{"key": []}]
        return schema

    api.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
