"""What answers on the origins of ports, before the controller's own gate: see :class:`Ports`.

A browser gets there with a token in the fragment of an address (``/.carrel/enter#token&/path``: no
server logs that), which a page of ours exchanges for a cookie of that origin. The cookie is of one
port of one desktop, and good as long as the key that it was asked with. Programs show a key.
"""

from __future__ import annotations

import time
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from controller import access
from controller.access import Caller
from controller.auth import Auth
from controller.ports.cleaning import SECURE, Place
from controller.ports.origins import Origins, Target
from controller.problems import CallerGone, Shield, answer, response
from controller.routes import count, parts, recorded, while_admitted
from workspace.errors import CarrelError, Forbidden, InvalidRequest, NotFound, Unauthorized
from workspace.protocols import CUT

OWN = "/.carrel/"
_ENTER = f"{OWN}enter"
_LIKE = "/v1/workspaces/abcdefghjk/ports/1/"  # who may ask that may also come by an origin
_MAX_TOKEN = 4096
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width"><title>Carrel</title>
<style>body{{font:16px system-ui;max-width:34rem;margin:15vh auto;padding:0 1rem}}</style>
<p id="said" role="status">{said}</p>{more}</html>
"""
_SCRIPT = """<script>
const [token, path = "/"] = decodeURIComponent(location.hash.slice(1)).split(/&(.*)/s);
history.replaceState(null, "", location.pathname);
enter();
async function enter() {
  const said = document.getElementById("said");
  try {
    const answer = await fetch(location.pathname, {method: "POST", body: token});
    if (answer.ok) return location.replace(path);
    const told = await answer.json();
    said.textContent = told.message + " " + told.hint;
  } catch (error) { said.textContent = "Carrel does not answer: " + error.message; }
}
</script>"""
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CLOSED = (
    "This is a server in a Carrel desktop, and this browser has not been let in, or its time is "
    "up. Ask whoever runs the desktop for an address: <code>carrel port</code> makes one."
)


class Ports:
    """The ASGI layer; see the module's head."""

    def __init__(self, app: ASGIApp, auth: Auth, origins: Origins) -> None:
        self._app = app
        self._auth = auth
        self._origins = origins
        self._answer = Shield(self._serve, is_bounded=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = self._target(scope) if scope["type"] in ("http", "websocket") else None
        if target is None:
            return await self._app(scope, receive, send)
        scope["port"], scope["rule"] = target, "port"
        await self._answer(scope, receive, send)

    def _target(self, scope: Scope) -> Target | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return self._origins.find(hosts[0].decode("latin-1")) if len(hosts) == 1 else None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        target: Target = scope["port"]
        try:
            if scope["path"].startswith(OWN):
                return await (await self._own(scope, receive, target))(scope, receive, send)
            scope["caller"] = await self._admit(scope, target)
        except Unauthorized as error:
            if _is_shown(scope):
                page = HTMLResponse(_PAGE.format(said=_CLOSED, more=""), 401, _PAGE_HEADERS)
                return await page(scope, receive, send)
            return await answer(error, scope, receive, send)
        origin = self._origins.of(target)
        await forward(scope, receive, send, target, Place(target.port, origin), raw(scope))

    async def _admit(self, scope: Scope, target: Target) -> Caller:
        """
        Raises:
            Unauthorized, Forbidden, WorkspaceNotFound.
        """
        headers = HTTPConnection(scope).headers
        caller = await self._by_cookie("; ".join(headers.getlist("cookie")), target)
        if caller is not None:  # an Authorization beside it is the server's own business
            own = self._origins.of(target)
            is_change = scope["type"] == "websocket" or scope["method"] not in _SAFE
            if is_change and headers.get("origin", own) != own:
                raise Forbidden(
                    "Another origin's page may not do this.", hint="Its own pages and keys may."
                )
        else:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer":
                caller = await self._auth.by_key(key.strip())
        if caller is None:
            raise Unauthorized("There is no valid key or session with this request.")
        await _check(scope, caller, target)
        await count(HTTPConnection(scope), caller)
        return caller

    async def _by_cookie(self, header: str, target: Target) -> Caller | None:
        try:
            cookie = SimpleCookie(header).get(self._cookie)
        except CookieError:
            return None
        return None if cookie is None else await self._auth.by_port(cookie.value, target)

    @property
    def _cookie(self) -> str:
        name = self._auth.port_cookie
        return f"{SECURE.decode()}{name}" if self._origins.is_secure else name

    async def _own(self, scope: Scope, receive: Receive, target: Target) -> Response:
        """The paths here that are Carrel's."""
        if scope["type"] != "http" or scope["path"] != _ENTER:
            return response(NotFound(f"There is no {scope['path'][:200]} here."))
        if scope["method"] == "GET":
            return HTMLResponse(_PAGE.format(said="Opening…", more=_SCRIPT), 200, _PAGE_HEADERS)
        if scope["method"] != "POST":
            return response(InvalidRequest("Send the token with POST."))
        request = Request(scope, receive)
        if request.headers.get("origin", "") != self._origins.of(target):
            return response(Forbidden("Another origin's page may not do this."))
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_TOKEN:
                return response(InvalidRequest("That is no token."))
        caller = await self._auth.by_enter(body.decode("latin-1"), target)
        if caller is None:
            return response(
                Unauthorized("This address lets nobody in any more.", hint="Ask for a new one.")
            )
        await _check(scope, caller, target)
        made, expiry = self._auth.port_token(caller, target)
        said = Response(status_code=204, headers={"Cache-Control": "no-store"})
        said.set_cookie(
            self._cookie,
            made,
            max_age=max(1, int(expiry - time.time())),
            httponly=True,
            samesite="lax",
            secure=self._origins.is_secure,
        )
        return said


async def forward(
    scope: Scope, receive: Receive, send: Send, target: Target, place: Place, path: bytes
) -> None:
    """Carry a request or a WebSocket of ``scope["caller"]`` to its port; first it is recorded.

    Raises:
        CarrelError: before anything was answered.
    """
    connection = HTTPConnection(scope)
    own = parts(connection)
    actor = scope["caller"].name
    endpoint = await own.lifecycle.endpoint(target.workspace_id, actor=actor)
    if own.forwarding.is_new(target, actor):
        async with recorded(connection, target.workspace_id, "port", port=target.port):
            pass
        own.forwarding.note(target, actor)
    sent, websocket = _Sent(send), None
    if scope["type"] == "http":
        working = own.forwarding.http(
            scope, receive, sent, endpoint=endpoint, place=place, path=path
        )
    else:
        websocket = WebSocket(scope, receive, send)
        working = own.forwarding.websocket(websocket, endpoint=endpoint, place=place, path=path)
    try:
        await while_admitted(connection, working)
    except CarrelError as error:
        if websocket is not None and websocket.application_state is not WebSocketState.CONNECTING:
            with suppress(RuntimeError, WebSocketDisconnect):  # its caller was first
                await websocket.close(1008, error.message[:120])
            return
        if not sent.has_begun:
            raise
        # Half an answer is never to be taken for a whole one.
        if cut := scope.get("extensions", {}).get(CUT):
            cut["abort"]()
        raise CallerGone from error


class _Sent:
    """Sends, and knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


async def _check(scope: Scope, caller: Caller, target: Target) -> None:
    """Whether ``caller`` may use the servers of that desktop."""
    rule = access.find("GET", _LIKE).rule
    assert rule is not None, "it stands in the table"
    access.check(rule, caller, target.workspace_id)
    if caller.role != "admin":
        whose = await parts(HTTPConnection(scope)).lifecycle.tenant_of(target.workspace_id)
        access.check_tenant(rule, caller, target.workspace_id, whose)


def _is_shown(scope: Scope) -> bool:
    """Whether a person sees the answer."""
    is_page = "text/html" in HTTPConnection(scope).headers.get("accept", "")
    return is_page and scope["type"] == "http"


def raw(scope: Scope) -> bytes:
    """The path and query as they came."""
    path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path
