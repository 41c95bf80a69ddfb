"""The service itself: whether it lives, whether it is ready, its numbers, and the dashboard."""

from __future__ import annotations

from pathlib import Path

import anyio
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from controller.answers import GATED, Responses, raises
from controller.metrics import CONTENT_TYPE
from controller.routes import parts
from workspace.errors import NotFound, Unavailable

READY_SECONDS = 5.0
DASHBOARD = Path(__file__).parent.parent / "dashboard"
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; connect-src 'self'; style-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

router = APIRouter(tags=["service"])
_NUMBERS: Responses = {200: {"content": {"text/plain": {}}, "description": "The numbers"}}


@router.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Whether this process serves."""
    return {"ok": True}


@router.get("/readyz", responses=raises(Unavailable))
async def readyz(request: Request) -> dict[str, bool | str]:
    """Whether its database and its cluster answer; 503 when they do not.

    ``degraded`` says what does not work though it serves.
    """
    own = parts(request)
    for name, question in (("database", own.store.ping), ("cluster", own.cluster.nodes)):
        try:
            with anyio.fail_after(READY_SECONDS):
                await question()
        except Exception as error:  # whatever it is, this one is not ready
            raise Unavailable(f"The {name} does not answer: {error}") from error
    told: dict[str, bool | str] = {"ready": True}
    return told | {"degraded": own.tail.trouble} if own.tail.trouble else told


@router.get("/metrics", response_class=Response, responses=GATED | _NUMBERS)
async def metrics(request: Request) -> Response:
    """The controller's numbers in Prometheus's text format."""
    return Response(parts(request).lifecycle.metrics.render(), media_type=CONTENT_TYPE)


@router.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
def openapi(request: Request) -> JSONResponse:  # in a thread: the first time takes a second
    api = request.app
    assert isinstance(api, FastAPI)
    return JSONResponse(api.openapi())


@router.get("/", include_in_schema=False)
async def index() -> Response:
    return _page("index.html")


@router.get("/fleet", include_in_schema=False)
async def fleet() -> Response:
    return _page("fleet.html")


@router.get("/watch/{workspace_id}", include_in_schema=False)
async def watch(workspace_id: str) -> Response:
    return _page("watch.html")


def _page(name: str) -> Response:
    path = DASHBOARD / name
    if not path.is_file():
        raise NotFound("This installation has no dashboard.")
    return FileResponse(path, headers=PAGE_HEADERS)


class Static(StaticFiles):
    """The dashboard's scripts and styles."""

    def __init__(self) -> None:
        super().__init__(directory=DASHBOARD, check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(PAGE_HEADERS)
        return answer
