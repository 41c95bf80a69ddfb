"""Login by the OpenID provider: there and back again, as a browser goes."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Awaitable

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from controller.answers import Responses, raises
from controller.auth import LOGIN_SECONDS, OIDC_SESSION_SECONDS
from controller.oidc import Login, Provider
from controller.routes import parts
from workspace.errors import CarrelError, Unauthorized, Unsupported

router = APIRouter(prefix="/v1/login", tags=["session"])
_log = logging.getLogger(__name__)
_REDIRECT: Responses = raises(Unsupported) | {
    302: {"description": "To the provider, or back to the dashboard"}
}


class Ways(BaseModel):
    """How one may log in here, beside by a key."""

    oidc: bool


@router.get("")
async def ways(request: Request) -> Ways:
    """How one may log in."""
    return Ways(oidc=parts(request).auth.oidc is not None)


@router.get("/oidc", response_class=RedirectResponse, status_code=302, responses=_REDIRECT)
async def begin(request: Request) -> Response:
    """To the provider."""
    return await _told_to_people(request, _begin(request))


async def _begin(request: Request) -> Response:
    login = Login(*(secrets.token_urlsafe(32) for _ in range(3)))
    answer = RedirectResponse(await _provider(request).login_url(login), 302)
    auth = parts(request).auth
    # Lax: the browser comes back with it from the provider's pages.
    _set(request, answer, auth.login_cookie, auth.login_token(login), LOGIN_SECONDS, "lax")
    return answer


@router.get("/oidc/callback", response_class=RedirectResponse, status_code=302, responses=_REDIRECT)
async def end(request: Request, state: str = "", code: str = "", error: str = "") -> Response:
    """Back from the provider, with a code that it redeems."""
    return await _told_to_people(request, _end(request, state, code, error))


async def _end(request: Request, state: str, code: str, error: str) -> Response:
    auth, provider = parts(request).auth, _provider(request)
    login = auth.by_login(request.cookies.get(auth.login_cookie, ""))
    if login is None or not hmac.compare_digest(login.state.encode(), state.encode()):
        raise Unauthorized("That login was not begun in this browser.", hint="Log in again.")
    if error or not code:
        raise Unauthorized(
            f"The OpenID provider refused: {error[:100] or 'no code'}.", hint="Log in again."
        )
    caller = await provider.redeem(code, login)
    answer = RedirectResponse("/", 302)
    session = auth.oidc_session(caller)
    _set(request, answer, auth.session_cookie, session, OIDC_SESSION_SECONDS, "strict")
    answer.delete_cookie(auth.login_cookie, path="/v1/login")
    return answer


async def _told_to_people(request: Request, work: Awaitable[Response]) -> Response:
    """What it answers; in a browser, a refusal goes to the dashboard, which says it in words."""
    try:
        return await work
    except CarrelError as refusal:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        _log.warning("a login failed: %s", refusal.message)
        return RedirectResponse(f"/?refused={refusal.code}", 302)


def _provider(request: Request) -> Provider:
    found = parts(request).auth.oidc
    if found is None:
        raise Unsupported("This controller has no OpenID provider.", hint="Log in with a key.")
    return found


def _set(
    request: Request, answer: Response, name: str, value: str, seconds: int, site: str
) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/v1/login" if site == "lax" else "/",
        httponly=True,
        samesite="lax" if site == "lax" else "strict",
        secure=parts(request).settings.public_origin.startswith("https:"),
    )
