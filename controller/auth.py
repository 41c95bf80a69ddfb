"""What proves who asks: keys, cookies, links, and the tokens of leases.

Keys are compared by digest and in constant time; cookies and links hold signed, expiring tokens,
never a key. A session's cookie stands for the key that it was given for, and is void with it. Who
may do what is :mod:`controller.access`; :class:`controller.gate.Gate` asks both.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import cast

from controller.access import RANK, Caller
from controller.keyring import ADMIN, Keyring, caller_of
from controller.links import Links
from controller.oidc import Login, Provider
from controller.ports.origins import Target
from controller.settings import Settings
from controller.store.signing import key_of
from ray_cluster import leases
from workspace.access import Share
from workspace.errors import InvalidRequest, Unauthorized
from workspace.folders import private_file
from workspace.models import Role, Workspace

SESSION_SECONDS = 7 * 24 * 3600
OIDC_SESSION_SECONDS = 8 * 3600  # then the provider is asked again who that is
LOGIN_SECONDS = 600
# A link outlives its workspace's deadline a little, so that its last page can say what happened.
VIEWER_GRACE_SECONDS = 3600
_OIDC, _LOGIN, _ENTER, _PORT, _CDP = "oidc.", "login.", "enter.", "port.", "cdp."
ENTER_SECONDS = 60  # to get from one origin to another
PORT_SECONDS = 12 * 3600
_ID = re.compile(r"[a-z0-9]{8,20}")


class Auth:
    """Keys and tokens of one controller.

    ``keyring`` and ``links`` are there while the controller serves; before, it knows one key.
    """

    keyring: Keyring
    links: Links

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
        self.port_cookie = f"carrel_port_{settings.name}"  # of each origin of a port
        self.login_cookie = f"carrel_login_{settings.name}"
        self.oidc = Provider(settings) if settings.oidc_issuer else None

    async def by_key(self, key: str) -> Caller:
        """
        Raises:
            Unauthorized: no such key, or no longer.
            Unavailable: nobody can tell.
        """
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        if hmac.compare_digest(digest, self._digest):
            return Caller(ADMIN, "admin")
        if self.oidc is not None and key.count(".") == 2:
            return await self.oidc.caller(key)
        if (caller := await self.keyring.caller(key)) is not None:
            return caller
        raise Unauthorized("That key is not known here.")

    def session(self, caller: Caller) -> str:
        """A token for the cookie of somebody who has shown a key."""
        expiry = int(time.time()) + SESSION_SECONDS
        return f"{expiry}.{caller.key_id}.{self._session_mark(expiry, caller.key_id)}"

    async def by_session(self, token: str) -> Caller | None:
        """Whose session it is; None if it is none, its time is up, or its key is good no more."""
        if token.startswith(_OIDC):
            return self._by_oidc_session(token)
        expiry, _, rest = token.partition(".")
        key_id, _, signature = rest.partition(".")
        if not _is_current(expiry) or not (key_id == "" or _ID.fullmatch(key_id)):
            return None
        if not _is_same(signature, self._session_mark(int(expiry), key_id)):
            return None
        if not key_id:
            return Caller(ADMIN, "admin")
        kept = await self.keyring.good(key_id)
        return None if kept is None else caller_of(kept.key)

    def _session_mark(self, expiry: int, key_id: str) -> str:
        """Void when the admin's key changes: so whoever has that can end all sessions."""
        return self._sign(f"session {expiry} {key_id} {self._digest.hex()}")

    def oidc_session(self, caller: Caller) -> str:
        """The same for somebody whom the provider has named."""
        expiry = int(time.time()) + OIDC_SESSION_SECONDS
        return self._sealed(_OIDC, [expiry, caller.name, caller.role, caller.tenant])

    def _by_oidc_session(self, token: str) -> Caller | None:
        match self._unsealed(_OIDC, token):
            case [int(expiry), str(name), str(role), str(tenant)] if expiry > time.time():
                if self.oidc is not None and role in RANK:
                    return Caller(name, cast(Role, role), tenant, until=expiry)
        return None

    def login_token(self, login: Login) -> str:
        """A token for the cookie of a login that has begun."""
        return self._sealed(_LOGIN, [int(time.time()) + LOGIN_SECONDS, *login])

    def by_login(self, token: str) -> Login | None:
        """The login that has begun in a browser."""
        match self._unsealed(_LOGIN, token):
            case [int(expiry), str(state), str(nonce), str(verifier)] if expiry > time.time():
                return Login(state, nonce, verifier)
        return None

    def _sealed(self, kind: str, values: list[object]) -> str:
        """Values that their holder can read and not change."""
        said = urlsafe_b64encode(json.dumps(values).encode()).decode()
        return f"{kind}{said}.{self._sign(f'{kind} {said} {self._digest.hex()}')}"

    def _unsealed(self, kind: str, token: str) -> object:
        said, _, signature = token.removeprefix(kind).partition(".")
        if not _is_same(signature, self._sign(f"{kind} {said} {self._digest.hex()}")):
            return None
        return json.loads(urlsafe_b64decode(said))  # it is our own

    def enter_token(self, caller: Caller, target: Target) -> tuple[str, int]:
        """What lets a browser in at a port's own origin, and when it is good no more."""
        return self._port_token(_ENTER, caller, target, ENTER_SECONDS)

    def port_token(self, caller: Caller, target: Target) -> tuple[str, int]:
        """What its cookie there holds, likewise."""
        return self._port_token(_PORT, caller, target, PORT_SECONDS)

    def _port_token(
        self, kind: str, caller: Caller, target: Target, seconds: float
    ) -> tuple[str, int]:
        expiry = int(min(time.time() + seconds, caller.until or float("inf")))
        who = [caller.name, caller.role, caller.tenant, caller.key_id, caller.until]
        return self._sealed(kind, [expiry, *target, *who]), expiry

    def cdp_token(self, caller: Caller, target: Target, seconds: float) -> tuple[str, int]:
        """What lets clients in at a desktop's browser, by its address."""
        return self._port_token(_CDP, caller, target, seconds)

    async def by_cdp(self, token: str) -> tuple[Caller, Target] | None:
        """Who comes by such a token, and to which browser; None if it is none that is good."""
        return await self._by_port_token(_CDP, token)

    async def by_enter(self, token: str, target: Target) -> Caller | None:
        """Who it lets in at that port; None if it is no such token, or good no more."""
        return await self._at_port(_ENTER, token, target)

    async def by_port(self, token: str, target: Target) -> Caller | None:
        """Likewise by its cookie."""
        return await self._at_port(_PORT, token, target)

    async def _at_port(self, kind: str, token: str, target: Target) -> Caller | None:
        found = await self._by_port_token(kind, token)
        return found[0] if found is not None and found[1] == target else None

    async def _by_port_token(self, kind: str, token: str) -> tuple[Caller, Target] | None:
        if not token.startswith(kind):
            return None
        match self._unsealed(kind, token):
            case [
                int(expiry),
                str(workspace_id),
                int(port),
                str(name),
                str(role),
                str(tenant),
                str(key_id),
                (int() | float() | None) as until,
            ] if expiry > time.time():
                if kind != _ENTER:  # what it opens ends with it
                    until = min(expiry, until or expiry)
                caller = Caller(name, cast(Role, role), tenant, key_id, until=until)
                if await self.still_admits(caller):
                    return caller, Target(workspace_id, port)
        return None

    def viewer_token(self, workspace: Workspace) -> str:
        """A token that lets its holder watch this one workspace."""
        expiry = int(workspace.expires_at.timestamp()) + VIEWER_GRACE_SECONDS
        return f"{workspace.id}.{expiry}.{self._sign(f'view {workspace.id} {expiry}')}"

    def share_token(self, share: Share) -> str:
        """The same of a link, which may let control and can be revoked."""
        expiry = int(share.expires_at.timestamp())
        mark = self._sign(f"share {share.workspace_id} {expiry} {share.id}")
        return f"{share.workspace_id}.{expiry}.{share.id}.{mark}"

    async def by_viewer(self, token: str) -> Caller | None:
        """Who comes by a link; None if it is none that is good."""
        workspace_id, _, rest = token.partition(".")
        expiry, _, rest = rest.partition(".")
        share_id, _, signature = rest.rpartition(".")
        if not _is_current(expiry):
            return None
        if not share_id:
            if not _is_same(signature, self._sign(f"view {workspace_id} {expiry}")):
                return None
            return Caller("viewer", "link", workspace_id=workspace_id, until=int(expiry))
        if not _is_same(signature, self._sign(f"share {workspace_id} {expiry} {share_id}")):
            return None
        share = await self.links.good(share_id)
        if share is None:
            return None
        return Caller(
            f"link {share.id}",
            "link",
            workspace_id=share.workspace_id,
            share_id=share.id,
            mode=share.mode,
            until=share.expires_at.timestamp(),
        )

    async def still_admits(self, caller: Caller) -> bool:
        """Whether what proved it then is good yet: of who stays, by a WebSocket.

        Raises:
            Unavailable: nobody can tell.
        """
        if caller.until is not None and caller.until <= time.time():
            return False
        if caller.key_id:
            return await self.keyring.good(caller.key_id) is not None
        return not caller.share_id or await self.links.good(caller.share_id) is not None

    def watch_url(self, workspace: Workspace) -> str:
        """Where a person watches it. The token is in the fragment: no server ever logs it."""
        return f"{self._public_origin}/watch/{workspace.id}#{self.viewer_token(workspace)}"

    def share_url(self, share: Share) -> str:
        """Where a link leads; likewise."""
        return f"{self._public_origin}/watch/{share.workspace_id}#{self.share_token(share)}"

    @property
    def lease_secret(self) -> bytes:
        """What signs the tokens that leases are renewed with."""
        return hmac.digest(self._secret, b"leases", "sha256")

    @property
    def audit_key(self) -> bytes:
        """What signs the log."""
        return key_of(self._secret)

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
