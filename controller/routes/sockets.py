"""WebSockets of a desktop: relayed with their query as it stands; desktopd judges it."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketState

from controller.problems import deny
from controller.routes import caller, parts, recorded
from controller.watch import relay
from workspace.errors import CarrelError, Forbidden

router = APIRouter(prefix="/v1/workspaces/{workspace_id}")


@router.websocket("/vnc")
async def vnc(websocket: WebSocket, workspace_id: str) -> None:
    """The screen live, as RFB in binary frames; ``role`` is view or control."""
    role = websocket.query_params.get("role", "view")
    if role == "control" and caller(websocket).role != "admin":
        return await deny(websocket, Forbidden("Taking control needs a key."))
    kind = "control" if role == "control" else "watch"
    await _relay(websocket, workspace_id, f"/vnc?role={quote(role)}", kind)


@router.websocket("/terminal")
async def terminal(websocket: WebSocket, workspace_id: str) -> None:
    """A terminal: binary frames both ways; see ARCHITECTURE."""
    await _relay(websocket, workspace_id, f"/terminal?{websocket.url.query}", "terminal")


@router.websocket("/processes/{job}/stream")
async def stream(websocket: WebSocket, workspace_id: str, job: str) -> None:
    """A job's output as it comes."""
    path = f"/processes/{quote(job, safe='')}/stream?{websocket.url.query}"
    await _relay(websocket, workspace_id, path, "job_stream")


async def _relay(websocket: WebSocket, workspace_id: str, path: str, kind: str) -> None:
    try:
        lifecycle = parts(websocket).lifecycle
        endpoint = await lifecycle.endpoint(workspace_id, actor=caller(websocket).name)
        async with recorded(websocket, workspace_id, kind, path=path[:500]):
            await relay(websocket, endpoint, path)
    except CarrelError as error:
        if websocket.application_state is WebSocketState.CONNECTING:
            await deny(websocket, error)
        else:
            await websocket.close(1011, error.message[:120])
