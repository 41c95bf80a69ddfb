"""Who asks, and may they: keys, cookies, viewers' links, and where a browser's request came from.

:class:`Gate` is an ASGI layer in front of everything. It refuses a Host that is not the
controller's (a page that rebinds its own name to 127.0.0.1 gets nothing), a WebSocket or a change
by cookie from another origin, and every path under /v1 without a key; a lease is renewed with a
token of its own. What passes carries its :class:`Caller` in ``scope["caller"]``. Keys are compared
by digest and in constant time; cookies and links hold signed, expiring tokens, never a key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from controller.problems import answer
from controller.settings import Settings
from ray_cluster import leases
from workspace.errors import CarrelError, Forbidden, InvalidRequest, Unauthorized
from workspace.folders import private_file
from workspace.models import Workspace

SESSION_SECONDS = 7 * 24 * 3600
# A link outlives its workspace's deadline a little, so that its last page can say what happened.
VIEWER_GRACE_SECONDS = 3600
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PROBES = frozenset({"/healthz", "/readyz"})
_OPEN = frozenset({"/v1/login", "/v1/logout"})
_LEASE = re.compile(re.escape(leases.PATH) + r"([a-z0-9]{8,20})")
_WORKSPACE = re.compile(r"/v1/workspaces/([a-z0-9]{8,20})(/[a-z]+)?")


class Caller(NamedTuple):
    """Who asks; a viewer may see one workspace and nothing else."""

    name: str
    role: Literal["admin", "viewer"]
    workspace_id: str = ""


class Auth:
    """Keys and tokens of one controller."""

    def __init__(self, settings: Settings) -> None:
        given = settings.api_key.get_secret_value().strip() if settings.api_key else ""
        key = given or private_file(settings.key_file)
        try:
            key.encode("ascii")
        except UnicodeEncodeError as error:
            raise InvalidRequest("The API key has letters that HTTP cannot carry.") from error
        self._digest = hashlib.sha256(key.encode()).digest()
        shared = settings.secret.get_secret_value() if settings.secret else ""
        self._secret = (shared or private_file(settings.secret_file)).encode()
        self._public_origin = settings.public_origin
        # By home: cookies are shared by all ports of a host.
        self.session_cookie = f"carrel_{settings.name}"
        self.viewer_cookie = f"carrel_view_{settings.name}"

    def by_key(self, key: str) -> Caller:
        """
        Raises:
            Unauthorized: no such key.
        """
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(digest, self._digest):
            raise Unauthorized("That key is not known here.")
        return Caller("admin", "admin")

    def session(self) -> str:
        """A token for the cookie of somebody who has shown the key; void when the key changes."""
        expiry = int(time.time()) + SESSION_SECONDS
        return f"{expiry}.{self._sign(f'session {expiry} {self._digest.hex()}')}"

    def by_session(self, token: str) -> Caller | None:
        expiry, _, signature = token.partition(".")
        if not _is_current(expiry):
            return None
        signed = self._sign(f"session {expiry} {self._digest.hex()}")
        return Caller("admin", "admin") if _is_same(signature, signed) else None

    def viewer_token(self, workspace: Workspace) -> str:
        """A token that lets its holder watch this one workspace."""
        expiry = int(workspace.expires_at.timestamp()) + VIEWER_GRACE_SECONDS
        return f"{workspace.id}.{expiry}.{self._sign(f'view {workspace.id} {expiry}')}"

    def by_viewer(self, token: str) -> Caller | None:
        workspace_id, _, rest = token.partition(".")
        expiry, _, signature = rest.partition(".")
        if not _is_current(expiry):
            return None
        if not _is_same(signature, self._sign(f"view {workspace_id} {expiry}")):
            return None
        return Caller("viewer", "viewer", workspace_id)

    def watch_url(self, workspace: Workspace) -> str:
        """Where a person watches it. The token is in the fragment: no server ever logs it."""
        return f"{self._public_origin}/watch/{workspace.id}#{self.viewer_token(workspace)}"

    @property
    def lease_secret(self) -> bytes:
        """What signs the tokens that leases are renewed with."""
        return hmac.digest(self._secret, b"leases", "sha256")

    def check_lease(self, sandbox: str, authorization: str | None) -> None:
        """
        Raises:
            Unauthorized: that is not the sandbox's own token.
        """
        expected = f"Bearer {leases.token(self.lease_secret, sandbox)}"
        if not _is_same(authorization or "", expected):
            raise Unauthorized("That is not the token of this lease.")

    def _sign(self, text: str) -> str:
        mac = hmac.digest(self._secret, text.encode("utf-8", "surrogateescape"), "sha256")
        return urlsafe_b64encode(mac).decode().rstrip("=")


def _is_current(expiry: str) -> bool:
    return expiry.isascii() and expiry.isdigit() and len(expiry) < 15 and int(expiry) > time.time()


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


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
        self._names = _LOOPBACK | {public.hostname or "localhost", settings.host.lower()}
        self._names -= {"0.0.0.0", "::", ""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] not in _PROBES:
            try:
                scope["caller"] = self._admit(scope)
            except CarrelError as error:
                await answer(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> Caller | None:
        head = _head(scope["headers"])
        self._check_host(head.host, scope)
        if lease := _LEASE.fullmatch(scope["path"]):
            self._auth.check_lease(lease[1], head.authorization)
            return None
        is_socket = scope["type"] == "websocket"
        if head.authorization is not None and not scope["path"].startswith("/mcp"):
            caller: Caller | None = self._by_authorization(head.authorization)
            needs_origin = False
        else:
            caller = self._by_cookie(head.cookie)
            needs_origin = caller is not None
        if is_socket or scope["method"] not in _SAFE:
            self._check_origin(head, is_needed=needs_origin)
        if _is_guarded(scope):
            if caller is None:
                raise Unauthorized("There is no valid key or session with this request.")
            if caller.role == "viewer" and not _may_view(scope, caller.workspace_id):
                raise Forbidden(
                    "A viewer's link may only watch its desktop.",
                    hint="Use a key for everything else.",
                )
        return caller

    def _by_authorization(self, value: str) -> Caller:
        scheme, _, key = value.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("The Authorization header is not 'Bearer <key>'.")
        return self._auth.by_key(key.strip())

    def _by_cookie(self, header: str | None) -> Caller | None:
        if header is None:
            return None
        try:
            cookies = SimpleCookie(header)
        except CookieError:
            return None
        if session := cookies.get(self._auth.session_cookie):
            if caller := self._auth.by_session(session.value):
                return caller
        if viewer := cookies.get(self._auth.viewer_cookie):
            return self._auth.by_viewer(viewer.value)
        return None

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
        own = self._public_origin if host == self._public_netloc else f"http://{host}"
        if head.origin is None or head.origin.lower() != own:
            raise Forbidden(
                f"A page of {(head.origin or 'unknown origin')[:200]} may not do this.",
                hint="Use the controller's own pages, or a key in the Authorization header.",
            )


def _is_guarded(scope: Scope) -> bool:
    path = scope["path"]
    if path == "/metrics":
        return True
    if not path.startswith("/v1/") or path in _OPEN:
        return False
    # A viewer redeems its link for a cookie; the route checks the token.
    match = _WORKSPACE.fullmatch(path)
    return not (match and match[2] == "/viewer" and scope.get("method") == "POST")


def _may_view(scope: Scope, workspace_id: str) -> bool:
    match = _WORKSPACE.fullmatch(scope["path"])
    if match is None or match[1] != workspace_id:
        return False
    if scope["type"] == "websocket":
        return match[2] == "/vnc" and parse_qs(scope["query_string"].decode("latin-1")).get(
            "role"
        ) == ["view"]
    return scope["method"] == "GET" and match[2] in (None, "/screenshot")
