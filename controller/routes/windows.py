"""Windows, applications and the clipboard of a desktop."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from controller.answers import OF_DESKTOP
from controller.routes import Id, desktop, dumped, recorded
from controller.streams import until_gone
from workspace.errors import InvalidRequest
from workspace.models import (
    ApplicationList,
    Clipboard,
    ClipboardContents,
    ClipboardPart,
    Launch,
    Launched,
    Selection,
    WaitSeconds,
    Window,
    WindowChange,
    WindowMove,
    WindowResize,
)

router = APIRouter(prefix="/v1/workspaces/{workspace_id}", tags=["windows"], responses=OF_DESKTOP)


@router.get("/clipboard", response_model=ClipboardContents)
async def get_clipboard(
    request: Request,
    workspace_id: Id,
    selection: Selection = "clipboard",
    only: Annotated[ClipboardPart | None, Query(description="ask for no other form")] = None,
) -> Response:
    """What was copied (or, of ``primary``, what is marked): text, HTML, a PNG."""
    target = await desktop(request, workspace_id)
    reading = target.clipboard_contents(selection=selection, only=only)
    # Not FastAPI's own validation: it would take the picture for base64 again.
    return Response(
        dumped(await until_gone(request.receive, reading)), media_type="application/json"
    )


@router.put("/clipboard", status_code=204)
async def put_clipboard(
    request: Request, workspace_id: Id, body: Clipboard, selection: Selection = "clipboard"
) -> None:
    """Put text, HTML and a PNG on the clipboard: the same thing in up to three forms."""
    target = await desktop(request, workspace_id)
    length = sum(len(part) for part in (body.text, body.html, body.image) if part is not None)
    async with recorded(request, workspace_id, "clipboard", length=length, selection=selection):
        await target.set_clipboard(body.text, html=body.html, image=body.image, selection=selection)


@router.get("/windows")
async def windows(request: Request, workspace_id: Id) -> list[Window]:
    """The top-level windows."""
    return await (await desktop(request, workspace_id)).windows()


@router.get("/windows/wait")
async def wait_for_window(
    request: Request,
    workspace_id: Id,
    title: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
    window_class: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
    seconds: WaitSeconds = 15,
) -> Window:
    """Wait until a window with those texts in its title and class is on the screen."""
    if title is None and window_class is None:
        raise InvalidRequest("Waiting for a window needs a title, a window_class, or both.")
    target = await desktop(request, workspace_id)
    waiting = target.wait_for_window(title=title, window_class=window_class, seconds=seconds)
    return await until_gone(request.receive, waiting)


@router.post("/windows/{window}/move")
async def move(request: Request, workspace_id: Id, window: int, body: WindowMove) -> Window:
    """Move a window; it is answered as the window manager then left it."""
    target = await desktop(request, workspace_id)
    told = {"window": window, "action": "move", "x": body.x, "y": body.y}
    async with recorded(request, workspace_id, "window", **told):
        return await target.move_window(window, body.x, body.y)


@router.post("/windows/{window}/resize")
async def resize(request: Request, workspace_id: Id, window: int, body: WindowResize) -> Window:
    """Resize a window, without its frame; it is answered as it then is."""
    target = await desktop(request, workspace_id)
    told = {"window": window, "action": "resize", "width": body.width, "height": body.height}
    async with recorded(request, workspace_id, "window", **told):
        return await target.resize_window(window, body.width, body.height)


@router.post("/windows/{window}/state")
async def set_state(request: Request, workspace_id: Id, window: int, body: WindowChange) -> Window:
    """Make a window normal, minimised, maximised or fullscreen."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "window", window=window, action=body.state):
        return await target.set_window_state(window, body.state)


@router.post("/windows/{window}/focus", status_code=204)
async def focus(request: Request, workspace_id: Id, window: int) -> None:
    """Raise a window and give it the keyboard."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "window", window=window, action="focus"):
        await target.focus_window(window)


@router.post("/windows/{window}/close", status_code=204)
async def close(request: Request, workspace_id: Id, window: int) -> None:
    """Ask a window to close, as its button would."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "window", window=window, action="close"):
        await target.close_window(window)


@router.get("/applications")
async def applications(
    request: Request,
    workspace_id: Id,
    limit: Annotated[int, Query(ge=1, le=500)] = 500,
    after: Annotated[str | None, Query(max_length=255)] = None,
) -> ApplicationList:
    """The applications that are installed, by name."""
    return await (await desktop(request, workspace_id)).applications(limit=limit, after=after)


@router.post("/applications")
async def launch(request: Request, workspace_id: Id, body: Launch) -> Launched:
    """Start an application by its desktop file's name and wait for its window."""
    target = await desktop(request, workspace_id)

    async def play() -> Launched:
        async with recorded(request, workspace_id, "application", name=body.name) as told:
            launched = await target.launch(
                body.name, body.arguments, wait_seconds=body.wait_seconds
            )
            told["job"] = launched.job.id
            return launched

    return await until_gone(request.receive, play())
