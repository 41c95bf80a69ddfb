"""desktopd's face: routes, errors and the token, as one ASGI application.

Every answer that is not a success is ``{"code", "message", "hint"}``: what the tree of
workspace.errors says, an unknown path, a wrong method, a body that is no JSON, and a defect of the
daemon's own (500 ``internal``, with its trace in the log).
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from workspace.desktopd.desk import Desk
from workspace.desktopd.requests import Authorized, on_error
from workspace.desktopd.routes import ROUTES
from workspace.desktopd.timing import Timed
from workspace.desktopd.usage import Counted
from workspace.errors import CarrelError


def create_app(desk: Desk, *, token: str) -> ASGIApp:
    """The application that serves ``desk`` to whoever has the token."""
    app = Starlette(
        routes=ROUTES,
        exception_handlers={
            CarrelError: on_error,
            ClientDisconnect: on_error,
            HTTPException: on_error,
            Exception: on_error,
        },
    )
    app.router.default = _nowhere
    app.state.desk = desk
    return _Probed(Authorized(Timed(Counted(app, desk.usage)), token), desk)


class _Probed:
    """``GET /ready`` for a probe of Kubernetes, which has no token: whether, and nothing else."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/ready" or scope["method"] != "GET":
            return await self._app(scope, receive, send)
        answer = Response(status_code=503 if self._desk.screen is None else 204)
        await answer(scope, receive, send)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Where what no route knows goes; a WebSocket too, which would be refused without a word."""
    raise HTTPException(404)
