"""Who one is: a browser's key becomes a cookie, a viewer's link becomes another."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from controller import access
from controller.answers import OF_WORKSPACE
from controller.auth import SESSION_SECONDS, VIEWER_GRACE_SECONDS
from controller.routes import Id, caller, parts
from workspace.access import Admission
from workspace.errors import Unauthorized
from workspace.models import MAX_TTL_SECONDS, Identity

router = APIRouter(prefix="/v1", tags=["session"])


class _Secret(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Login(_Secret):
    """The body of ``POST /v1/login``."""

    key: str = Field(min_length=1, max_length=1000)


class ViewerToken(_Secret):
    """The body of ``POST .../viewer``: what stands after the ``#`` of a watch_url."""

    token: str = Field(min_length=1, max_length=1000)


@router.post("/login", status_code=204)
async def login(request: Request, body: Login) -> Response:
    """Exchange a key for a session cookie that scripts cannot read."""
    auth = parts(request).auth
    who = await auth.by_key(body.key)
    await parts(request).events.record("login", actor=who.name)
    return _with_cookie(request, auth.session_cookie, auth.session(who), SESSION_SECONDS)


@router.post("/logout", status_code=204)
async def logout(request: Request) -> Response:
    """Forget the session cookie."""
    who = request.scope["caller"]
    if who is not None:  # anybody may ask; only who was somebody is told of
        await parts(request).events.record("logout", actor=who.name)
    return _with_cookie(request, parts(request).auth.session_cookie, "", 0)


@router.get("/whoami")
async def whoami(request: Request) -> Identity:
    """Whose key or session this is."""
    who = caller(request)
    assert who.role != "link", "the gate let none through"
    return Identity(name=who.name, role=who.role, tenant=who.tenant)


@router.post("/workspaces/{workspace_id}/viewer", status_code=204, responses=OF_WORKSPACE)
async def viewer(request: Request, workspace_id: Id, body: ViewerToken) -> Response:
    """Exchange a link's token for a cookie that shows this one desktop."""
    auth = parts(request).auth
    found = await auth.by_viewer(body.token)
    if found is None or found.workspace_id != workspace_id:
        raise Unauthorized(
            "This link is not valid, or no longer.", hint="Ask for a new one: its watch_url."
        )
    await parts(request).events.record("viewer", actor=found.name, workspace_id=workspace_id)
    return _with_cookie(
        request,
        auth.viewer_cookie,
        body.token,
        MAX_TTL_SECONDS + VIEWER_GRACE_SECONDS,  # the token itself expires before
        path=f"/v1/workspaces/{workspace_id}",
    )


@router.get("/workspaces/{workspace_id}/viewer", responses=OF_WORKSPACE)
async def admission(request: Request, workspace_id: Id) -> Admission:
    """Whether who asks, by a link or a key, may only watch this desktop or also control it."""
    await parts(request).lifecycle.get(workspace_id)
    return Admission(mode=access.mode(caller(request)))


def _with_cookie(
    request: Request, name: str, value: str, seconds: int, *, path: str = "/"
) -> Response:
    answer = Response(status_code=204)
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        path=path,
        httponly=True,
        samesite="strict",
        secure=parts(request).settings.public_origin.startswith("https:"),
    )
    return answer
