"""The browser of a desktop for clients of their own: the Chrome DevTools Protocol, as it is.

Whoever takes an address for it (Playwright, Puppeteer, browser-use) may send no headers, so what
lets it in stands in the address: a token of one desktop, which expires, and is good only as long as
the key that it was made with. The log and the metrics know the route and never the token.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Annotated

import anyio
from fastapi import APIRouter, Body, Request, Response, WebSocket
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from controller.answers import OF_DESKTOP
from controller.ports.cleaning import Place
from controller.ports.layer import forward
from controller.ports.origins import Target
from controller.problems import deny
from controller.routes import Id, caller, count, desktop, parts, recorded
from workspace.browsing import CDP_PORT
from workspace.errors import CarrelError, DesktopLost, NoBrowser, NotFound, Unauthorized
from workspace.ports import CdpAccess, CdpRequest

router = APIRouter(tags=["browser"], responses=OF_DESKTOP)
sockets = APIRouter()
MAX_LISTED_BYTES = 4 << 20
# What Chrome tells of itself over HTTP, and its WebSockets.
_PAGES = re.compile(r"/json(/[a-z]+)?/?")
_SOCKETS = re.compile(r"devtools/[a-z]+/[A-Za-z0-9-]{1,100}")
_VERSION = "/json/version"


@router.post("/v1/workspaces/{workspace_id}/cdp")
async def open_cdp(
    request: Request,
    response: Response,
    workspace_id: Id,
    body: Annotated[CdpRequest | None, Body()] = None,
) -> CdpAccess:
    """Addresses of the desktop's browser for any client of the DevTools protocol."""
    own, target = parts(request), Target(workspace_id, CDP_PORT)
    async with recorded(request, workspace_id, "cdp_opened"):
        own_desktop = await desktop(request, workspace_id)
        try:
            await own_desktop.tabs()
        except NoBrowser:
            await own_desktop.navigate("about:blank")
        seconds = (body or CdpRequest()).ttl_seconds
        token, expiry = own.auth.cdp_token(caller(request), target, seconds)
    response.headers["Cache-Control"] = "no-store"
    base = f"{own.settings.public_origin}/cdp/{token}"
    return CdpAccess(
        http_url=base,
        ws_url=base.replace("http", "ws", 1) + "/",
        expires_at=datetime.fromtimestamp(expiry, timezone.utc),
    )


@router.get("/cdp/{token}/{path:path}", include_in_schema=False, response_class=Response)
async def pages(request: Request, token: str, path: str) -> Response:
    """What the browser tells of itself, with addresses that lead through here."""
    return _Told()


@sockets.websocket("/cdp/{token}/{path:path}")
async def socket(websocket: WebSocket, token: str, path: str) -> None:
    """The protocol itself: of what ``path`` names, or without one of the whole browser."""
    try:
        target = await _admitted(websocket.scope, token)
        if not path:
            path = await _browser(websocket.scope, target)
        if not _SOCKETS.fullmatch(path):
            raise NotFound(f"The browser has no {path[:100]!r}.")
        websocket.scope["headers"] = [  # Chrome takes no WebSocket of a page
            field for field in websocket.scope["headers"] if field[0] != b"origin"
        ]
        place, to = Place(target.port), f"/{path}".encode()
        await forward(websocket.scope, websocket.receive, websocket.send, target, place, to)
    except CarrelError as error:
        await deny(websocket, error)


class _Told(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token, path = scope["path_params"]["token"], "/" + scope["path_params"]["path"]
        target = await _admitted(scope, token)
        if not _PAGES.fullmatch(path):
            raise NotFound(f"The browser has no {path[:100]!r}.")
        status, body = await _asked(scope, receive, target, path)
        origin = parts(HTTPConnection(scope)).settings.public_origin
        ours = origin.replace("http", "ws", 1) + f"/cdp/{token}/"
        for host in (f"localhost:{target.port}", f"127.0.0.1:{target.port}"):
            body = body.replace(f"ws://{host}/".encode(), ours.encode())
        headers = {"Cache-Control": "no-store", "Content-Security-Policy": "sandbox"}
        said = Response(body, status, headers, media_type="application/json")
        await said(scope, receive, send)


async def _admitted(scope: Scope, token: str) -> Target:
    """Which browser the token is of; who has it is noted in ``scope``.

    Raises:
        Unauthorized: none that is good.
    """
    connection = HTTPConnection(scope)
    found = await parts(connection).auth.by_cdp(token)
    if found is None:
        raise Unauthorized(
            "This address of a browser is good no more.",
            hint="Ask for a new one: POST /v1/workspaces/{id}/cdp.",
        )
    scope["caller"], target = found
    await count(connection, scope["caller"])
    return target


async def _browser(scope: Scope, target: Target) -> str:
    """The path of the whole browser's WebSocket, without its slash."""

    async def nothing() -> Message:
        await anyio.sleep_forever()
        raise AssertionError("it sleeps")

    asked = {**scope, "type": "http", "method": "GET", "scheme": "http", "headers": []}
    _, body = await _asked(asked, nothing, target, _VERSION)
    try:
        url = str(json.loads(body)["webSocketDebuggerUrl"])
    except (ValueError, LookupError, TypeError) as error:
        raise DesktopLost("The browser does not say where it is reached.") from error
    return url.partition(f":{target.port}/")[2]


async def _asked(scope: Scope, receive: Receive, target: Target, path: str) -> tuple[int, bytes]:
    """What the browser answers: little, so all of it at once."""
    status, body = 502, bytearray()

    async def take(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        body.extend(message.get("body", b""))
        if len(body) > MAX_LISTED_BYTES:
            raise DesktopLost("The browser tells more of itself than a browser does.")

    await forward(scope, receive, take, target, Place(target.port), path.encode())
    return status, bytes(body)
