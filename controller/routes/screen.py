"""The screen: actions and pictures.

The two that agents call all day, actions and screenshot, validate once and hand the answer on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response
from pydantic import BeforeValidator

from controller.answers import OF_DESKTOP, Responses
from controller.live import SYSTEM
from controller.metrics import Metrics
from controller.routes import Id, caller, desktop, dumped, parts, recorded
from controller.streams import until_gone
from workspace import actions as a
from workspace import frames, logs
from workspace.errors import InvalidRequest
from workspace.models import Health, Screen, ScreenChange

router = APIRouter(prefix="/v1/workspaces/{workspace_id}", tags=["screen"], responses=OF_DESKTOP)
MOST_BOXES = 20  # of what has changed
_TOLD_BY_DIGEST = {"cursor", "screen", "effect", "settled", "changed", "still_changing"}
_EXAMPLES = {
    "click": {"value": {"type": "click", "x": 10, "y": 20}},
    "several": {
        "summary": "Several in order; it stops at the first that fails",
        "value": [
            {"type": "key", "chord": "ctrl+l"},
            {"type": "type", "text": "https://example.org\n"},
            {"type": "screenshot", "format": "jpeg"},
        ],
    },
}
_PICTURES: Responses = {
    200: {
        "content": {f"image/{kind}": {} for kind in ("jpeg", "png", "webp")},
        "description": "The picture's bytes",
    },
    304: {"description": "It is still the frame that was asked since"},
}


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


OneOrMore = Annotated[
    a.Actions, BeforeValidator(_as_list, json_schema_input_type=a.Action | a.Actions)
]


@router.post("/actions", response_model=a.Observation)
async def act(
    request: Request,
    workspace_id: Id,
    body: Annotated[OneOrMore, Body(openapi_examples=_EXAMPLES)],
    settle_ms: Annotated[
        int, Query(ge=0, le=10_000, description="wait for the screen to come to rest, at most")
    ] = 0,
    observe: Annotated[
        a.Observe, Query(description="frame: bring a picture and the effect that was seen")
    ] = "none",
) -> Response:
    """Play one action or several in order; never retried."""
    own = parts(request)
    handed = await own.lifecycle.handed(workspace_id, actor=caller(request).name)
    target, keep = handed.desktop, handed.keep_frames

    async def play() -> bytes:
        if (answering := logs.current()) is not None:
            answering.actions = tuple(each.type for each in body)
        told = [_told(each) for each in body]
        async with recorded(request, workspace_id, "act", actions=told) as event:
            kept = own.frames.around(target, workspace_id, keep, event)
            async with kept if keep != "none" else nullcontext():
                began = time.perf_counter()
                seen = await target.act(*body, settle_ms=settle_ms, observe=observe)
                took = time.perf_counter() - began
            event["seen"] = seen_as_told(seen)
        _count(own.lifecycle.metrics, body, seen, took)
        await own.lifecycle.note_size(workspace_id, seen.screen)
        if seen.restarted:
            await own.events.record(
                "restarted", actor=SYSTEM, workspace_id=workspace_id, what="X server"
            )
        return dumped(seen)

    return Response(await until_gone(request.receive, play()), media_type="application/json")


def _count(
    metrics: Metrics, played: Sequence[a.Action], seen: a.Observation, seconds: float
) -> None:
    metrics.observe_actions([each.type for each in played], seconds)
    if seen.screenshot is not None:
        metrics.observe_picture("frame", len(seen.screenshot.data))
    elif seen.delta is not None:
        size = sum(len(patch.image.data) for patch in seen.delta.patches)
        metrics.observe_picture("delta", size)
    elif seen.unchanged:
        metrics.observe_picture("unchanged")


def _told(action: a.Action) -> dict[str, Any]:  # Any: JSON values
    """An action as the log tells of it: what was typed is nobody's business, its length may be."""
    if isinstance(action, a.Type):
        return {"type": "type", "length": len(action.text)}
    if isinstance(action, a.SetValue):
        value = str(action.value)
        return {"type": "set_value", "element": action.element, "length": len(value)}
    element = getattr(action, "element", None)
    if element is not None:
        return {"type": action.type, "element": element}
    if isinstance(action, a.Click | a.Move):
        return {"type": action.type, "x": action.x, "y": action.y}
    return {"type": action.type}


