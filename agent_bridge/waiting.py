"""The tool wait_for: the waits of :mod:`workspace.waits`, with the fields of all in one schema."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from mcp.types import ContentBlock, TextContent
from pydantic import BaseModel, Field, ValidationError

from agent_bridge.caller import Caller
from agent_bridge.inputs import FromJson, NotBool, OnDesktop, explain
from agent_bridge.pictures import View
from agent_bridge.windows import described
from workspace import actions as a
from workspace import waits as w
from workspace.errors import InvalidRequest, TimedOut

MAX_SECONDS = 45.0
_MODELS: dict[str, type[BaseModel]] = {
    model.model_fields["type"].default: model for model in get_args(get_args(w.Wait)[0])
}
_RENAMED = {"job_id": "job"}  # as shell_run calls it
_REGION_TOLD = 1000


class WaitFor(OnDesktop):
    """The arguments of wait_for."""

    until: Annotated[str, Field(json_schema_extra={"enum": list(_MODELS)})]
    seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS, description="at most")] = 15
    text: Annotated[str | None, Field(description="text_*: a part of it, in any case")] = None
    region: Annotated[
        a.Region | None, FromJson, Field(description="region_*: none is the whole screen")
    ] = None
    stable_ms: Annotated[
        int | None, NotBool, Field(description="region_stable, file_exists: unchanged for so long")
    ] = None
    title: Annotated[str | None, Field(description="window_*: a part of it")] = None
    window_class: str | None = None
    path: Annotated[str | None, Field(description="file_exists: may end in a pattern, *.pdf")] = (
        None
    )
    port: Annotated[int | None, NotBool] = None
    job_id: Annotated[str | None, Field(description="process_ends: this, pid or name")] = None
    pid: Annotated[int | None, NotBool] = None
    name: str | None = None


async def wait_for(caller: Caller, asked: WaitFor) -> list[ContentBlock]:
    view = await caller.view(asked.desktop_id)
    wanted = to_wait(asked, view)
    try:
        found = await caller.carrel.desktop(asked.desktop_id).wait_for(wanted)
    except TimedOut as error:
        if view.divisor > 1:
            error.hint += f" Coordinates in this are {view.divisor} times those of your pictures."
        raise
    return [TextContent(type="text", text=_told(found, view))]


def to_wait(asked: WaitFor, view: View) -> w.Wait:
    """The wait, in the screen's pixels.

    Raises:
        InvalidRequest: a field is missing, wrong, or not of this kind of wait.
        OffScreen: the region is outside the picture.
    """
    model = _MODELS.get(asked.until)
    if model is None:
        raise InvalidRequest(
            f"There is no {asked.until[:40]!r} to wait for.",
            hint=f"There are: {', '.join(_MODELS)}.",
        )
    given: dict[str, Any] = {  # Any: JSON values, parsed by the model
        _RENAMED.get(name, name): value
        for name, value in asked.model_dump(exclude={"desktop_id", "until"}).items()
        if value is not None
    }
    if asked.region is not None:
        given["region"] = view.region_to_screen(asked.region)
    try:
        return w.WAIT.validate_python({"type": asked.until, **given})
    except ValidationError as error:
        fields = {own: name for name, own in _RENAMED.items()}
        takes = [fields.get(name, name) for name in model.model_fields if name != "type"]
        raise InvalidRequest(
            explain(error), hint=f"{asked.until} takes: {', '.join(takes)}."
        ) from error


def _told(found: w.Waited, view: View) -> str:
    parts = [f"It is so, after {found.elapsed_ms / 1000:.2f} s."]
    if found.element is not None:
        parts.append(f"{found.element} shows {(found.text or '')[:_REGION_TOLD]!r}.")
    if found.region is not None:
        parts.append(f"Where: {_placed(found.region, view)}.")
    if found.window is not None:
        parts.append(f"The window: {described(found.window, view)}.")
    if found.file is not None:
        parts.append(f"{found.file.path!r}, {found.file.size} bytes.")
    if found.address is not None:
        parts.append(f"It is listened on at {found.address}.")
    if found.exit_code is not None:
        parts.append(f"Its exit code is {found.exit_code}.")
    return " ".join(parts)


def _placed(region: a.Region, view: View) -> str:
    (width, height), (wide, high) = view.size, view.screen
    x, y = view.to_picture(region.x, region.y)
    size = f"{-(-region.width * width // wide)}x{-(-region.height * height // high)}"
    return f"{size} pixels at ({x}, {y})"
