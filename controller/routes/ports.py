"""The servers that run in a desktop: which there are, the way to one, and one by a path."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Body, Path, Request, Response, WebSocket
from starlette.types import Receive, Scope, Send

from controller import answers
from controller.ports.cleaning import Place
from controller.ports.layer import forward, raw
from controller.ports.origins import Target
from controller.problems import deny
from controller.routes import Id, caller, desktop, parts, recorded
from workspace.errors import CarrelError, InvalidRequest, Unauthorized, Unsupported
from workspace.ports import ListeningPort, PortAccess, PortNumber, PortRequest, port_of

router = APIRouter(
    prefix="/v1/workspaces/{workspace_id}/ports", tags=["ports"], responses=answers.OF_DESKTOP
)
sockets = APIRouter(prefix="/v1/workspaces/{workspace_id}/ports")
Number = Annotated[PortNumber, Path(description="a TCP port in the desktop")]
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_BELOW = re.compile(rb"/v1/workspaces/[^/]+/ports/[0-9]+(/.*)", re.DOTALL)


@router.get("")
async def page(request: Request, workspace_id: Id) -> list[ListeningPort]:
    """The ports that something in the desktop listens on."""
    return await (await desktop(request, workspace_id)).ports()


@router.post("/{port}")
async def open_port(
    request: Request,
    response: Response,
    workspace_id: Id,
    port: Number,
    body: Annotated[PortRequest | None, Body()] = None,
) -> PortAccess:
    """A way for a person's browser to a server in the desktop, on an origin of its own."""
    own, target = parts(request), Target(workspace_id, port)
    origin = own.origins.of(target)
    if origin is None:
        raise Unsupported(
            "This controller has no names for servers in desktops.",
            hint="Whoever runs it sets CARREL_PORTS_HOST. With a key in the Authorization header "
            f"GET /v1/workspaces/{workspace_id}/ports/{port}/ reaches it.",
        )
    await own.lifecycle.get(workspace_id)
    async with recorded(request, workspace_id, "port_opened", port=port):
        token, expiry = own.auth.enter_token(caller(request), target)
    response.headers["Cache-Control"] = "no-store"
    path = quote((body or PortRequest()).path, safe="/?=:@!$'()*+,;")
    return PortAccess(
        port=port,
        url=f"{origin}/.carrel/enter#{token}&{path}",
        origin=origin,
        expires_at=datetime.fromtimestamp(expiry, timezone.utc),
    )


@router.api_route(
    "/{port}/{path:path}", methods=_METHODS, include_in_schema=False, response_class=Response
)
async def through(request: Request, workspace_id: Id, port: str, path: str) -> Response:
    """A request as it is, to a server in the desktop."""
    return _Through()


@sockets.websocket("/{port}/{path:path}")
async def socket(websocket: WebSocket, workspace_id: str, port: str, path: str) -> None:
    """A WebSocket of that server, likewise."""
    try:
        await _Through()(websocket.scope, websocket.receive, websocket.send)
    except CarrelError as error:
        await deny(websocket, error)


class _Through(Response):
    """Whatever the server that the path names answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number, workspace_id = scope["path_params"]["port"], scope["path_params"]["workspace_id"]
        target = Target(workspace_id, port_of(number))
        if not any(name == b"authorization" for name, _ in scope["headers"]):
            raise Unauthorized(
                "Servers in desktops are reached here by a key in the Authorization header only.",
                hint="For a browser ask for an address: POST the same path without what follows "
                "the port.",
            )
        match = _BELOW.fullmatch(raw(scope))
        if match is None:
            raise InvalidRequest("This path is written in a way that is not served.")
        place = Place(target.port, prefix=f"/v1/workspaces/{workspace_id}/ports/{number}")
        await forward(scope, receive, send, target, place, match[1])
