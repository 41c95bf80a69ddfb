"""The log live, as server-sent events and by WebSocket; and the log as a record to verify and keep.

Both live forms go on after the id that ``Last-Event-ID`` or ``after`` says, tell each event once
and in order, and show by a heartbeat that they live. Without an id they begin with what is new:
with what is written once the socket is accepted, or the event stream's ``retry`` has come.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query, Request, WebSocket
from fastapi.responses import Response
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect, WebSocketState

from controller.answers import OF_WORKSPACE, Responses, raises
from controller.problems import CallerGone, deny
from controller.routes import Id, caller, parts, seen_by
from controller.store import Seen, exporting, verifying
from controller.store.chain import Finding
from controller.store.signing import Signer
from controller.streams import READ_SECONDS, Stream, until_gone, within
from controller.tail import Told
from workspace.errors import (
    CarrelError,
    Conflict,
    InvalidRequest,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from workspace.models import AuditFinding, AuditReport

router = APIRouter(prefix="/v1", tags=["events"])
sockets = APIRouter(prefix="/v1")
RETRY_MS = 1000
VERIFY_SECONDS = 60.0
MOST_FINDINGS = 1000
_EVENTS: Responses = {
    200: {"content": {"text/event-stream": {}}, "description": "Events, each with its id"}
}
_LINES: Responses = {200: {"content": {"application/x-ndjson": {}}, "description": "JSON lines"}}
After = Annotated[
    int | None, Query(ge=0, le=2**62, description="an event's id; 0: from the beginning")
]
LastId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)]
_verifying = anyio.Lock()


@router.get("/events/stream", response_class=Response, responses=_EVENTS)
async def stream(request: Request, after: After = None, last_event_id: LastId = None) -> Response:
    """The log as it grows, as server-sent events; it goes on after an id."""
    return _stream(request, seen_by(request), _position(after, last_event_id))


@router.get(
    "/workspaces/{workspace_id}/events/stream",
    response_class=Response,
    responses=OF_WORKSPACE | _EVENTS,
)
async def workspace_stream(
    request: Request, workspace_id: Id, after: After = None, last_event_id: LastId = None
) -> Response:
    """What is done to one workspace, likewise."""
    await parts(request).lifecycle.get(workspace_id)
    return _stream(request, seen_by(request, workspace_id), _position(after, last_event_id))


def _position(after: int | None, last_event_id: str | None) -> int | None:
    """What a browser that comes again says is newer than what stands in its address."""
    if last_event_id is None:
        return after
    if not (last_event_id.isascii() and last_event_id.isdigit()) or int(last_event_id) > 2**62:
        raise InvalidRequest("Last-Event-ID: it is no event's id.")
    return int(last_event_id)


def _stream(connection: HTTPConnection, seen: Seen, after: int | None) -> Response:
    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            async with parts(connection).tail.follow(seen, after) as groups:
                yield f"retry: {RETRY_MS}\n\n".encode()
                async for group in groups:
                    await _check_admitted(connection)
                    yield _as_sent(group)
        except CarrelError as error:
            yield f"event: end\ndata: {json.dumps(error.to_wire())}\n\n".encode()

    return Stream(pieces(), media_type="text/event-stream")


async def _check_admitted(connection: HTTPConnection) -> None:
    """Raises Unauthorized once what proved who follows is good no more: nothing is told then."""
    with suppress(Unavailable):  # nobody can tell: it goes on
        if not await parts(connection).auth.still_admits(caller(connection)):
            raise Unauthorized("This key or link is good no more.")


def _as_sent(group: Sequence[Told]) -> bytes:
    """WHATWG's event stream; none of them is a comment, which keeps the connection alive."""
    if not group:
        return b":\n\n"
    return "".join(f"id: {told.id}\ndata: {told.text}\n\n" for told in group).encode()


@sockets.websocket("/events/stream")
async def socket(websocket: WebSocket) -> None:
    """The same, as text frames."""
    await _frames(websocket, seen_by(websocket))


@sockets.websocket("/workspaces/{workspace_id}/events/stream")
async def workspace_socket(websocket: WebSocket, workspace_id: str) -> None:
    """The same of one workspace."""
    try:
        await parts(websocket).lifecycle.get(workspace_id)
    except CarrelError as error:
        return await deny(websocket, error)
    await _frames(websocket, seen_by(websocket, workspace_id))


async def _frames(websocket: WebSocket, seen: Seen) -> None:
    try:
        asked = websocket.query_params.get("after")
        after = _position(None, asked)
    except CarrelError as error:
        return await deny(websocket, error)

    async def tell(groups: AsyncIterator[Sequence[Told]]) -> None:
        async for group in groups:  # a heartbeat is the protocol's own
            await _check_admitted(websocket)
            for told in group:
                await within(READ_SECONDS, websocket.send_text(told.text), websocket.scope)

    async def receive() -> Any:  # Any: an ASGI message
        message = await websocket.receive()
        return {"type": "http.disconnect"} if message["type"] == "websocket.disconnect" else message

    try:
        async with parts(websocket).tail.follow(seen, after) as groups:
            await websocket.accept()
            await until_gone(receive, tell(groups))
    except (CallerGone, WebSocketDisconnect):
        return
    except CarrelError as error:
        if websocket.application_state is WebSocketState.CONNECTING:
            return await deny(websocket, error)
        await websocket.close(1011, error.message[:120])


# The record.


@router.get("/audit", response_class=Response, responses=_LINES)
async def audit(
    request: Request,
    workspace: Annotated[str | None, Query(max_length=100)] = None,
    since: datetime | None = None,
) -> Response:
    """The log as JSON lines, chained and signed: what `carrel audit verify FILE` verifies."""
    own = parts(request)
    if since is not None and since.tzinfo is None:
        raise InvalidRequest("since: it has no time zone.", hint="Give one, such as Z.")
    lines = exporting.export(
        own.settings.database, Signer(own.auth.audit_key), workspace=workspace, since=since
    )
    return Stream(lines, media_type="application/x-ndjson")


@router.get("/audit/verify", responses=raises(Conflict, TimedOut))
async def verify(
    request: Request, workspace: Annotated[str | None, Query(max_length=100)] = None
) -> AuditReport:
    """Whether the log, or one workspace's part of it, is as it was written. One at a time."""
    own = parts(request)
    findings: list[Finding] = []
    asked = verifying.verify(
        own.settings.database,
        Signer(own.auth.audit_key),
        lambda finding: findings.append(finding) if len(findings) < MOST_FINDINGS else None,
        workspace=workspace,
    )
    try:
        _verifying.acquire_nowait()
    except anyio.WouldBlock:
        asked.close()
        raise Conflict("The log is being verified.", hint="Ask again in a minute.") from None
    try:
        with anyio.fail_after(VERIFY_SECONDS):
            report = await until_gone(request.receive, asked)
    except TimeoutError as error:
        raise TimedOut(
            f"The log is too long to verify it in {VERIFY_SECONDS:.0f} seconds.",
            hint="Run `carrel audit verify` on the controller's machine, or ask for a workspace's.",
        ) from error
    finally:
        _verifying.release()
    return AuditReport(
        ok=not report.findings,
        lines=report.lines,
        chains=report.chains,
        checkpoints=report.checkpoints,
        newest_checkpoint=report.newest.hash if report.newest else None,
        unsigned_lines=report.unsigned,
        findings=[AuditFinding.model_validate(each._asdict()) for each in findings],
    )
