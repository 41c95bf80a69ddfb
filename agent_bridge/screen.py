"""The tools that look and act: computer, computer_batch, screenshot.

The flat arguments of a tool become the models of :mod:`workspace.actions`, in the coordinates of
the picture that the model saw; every action of a call is checked before the first is done. What
comes back says what could be seen of the effect, and is never "ok".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from mcp.types import ContentBlock, TextContent
from pydantic import BaseModel, Field, ValidationError

from agent_bridge import pictures
from agent_bridge.caller import Caller
from agent_bridge.inputs import FromJson, Input, NotBool, OnDesktop, explain
from agent_bridge.pictures import View
from workspace import actions as a
from workspace.errors import CarrelError, Forbidden, InvalidRequest
from workspace.summary import summary_of

SETTLE_MS = 1500
MAX_SECONDS = 40.0
MAX_TEXT = 4000

_MODELS: dict[str, type[BaseModel]] = {
    model.model_fields["type"].default: model for model in get_args(get_args(a.Action)[0])
}
_LOOKING = (a.Screenshot, a.Zoom)
Pictured = Annotated[
    Literal["after", "none"], Field(description="after: a picture once the screen has calmed")
]
Pair = Annotated[list[Annotated[int, NotBool]], Field(min_length=2, max_length=2)]


class FlatAction(Input):
    """One action, with the fields of every kind of it."""

    action: Annotated[str, Field(json_schema_extra={"enum": list(_MODELS)})]
    x: Annotated[int | None, NotBool] = None
    y: Annotated[int | None, NotBool] = None
    element: Annotated[
        str | None, Field(description="e12 of ui_tree: act on it in place of x and y")
    ] = None
    value: Annotated[str | None, Field(description="set_value")] = None
    name: Annotated[str | None, Field(description="invoke: which of its actions")] = None
    button: Annotated[a.Button | None, Field(description="default left")] = None
    count: Annotated[int | None, Field(description="click: 2 is a double click")] = None
    modifiers: Annotated[
        list[str] | None, FromJson, Field(description="keys held meanwhile: ctrl, shift, alt")
    ] = None
    text: Annotated[str | None, Field(description="type: any Unicode; \\n is Return")] = None
    chord: Annotated[str | None, Field(description="key*: ctrl+s, Return, alt+F4")] = None
    repeat: Annotated[int | None, Field(description="key: how often")] = None
    dx: Annotated[int | None, Field(description="scroll: notches to the right")] = None
    dy: Annotated[int | None, Field(description="scroll: notches down")] = None
    path: Annotated[
        list[Pair] | None, FromJson, Field(description="drag: [[x, y], [x, y], ...]")
    ] = None
    region: Annotated[a.Region | None, FromJson, Field(description="zoom, screenshot")] = None
    seconds: Annotated[float | None, Field(description="wait, hold_key")] = None


class Computer(FlatAction, OnDesktop):
    """The arguments of computer."""

    screenshot: Pictured = "after"


class ComputerBatch(OnDesktop):
    """The arguments of computer_batch."""

    actions: Annotated[list[FlatAction], FromJson, Field(min_length=1, max_length=20)]
    screenshot: Pictured = "after"


class Screenshot(OnDesktop):
    """The arguments of screenshot."""

    region: Annotated[
        a.Region | None, FromJson, Field(description="only this part, enlarged for reading")
    ] = None
    format: Literal["jpeg", "png"] = "jpeg"


async def computer(caller: Caller, asked: Computer) -> list[ContentBlock]:
    return await _act(caller, asked.desktop_id, [asked], asked.screenshot)


async def computer_batch(caller: Caller, asked: ComputerBatch) -> list[ContentBlock]:
    return await _act(caller, asked.desktop_id, asked.actions, asked.screenshot)


async def screenshot(caller: Caller, asked: Screenshot) -> list[ContentBlock]:
    view = await caller.view(asked.desktop_id)
    desktop = caller.carrel.desktop(asked.desktop_id)
    region = None if asked.region is None else view.region_to_screen(asked.region)
    try:
        seen = await pictures.look(desktop, view, region=region, format=asked.format)
    except Forbidden:  # who may only look does that without touching the desktop
        image = await pictures.glance(desktop, view, region=region, format=asked.format)
        return _pictured("", image, view, is_zoom=region is not None)
    return _answer("", seen, view, is_zoom=region is not None)


async def _act(
    caller: Caller, desktop_id: str, asked: list[Computer] | list[FlatAction], pictured: str
) -> list[ContentBlock]:
    view = await caller.view(desktop_id)
    actions = [_numbered(index, item, len(asked), view) for index, item in enumerate(asked)]
    _check_length(actions)
    looking = actions[-1] if isinstance(actions[-1], _LOOKING) else None
    acting = actions[:-1] if looking else actions
    if any(isinstance(action, _LOOKING) for action in acting):
        raise InvalidRequest(
            "A screenshot or zoom can only be the last action of a batch.",
            hint="Nothing was done. A batch ends with a picture anyway.",
        )
    desktop = caller.carrel.desktop(desktop_id)
    seen: a.Observation | None = None
    if acting:
        is_watched = pictured == "after" or looking is not None
        seen = await desktop.act(
            *acting,
            settle_ms=SETTLE_MS if is_watched else 0,
            observe="frame" if is_watched else "none",
        )
    said = "; ".join(_said(item) for item in asked[: len(acting)])
    if seen is not None:
        said = f"Done: {said}. {effect_of(seen, view)}"
    if pictured == "none" and seen is not None and looking is None:
        return [TextContent(type="text", text=f"{said} {_where(seen, view)}")]
    if looking is None and seen is not None and _fits(seen.screenshot, view):
        return _answer(said, seen, view)
    # Asked for; or the frame is of a large screen, or of a very busy one, and is taken again in
    # the size and weight that a model takes.
    region = None if looking is None else looking.region
    try:
        looked = await pictures.look(desktop, view, region=region)
    except CarrelError as error:
        if seen is None:
            raise
        return [TextContent(type="text", text=f"{said} There is no picture of it: {error}")]
    return _answer(said, looked, view, is_zoom=region is not None)


def _fits(image: a.Image | None, view: View) -> bool:
    if image is None or (image.width, image.height) != view.size:
        return False
    return len(image.data) <= pictures.MAX_BYTES


def to_action(asked: FlatAction, view: View) -> a.Action:
    """The action in the screen's pixels.

    Raises:
        InvalidRequest: a field is missing, wrong, or not of this kind of action.
        OffScreen: a coordinate is outside the picture.
    """
    model = _MODELS.get(asked.action)
    if model is None:
        raise InvalidRequest(
            f"There is no action {asked.action[:40]!r}.", hint=f"There are: {', '.join(_MODELS)}."
        )
    given = asked.model_dump(include=set(FlatAction.model_fields) - {"action"}, exclude_none=True)
    try:
        action = a.ACTION.validate_python({"type": asked.action, **given})
    except ValidationError as error:
        fields = ", ".join(name for name in model.model_fields if name in FlatAction.model_fields)
        raise InvalidRequest(
            explain(error), hint=f"{asked.action} takes: {fields or 'nothing else'}."
        ) from error
    return _on_screen(action, view)


def _on_screen(action: a.Action, view: View) -> a.Action:
    moved: dict[str, Any] = {}  # Any: points and regions, by field
    x, y = getattr(action, "x", None), getattr(action, "y", None)
    if x is not None and y is not None:
        moved["x"], moved["y"] = view.to_screen(x, y)
    if isinstance(action, a.Drag):
        moved["path"] = [view.to_screen(*point) for point in action.path]
    if isinstance(action, _LOOKING) and action.region is not None:
        moved["region"] = view.region_to_screen(action.region)
    return action.model_copy(update=moved)


def _numbered(index: int, asked: FlatAction, count: int, view: View) -> a.Action:
    try:
        return to_action(asked, view)
    except CarrelError as error:
        if count > 1:
            error.message = f"Action {index + 1} of {count}: {error.message}"
            error.hint = f"{error.hint} None of them was done.".strip()
        raise


def _check_length(actions: list[a.Action]) -> None:
    """Refuse what cannot be answered in the time a client waits."""
    seconds = sum(getattr(action, "seconds", 0.0) for action in actions)
    if seconds > MAX_SECONDS:
        raise InvalidRequest(
            f"That takes {seconds:g} s; one call may take {MAX_SECONDS:g} s.",
            hint="Nothing was done. Wait in several calls.",
        )
    typed = sum(len(action.text) for action in actions if isinstance(action, a.Type))
    if typed > MAX_TEXT:
        raise InvalidRequest(
            f"That types {typed} characters; one call may type {MAX_TEXT}.",
            hint="Nothing was done. Type in several calls, or write a file with file_write.",
        )


def _said(asked: FlatAction) -> str:
    """What was asked, in the caller's own numbers."""
    words = [asked.action]
    if asked.button:
        words.append(asked.button)
    if asked.count and asked.count > 1:
        words.append(f"x{asked.count}")
    if asked.x is not None:
        words.append(f"({asked.x}, {asked.y})")
    if asked.element is not None:
        words.append(asked.element)
    if asked.path:
        words.append(f"({asked.path[0][0]}, {asked.path[0][1]}) to ({asked.path[-1][0]}, ")
        words[-1] += f"{asked.path[-1][1]})"
    if asked.text is not None:
        words.append(f"{len(asked.text)} characters")
    if asked.chord:
        words.append(asked.chord)
    return " ".join(words)


def effect_of(seen: a.Observation, view: View) -> str:
    said = summary_of(seen, view.region_to_picture)
    return said or "Whether it had an effect was not looked at."


def _where(seen: a.Observation, view: View) -> str:
    x, y = view.to_picture(*seen.cursor)
    return f"Mouse at ({x}, {y})."


def _answer(
    said: str, seen: a.Observation, view: View, *, is_zoom: bool = False
) -> list[ContentBlock]:
    image = seen.screenshot
    assert image is not None, "pictures.look brings a picture"
    return _pictured(said, image, view, _where(seen, view), is_zoom=is_zoom)


def _pictured(
    said: str, image: a.Image, view: View, where: str = "", *, is_zoom: bool = False
) -> list[ContentBlock]:
    width, height = view.size
    frame = f"Screen {width}x{height}."
    if is_zoom:
        frame = (
            f"An enlarged part ({image.width}x{image.height}), for reading only: coordinates "
            f"stay those of the whole screen, {width}x{height}."
        )
    text = " ".join(part for part in (said, frame, where) if part)
    return [TextContent(type="text", text=text), pictures.content(image.data, image.format)]
