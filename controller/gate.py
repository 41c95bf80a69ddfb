"""The door: who asks, from where, and whether that may be asked, before anything else sees it.

:class:`Gate` is an ASGI layer in front of everything. It refuses a Host that is not the
controller's (a page that rebinds its own name to 127.0.0.1 gets nothing), a WebSocket or a change
by cookie from another origin, a key in a URL, every path that the table of :mod:`controller.access`
does not have or that the caller's role may not, and a workspace of another tenant, which is told as
one that never was. What passes carries its :class:`~controller.access.Caller` in
``scope["caller"]``. A lease is renewed with a token of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from controller import access
from controller.access import Caller, Found
from controller.auth import Auth
from controller.keyring import KEY
from controller.problems import answer, is_streamed, no_such_path
from controller.routes import count, parts
from controller.settings import Settings
from controller.streams import Upload
from workspace.errors import CarrelError, Forbidden, InvalidRequest, Unauthorized

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = "/v1/workspaces/{workspace_id}/ports/{port}/"  # whose queries are another server's
_PROBES = frozenset({"/healthz", "/readyz"})
_LEASES = frozenset({"/v1/leases/{sandbox}", "/v1/leases/{sandbox}/connections"})
_KEY_NAMES = frozenset({"key", "api_key", "apikey", "api-key", "token", "access_token", "bearer"})


class _Head(NamedTuple):
    """The headers that decide; None where there is none."""

    host: str | None = None
    origin: str | None = None
    authorization: str | None = None
    cookie: str | None = None


def _head(headers: Iterable[tuple[bytes, bytes]]) -> _Head:
    found: dict[str, str] = {}
    for name, value in headers:
        field = name.decode("latin-1")
        if field not in _Head._fields:
            continue
        text = value.decode("latin-1")
        if field in found:
            if field != "cookie":
                raise InvalidRequest(f"There is more than one header {field!r}.")
            text = f"{found[field]}; {text}"  # HTTP/2 may split it: RFC 9113, 8.2.3
        found[field] = text
    return _Head(**found)


class Gate:
    """The ASGI layer; see the module's head."""

    def __init__(self, app: ASGIApp, auth: Auth, settings: Settings) -> None:
        self._app = app
        self._auth = auth
        public = urlsplit(settings.public_url)
        self._public_origin = settings.public_url.lower()
        self._public_netloc = public.netloc.lower()
        self._scheme = urlsplit(settings.url).scheme
        self._others = frozenset(settings.other_origins)
        self._names = _LOOPBACK | {public.hostname or "localhost", settings.host.lower()}
        self._names -= {"0.0.0.0", "::", ""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] not in _PROBES:
            try:
                scope["caller"] = await self._admit(scope)
            except CarrelError as error:
                if not isinstance(error, Unauthorized) and _is_sent_anyway(scope):
                    await Upload(receive).drain()
                await answer(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> Caller | None:
        head = _head(scope["headers"])
        self._check_host(head.host, scope)
        found = _found(scope)
        if found.rule is None or not found.rule.path.startswith(_PORTS):
            _refuse_keys(scope["query_string"])
        if found.rule is not None:
            scope["rule"] = found.rule.path  # what is refused here is counted by it
        if found.rule is not None and found.rule.path in _LEASES:
            self._auth.check_lease(found.parameters["sandbox"], head.authorization)
            return None
        if head.authorization is not None and scope["path"] != "/mcp":
            callers = [await self._by_authorization(head.authorization)]
            needs_origin = False
        else:
            callers = await self._by_cookies(head.cookie)
            needs_origin = bool(callers)
        if scope["type"] == "websocket" or scope["method"] not in _SAFE:
            self._check_origin(head, is_needed=needs_origin)
        caller = await _admitted(scope, found, callers)
        if caller is not None:
            await count(HTTPConnection(scope), caller)
        return caller

    async def _by_authorization(self, value: str) -> Caller:
        scheme, _, key = value.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("The Authorization header is not 'Bearer <key>'.")
        return await self._auth.by_key(key.strip())

    async def _by_cookies(self, header: str | None) -> list[Caller]:
        """Who a browser is: whoever has logged in, and whoever came by a link."""
        if header is None:
            return []
        try:
            cookies = SimpleCookie(header)
        except CookieError:
            return []
        session = cookies.get(self._auth.session_cookie)
        link = cookies.get(self._auth.viewer_cookie)
        found: list[Caller | None] = []
        if session is not None:
            found.append(await self._auth.by_session(session.value))
        if link is not None:
            found.append(await self._auth.by_viewer(link.value))
        return [caller for caller in found if caller is not None]

    def _check_host(self, host: str | None, scope: Scope) -> None:
        try:
            name = urlsplit(f"//{host or ''}").hostname
        except ValueError:
            name = None
        server = scope.get("server") or ("", 0)
        # The address that the connection came in on is no name that anybody could rebind.
        if name is None or (name not in self._names and name != server[0]):
            raise Forbidden(
                f"This controller is not called {(host or '')[:200]!r}.",
                hint="Use its address, or set CARREL_PUBLIC_URL to the one that you use.",
            )

    def _check_origin(self, head: _Head, *, is_needed: bool) -> None:
        if head.origin is None and not is_needed:
            return
        host = (head.host or "").lower()
        own = self._public_origin if host == self._public_netloc else f"{self._scheme}://{host}"
        if head.origin is not None and not is_needed and head.origin.lower() in self._others:
            return  # with a key in its hand
        if head.origin is None or head.origin.lower() != own:
            raise Forbidden(
                f"A page of {(head.origin or 'unknown origin')[:200]} may not do this.",
                hint="Use the controller's own pages, or a key in the Authorization header.",
            )


def _found(scope: Scope) -> Found:
    """What the table has of a request."""
    if scope["type"] == "http":
        return access.find(scope["method"], scope["path"])
    roles = parse_qs(scope["query_string"].decode("latin-1")).get("role")
    return access.find("WS", scope["path"], is_watch=roles == ["view"])


async def _admitted(scope: Scope, found: Found, callers: Sequence[Caller]) -> Caller | None:
    """The first of them who may; None where anybody may.

    Raises: what :func:`_check_access` does of the first.
    """
    refusals: list[CarrelError] = []
    for caller in callers or (None,):
        try:
            await _check_access(scope, found, caller)
            return caller
        except CarrelError as error:
            refusals.append(error)
    raise refusals[0]


async def _check_access(scope: Scope, found: Found, caller: Caller | None) -> None:
    """Whether ``caller`` may, by the table and by whose the workspace is.

    Raises:
        Unauthorized, Forbidden, WorkspaceNotFound.
        NotFound, MethodNotAllowed: nobody may, for the table does not have it.
    """
    rule = found.rule
    if rule is not None and rule.least is None:
        return
    if caller is None and (rule is not None or scope["path"].startswith("/v1/")):
        raise Unauthorized("There is no valid key or session with this request.")
    if rule is None:
        raise no_such_path(scope, found.methods)
    assert caller is not None, "refused above"
    workspace_id = found.parameters.get("workspace_id")
    access.check(rule, caller, workspace_id)
    if workspace_id is not None and caller.role not in ("admin", "link"):
        whose = parts(HTTPConnection(scope)).lifecycle.tenant_of
        access.check_tenant(rule, caller, workspace_id, await whose(workspace_id))


def _refuse_keys(query: bytes) -> None:
    """Raises InvalidRequest for a key in a URL: servers and browsers keep those."""
    lowered = query.lower()
    if not any(word in lowered for word in (b"key", b"token", b"bearer", b"carrel_")):
        return
    for name, value in parse_qsl(query.decode("latin-1")):
        if KEY.search(value) or (value and name.lower() in _KEY_NAMES):
            raise InvalidRequest(
                f"A key does not belong in a URL (parameter {name[:40]!r}).",
                hint="Send it as 'Authorization: Bearer <key>'. Browsers and proxies keep URLs: "
                "if it was a real key, revoke it.",
            )


def _is_sent_anyway(scope: Scope) -> bool:
    """Whether its caller sends a long body before it reads any answer."""
    if scope["type"] != "http" or not is_streamed(scope):
        return False
    return not any(
        name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"]
    )