def seen_as_told(observation: a.Observation) -> dict[str, Any]:  # Any: JSON values
    """What the caller got to see, as the log tells of it: no picture and no text of the screen.

    ``frame`` names the picture's bytes; ``digest`` is of all else but texts and times.
    """
    if observation.effect == "not_observed" and observation.screenshot is None:
        return {"effect": observation.effect}
    told: dict[str, Any] = {"effect": observation.effect, "settled": observation.settled}
    boxes = observation.changed[:MOST_BOXES]
    told["changed"] = [[box.x, box.y, box.width, box.height] for box in boxes]
    if observation.screenshot is not None:
        told["frame"] = observation.screenshot.frame
    rest = observation.model_dump_json(include=_TOLD_BY_DIGEST)
    told["digest"] = hashlib.sha256(f"{told.get('frame')} {rest}".encode()).hexdigest()[:16]
    return told


@router.get("/screenshot", response_class=Response, responses=_PICTURES)
async def screenshot(
    request: Request,
    workspace_id: Id,
    format: a.ImageFormat = "jpeg",
    quality: Annotated[int, Query(ge=1, le=100)] = 80,
    scale: Annotated[float, Query(gt=0, le=4)] = 1.0,
    cursor: bool = True,
    x: a.Pixel | None = None,
    y: a.Pixel | None = None,
    width: Annotated[int | None, Query(ge=1, le=32767)] = None,
    height: Annotated[int | None, Query(ge=1, le=32767)] = None,
    since: a.Frame | None = None,
    passive: Annotated[
        bool, Query(description="it is no use: the idle clock goes on, and a pause lasts")
    ] = False,
) -> Response:
    """A picture of the screen, or of a region (x, y, width, height).

    Its ``X-Carrel-Frame`` and ``ETag`` name it; asked ``since`` that frame, or with
    ``If-None-Match``, the answer is 304 while the picture would be the same.
    """
    region = None
    if x is not None and y is not None and width is not None and height is not None:
        region = a.Region(x=x, y=y, width=width, height=height)
    elif not (x is y is width is height is None):
        raise InvalidRequest("A region needs x, y, width and height.")
    if passive:
        target = await parts(request).lifecycle.glance(workspace_id)
    else:
        target = await desktop(request, workspace_id)
    frame = frames.known(since, request.headers)
    picture = await target.screenshot_since(
        frame,
        format=format,
        quality=quality,
        scale=scale,
        region=region,
        cursor=cursor,
        passive=passive,
    )
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if picture is None:
        assert frame is not None, "nothing is unchanged since no frame"
        parts(request).lifecycle.metrics.observe_picture("unchanged")
        return Response(status_code=304, headers=headers | frames.tags(frame))
    parts(request).lifecycle.metrics.observe_picture("screenshot", len(picture.data))
    return Response(
        picture.data,
        media_type=f"image/{format}",
        headers=headers | frames.headers(picture),
    )


@router.post("/screen")
async def change(request: Request, workspace_id: Id, body: ScreenChange) -> Screen:
    """Change the screen's size, or its dots per inch; it is answered as it then is."""
    target = await desktop(request, workspace_id)
    async with recorded(request, workspace_id, "screen", **body.model_dump(exclude_none=True)):
        screen = await target.set_screen(body.width, body.height, dpi=body.dpi)
        await parts(request).lifecycle.note_screen(workspace_id, screen)
        return screen


@router.get("/health")
async def health(request: Request, workspace_id: Id) -> Health:
    """What the daemon in the desktop says of itself. It is no use of it."""
    return await (await parts(request).lifecycle.glance(workspace_id)).health()
