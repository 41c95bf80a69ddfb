"""One OpenID provider: its access tokens as keys, and people's login by it (OpenID Connect Core).

A token is a JWT that the provider signed with a key of its own that it publishes: its signature, by
an asymmetric algorithm, its issuer, audience and times are checked, and its claims say the role and
the tenant here; without both it opens nothing. The provider's keys are kept: while it is away, what
they signed goes on being good, and everything else is 503. A key that is not known is asked for
anew, but not more often than each ``AGAIN_SECONDS``, whatever tokens come.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import anyio
import httpx
import jwt

from controller.access import RANK, Caller
from controller.settings import Settings
from workspace import transport
from workspace.errors import CarrelError, Forbidden, Unauthorized, Unavailable
from workspace.http1 import client_transport
from workspace.models import TEMPLATE_NAME

# Of keys whose public half proves nothing: never "none", never a shared secret (RFC 8725).
ALGORITHMS = tuple("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split())
FRESH_SECONDS = 3600.0  # then its keys are asked for again
AGAIN_SECONDS = 10.0
ASK_SECONDS = 5.0
LEEWAY_SECONDS = 30.0  # between its clock and ours
MAX_BYTES = 1 << 20
MAX_TOKEN = 16_384
_PLAIN = re.compile(r"[A-Za-z0-9@._|:/=+-]{1,90}")


class Login(NamedTuple):
    """A login that has begun: what its browser brings back, and what only it knows."""

    state: str
    nonce: str
    verifier: str


class Provider:
    """The provider that the settings name."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.oidc_client_secret
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._client_secret = "" if secret is None else secret.get_secret_value()
        self._audience = settings.oidc_audience or settings.oidc_client_id
        self._role_claim = settings.oidc_role_claim
        self._tenant_claim = settings.oidc_tenant_claim
        self._redirect = f"{settings.public_origin}/v1/login/oidc/callback"
        self._keys: dict[str, jwt.PyJWK] = {}
        self._endpoints: Mapping[str, Any] = {}  # Any: JSON values
        self._read_at = self._asked_at = float("-inf")
        self._asking = anyio.Lock()
        self.trouble = ""  # why it could not be asked the last time

    # Tokens.

    async def caller(self, token: str) -> Caller:
        """Who an access token is.

        Raises:
            Unauthorized: it is none of this provider's for us, or its time is over.
            Forbidden: it is, and says no role and tenant here.
            Unavailable: it may be, and the provider does not answer.
        """
        return self._admit(await self._verified(token, self._audience))

    async def _verified(self, token: str, audience: str) -> dict[str, Any]:  # Any: JSON values
        try:
            if len(token) > MAX_TOKEN:
                raise jwt.InvalidTokenError("it is too long")
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError("its algorithm is not allowed")
            key = await self._key(str(header.get("kid", "")))
            claims: dict[str, Any] = jwt.decode(  # Any: as above
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return claims
        except jwt.PyJWTError as error:
            raise Unauthorized(f"That token is not good here: {error}.") from error

    def _admit(self, claims: Mapping[str, Any]) -> Caller:
        role = _strongest(_claim(claims, self._role_claim))
        tenant = _claim(claims, self._tenant_claim)
        if role is None or not (isinstance(tenant, str) and re.fullmatch(TEMPLATE_NAME, tenant)):
            raise Forbidden(
                f"The provider gives no role and tenant here (claims {self._role_claim!r} and "
                f"{self._tenant_claim!r}).",
                hint="Whoever runs the provider can: a role is viewer, user, operator or admin.",
            )
        return Caller(_name(str(claims["sub"])), role, tenant, until=float(claims["exp"]))

    async def _key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._keys or time.monotonic() - self._read_at > FRESH_SECONDS:
            await self._refresh(kid)
        if (key := self._keys.get(kid)) is not None:
            return key
        if self.trouble:
            raise Unavailable(f"The OpenID provider does not answer: {self.trouble}")
        raise jwt.InvalidTokenError("nobody knows the key that signed it")

    async def _refresh(self, kid: str) -> None:
        """Ask for its addresses and keys; what is known stays if that fails."""
        async with self._asking:
            now = time.monotonic()
            is_known = kid in self._keys and now - self._read_at <= FRESH_SECONDS
            if is_known or now - self._asked_at < AGAIN_SECONDS:
                return
            self._asked_at = now
            try:
                async with self._http() as http:
                    where = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
                    endpoints = await _json(http, "GET", where)
                    if endpoints.get("issuer") != self._issuer:
                        raise Unavailable(f"it calls itself {endpoints.get('issuer')!r}")
                    found = await _json(http, "GET", str(endpoints.get("jwks_uri")))
            except CarrelError as error:
                self.trouble = error.message
                return
            self._endpoints, self._keys = endpoints, _keys(found)
            self._read_at, self.trouble = now, ""

    # Login: the authorization code flow with PKCE (RFC 7636).

    async def login_url(self, login: Login) -> str:
        """Where a browser goes to log in.

        Raises:
            Unavailable: the provider does not answer.
        """
        challenge = urlsafe_b64encode(hashlib.sha256(login.verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect,
            "scope": "openid",
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        endpoint = await self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    async def redeem(self, code: str, login: Login) -> Caller:
        """Who came back with a code.

        Raises:
            Unauthorized: the provider does not say so.
            Forbidden: it says no role and tenant here.
            Unavailable: it does not answer.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": login.verifier,
        }
        endpoint = await self._endpoint("token_endpoint")
        async with self._http() as http:
            if self._client_secret:
                auth = httpx.BasicAuth(self._client_id, self._client_secret)
                answer = await _json(http, "POST", endpoint, data=form, auth=auth)
            else:
                form["client_id"] = self._client_id
                answer = await _json(http, "POST", endpoint, data=form)
        claims = await self._verified(str(answer.get("id_token", "")), self._client_id)
        if claims.get("nonce") != login.nonce:
            raise Unauthorized("That login was not begun here.")
        return self._admit(claims)

    async def _endpoint(self, name: str) -> str:
        if self.trouble or time.monotonic() - self._read_at > FRESH_SECONDS:
            await self._refresh("")
        found = self._endpoints.get(name)
        if self.trouble or not isinstance(found, str):
            why = self.trouble or f"it has no {name}"
            raise Unavailable(f"The OpenID provider does not answer: {why}")
        return found

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=client_transport(self._issuer),
            timeout=transport.timeout(ASK_SECONDS),
            trust_env=False,
        )


async def _json(
    http: httpx.AsyncClient, method: str, url: str, **options: Any
) -> dict[str, Any]:  # Any: httpx's options, JSON values
    """What the provider answers.

    Raises:
        Unavailable: nothing of use.
        Unauthorized: it refuses.
    """
    try:
        with anyio.fail_after(2 * ASK_SECONDS):
            async with http.stream(method, url, **options) as response:
                body = await transport.read(response, MAX_BYTES)
        parsed = json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, CarrelError, ValueError, TimeoutError) as error:
        raise Unavailable(f"{url}: {type(error).__name__} {error}".strip()) from error
    if response.status_code in (400, 401) and method == "POST":
        raise Unauthorized("The OpenID provider refuses that login.", hint="Log in again.")
    if response.status_code != 200 or not isinstance(parsed, dict):
        raise Unavailable(f"{url}: HTTP {response.status_code}")
    return parsed


def _keys(found: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """The keys that it signs with, by their names; those of no use are passed over."""
    keys: dict[str, jwt.PyJWK] = {}
    listed = found.get("keys")
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        if each.get("kty") not in ("RSA", "EC", "OKP"):  # never a secret
            continue
        try:
            keys[str(each.get("kid", ""))] = jwt.PyJWK.from_dict(each)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
    return keys


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """A claim by its name, or by the names on the way to it with dots between."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _strongest(said: object) -> Any:  # Any: one of the roles, or None
    """The strongest role among what a claim says."""
    values: Sequence[object] = said if isinstance(said, list) else [said]
    roles = [value for value in values if isinstance(value, str) and value in RANK]
    return max(roles, key=RANK.__getitem__, default=None)


def _name(subject: str) -> str:
    """Who the log says did it: nobody else's name, whatever the provider calls them."""
    if _PLAIN.fullmatch(subject):
        return f"oidc:{subject}"
    return f"oidc:{hashlib.sha256(subject.encode('utf-8', 'surrogateescape')).hexdigest()}"
