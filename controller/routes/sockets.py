"""WebSockets of a desktop: relayed with their query as it stands; desktopd judges it."""

from __future__ import annotations

import time
from urllib.parse import quote, urlencode

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketState

from controller.problems import deny
from controller.routes import caller, parts, recorded, while_admitted
from controller.routes.processes import TOLD
from controller.watch import relay
from workspace.control import ControlRequest
from workspace.errors import CarrelError, Unauthorized

router = APIRouter(prefix="/v1/workspaces/{workspace_id}")


@router.websocket("/vnc")
async def vnc(websocket: WebSocket, workspace_id: str) -> None:
    """The screen live, as RFB in binary frames; ``role`` is view or control.

    With control it is taken, unless a ``grant`` of ``POST .../control`` is given. It is handed back
    when this has been closed for some seconds.
    """
    role = websocket.query_params.get("role", "view")
    if role != "control":
        return await _relay(
            websocket, workspace_id, f"/vnc?role={quote(role)}", "watch", role=role[:20]
        )
    who = caller(websocket)
    grant = websocket.query_params.get("grant")
    try:
        if grant is None:
            controls = parts(websocket).controls
            taken = await controls.take(workspace_id, ControlRequest(), actor=who.name)
            grant = taken.grant or ""
    except CarrelError as error:
        return await deny(websocket, error)
    asked = urlencode({"role": "control", "holder": who.name, "grant": grant})
    await _relay(websocket, workspace_id, f"/vnc?{asked}", "control")


@router.websocket("/terminal")
async def terminal(websocket: WebSocket, workspace_id: str) -> None:
    """A terminal: binary frames both ways; see ARCHITECTURE."""
    command = websocket.query_params.get("command", "")[:TOLD]
    told = {"command": command} if command else {}
    await _relay(websocket, workspace_id, f"/terminal?{websocket.url.query}", "terminal", **told)


@router.websocket("/processes/{job}/stream")
async def stream(websocket: WebSocket, workspace_id: str, job: str) -> None:
    """A job's output as it comes."""
    path = f"/processes/{quote(job, safe='')}/stream?{websocket.url.query}"
    await _relay(websocket, workspace_id, path, "job_stream", job=job[:TOLD])


@router.websocket("/tools/{name}")
async def tools(websocket: WebSocket, workspace_id: str, name: str) -> None:
    """A tool server of the desktop's own, started for this: a text frame for each line of it."""
    path = f"/tools/{quote(name, safe='')}"
    await _relay(websocket, workspace_id, path, "tools", server=name[:TOLD])


async def _relay(
    websocket: WebSocket, workspace_id: str, path: str, kind: str, **told: str
) -> None:
    """Relay it. Its begin is recorded before the caller gets it, its end as ``<kind>_end``."""
    began: float | None = None

    async def begin() -> None:
        nonlocal began
        async with recorded(websocket, workspace_id, kind, **told):
            began = time.monotonic()

    try:
        lifecycle = parts(websocket).lifecycle
        endpoint = await lifecycle.endpoint(workspace_id, actor=caller(websocket).name)
        try:
            await while_admitted(websocket, relay(websocket, endpoint, path, begin))
        finally:
            if began is not None:
                took = round(time.monotonic() - began, 3)
                async with recorded(websocket, workspace_id, f"{kind}_end", seconds=took):
                    pass
    except CarrelError as error:
        if websocket.application_state is WebSocketState.CONNECTING:
            await deny(websocket, error)
        else:
            is_refused = isinstance(error, Unauthorized)
            await websocket.close(1008 if is_refused else 1011, error.message[:120])
