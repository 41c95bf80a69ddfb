"""The tools for the IDE: ide_open, ide_read, ide_edit, ide_run.

The flat arguments of a tool become the models of :mod:`workspace.ide`; what comes back is told by
:mod:`agent_bridge.idetext`. An IDE that still starts is waited for, as long as a client waits.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated, Any, Literal

from mcp.types import ContentBlock, TextContent
from pydantic import BaseModel, Field, JsonValue, ValidationError

from agent_bridge import idetext, pictures
from agent_bridge.caller import Caller
from agent_bridge.inputs import FromJson, Input, NotBool, OnDesktop, explain
from workspace import ide as i
from workspace.desktop import Desktop
from workspace.errors import CarrelError, IdeNotReady, InvalidRequest, IsADirectory, NoIde

ALL_SECONDS = 43.0  # of a call, the wait for the IDE included; one that hangs is told of 5 s later
MAX_SECONDS = 40.0
_ENOUGH_SECONDS = 25.0  # left of them for what runs, however long it may take
_LEAST_SECONDS = 1.0
_MAX_SOURCE_BYTES = 1 << 20
OUTPUT_FILE = "/tmp/carrel-ide-output.txt"  # in the desktop
_READ: dict[str, type[BaseModel]] = {
    "state": i.GetState,
    "diagnostics": i.GetDiagnostics,
    "symbols": i.GetSymbols,
    "definition": i.GetDefinition,
    "references": i.GetReferences,
    "hover": i.GetHover,
}
_EDIT: dict[str, type[BaseModel]] = {
    "edit": i.ApplyEdit,
    "rename": i.Rename,
    "format": i.Format,
    "code_action": i.CodeActions,
}
_RUN: dict[str, type[BaseModel]] = {
    "task": i.RunTask,
    "tests": i.RunTests,
    "terminal": i.RunInTerminal,
    "breakpoints": i.SetBreakpoints,
    "debug": i.StartDebugging,
    "continue": i.GoOn,
    "step_over": i.GoOn,
    "step_into": i.GoOn,
    "step_out": i.GoOn,
    "stack": i.Inspect,
    "variables": i.Inspect,
    "evaluate": i.EvaluateInFrame,
    "stop": i.StopDebugging,
    "install_extension": i.InstallExtension,
    "command": i.RunCommand,
}
_OWN_DO = {"breakpoints", "debug"}  # what they are called in `do` is the model's default
_OWN_NAMES = {"program": "path", "breakpoints": "lines, condition"}
_LONG = (i.RunTask, i.RunTests, i.RunInTerminal, i.StartDebugging, i.GoOn, i.InstallExtension)
_Line = Annotated[int | None, NotBool]
_Then = Literal["none", "screenshot"]


class IdeOpen(OnDesktop):
    """The arguments of ide_open."""

    path: str
    line: _Line = None
    column: _Line = None
    then: _Then = "none"


class IdeRead(OnDesktop):
    """The arguments of ide_read."""

    what: Annotated[str, Field(json_schema_extra={"enum": list(_READ)})] = "state"
    path: Annotated[str | None, Field(description="diagnostics: none is every file")] = None
    line: _Line = None
    symbol: Annotated[str | None, Field(description="a text in the line, or column")] = None
    column: _Line = None
    query: Annotated[str | None, Field(description="symbols: in all files, by name")] = None
    least: Annotated[i.Severity | None, Field(description="diagnostics: default warning")] = None
    after: Annotated[int | None, NotBool, Field(description="read on from there")] = None


class Edit(Input):
    """One change, all kinds of it in one flat schema."""

    path: str
    old: Annotated[str | None, Field(description="stands there once, unless all")] = None
    new: str
    all: bool | None = None
    line: Annotated[
        int | None, NotBool, Field(description="in place of old: from this line to end_line, whole")
    ] = None
    end_line: _Line = None
    create: Annotated[bool | None, Field(description="a new file")] = None


class IdeEdit(OnDesktop):
    """The arguments of ide_edit."""

    action: Annotated[str, Field(json_schema_extra={"enum": list(_EDIT)})]
    edits: Annotated[list[Edit] | None, FromJson] = None
    path: str | None = None
    line: _Line = None
    symbol: Annotated[str | None, Field(description="rename: text in the line")] = None
    column: _Line = None
    new_name: str | None = None
    end_line: _Line = None
    apply: Annotated[
        str | None, Field(description="code_action: a title; without it they are listed")
    ] = None
    then: _Then = "none"


class IdeRun(OnDesktop):
    """The arguments of ide_run."""

    action: Annotated[str, Field(json_schema_extra={"enum": list(_RUN)})]
    command: Annotated[str | None, Field(description="task, terminal")] = None
    name: Annotated[str | None, Field(description="of a task or launch configuration")] = None
    path: Annotated[str | None, Field(description="tests, breakpoints, debug; a VSIX")] = None
    pattern: Annotated[str | None, Field(description="tests: names")] = None
    lines: Annotated[list[int] | None, FromJson, Field(description="breakpoints")] = None
    condition: Annotated[str | None, Field(description="of breakpoints")] = None
    expression: str | None = None
    frame: Annotated[int | None, NotBool] = None
    args: Annotated[list[JsonValue] | None, FromJson] = None
    id: Annotated[str | None, Field(description="extension, command of the IDE")] = None
    seconds: Annotated[float | None, Field(gt=0, le=MAX_SECONDS)] = None


async def ide_open(caller: Caller, asked: IdeOpen) -> list[ContentBlock]:
    given = asked.model_dump(include={"path", "line", "column"}, exclude_none=True)
    opening = _action("open", asked, i.Open, given)
    try:
        return await _done(caller, asked.desktop_id, opening, asked.then)
    except IsADirectory:
        folder = i.OpenFolder(path=asked.path)
        return await _done(caller, asked.desktop_id, folder, asked.then)


async def ide_read(caller: Caller, asked: IdeRead) -> list[ContentBlock]:
    given = asked.model_dump(exclude={"desktop_id", "what"}, exclude_none=True)
    action = _action(asked.what, asked, _of(_READ, asked.what), given)
    return await _done(caller, asked.desktop_id, action)


async def ide_edit(caller: Caller, asked: IdeEdit) -> list[ContentBlock]:
    given = asked.model_dump(exclude={"desktop_id", "action", "then"}, exclude_none=True)
    action = _action(asked.action, asked, _of(_EDIT, asked.action), given)
    return await _done(caller, asked.desktop_id, action, asked.then)


async def ide_run(caller: Caller, asked: IdeRun) -> list[ContentBlock]:
    given = asked.model_dump(exclude={"desktop_id", "action"}, exclude_none=True)
    model = _of(_RUN, asked.action)
    if asked.action == "breakpoints":
        condition = given.pop("condition", None)
        lines = given.pop("lines", [])
        given["breakpoints"] = [{"line": line, "condition": condition} for line in lines]
    elif asked.action == "debug" and "path" in given:
        given["program"] = given.pop("path")
    if "do" in model.model_fields and asked.action not in _OWN_DO:
        given["do"] = asked.action
    return await _done(caller, asked.desktop_id, _action(asked.action, asked, model, given))


def _of(models: dict[str, type[BaseModel]], name: str) -> type[BaseModel]:
    if name not in models:
        raise InvalidRequest(f"There is no {name[:40]!r}.", hint=f"There are: {', '.join(models)}.")
    return models[name]


def _action(
    what: str, asked: Input, model: type[BaseModel], given: dict[str, Any]
) -> i.IdeAction:  # Any: JSON values, parsed here
    """What is asked of the IDE.

    Raises:
        InvalidRequest: a field is missing, wrong, or not of this kind.
    """
    try:
        return i.IDE_ACTION.validate_python(model.model_validate(given))
    except ValidationError as error:
        own = {name: name for name in type(asked).model_fields} | _OWN_NAMES
        takes = ", ".join(own[name] for name in model.model_fields if name in own)
        raise InvalidRequest(explain(error), hint=f"{what} takes: {takes}.") from error


async def _done(
    caller: Caller, desktop_id: str, action: i.IdeAction, then: str = "none"
) -> list[ContentBlock]:
    """Have it done, and tell what came of it."""
    desktop = caller.carrel.desktop(desktop_id)
    deadline = time.monotonic() + ALL_SECONDS
    try:
        notes = await _ready(desktop, deadline) if isinstance(action, _LONG) else []
        answer = await _ask(desktop, action, deadline)
    except NoIde as error:
        error.hint = await _with_one(caller) or error.hint
        raise
    text = idetext.told(answer, action, await _whole(desktop, answer))
    if isinstance(answer, i.Debugged) and answer.state == "stopped":
        text += await _source(desktop, answer)
    content: list[ContentBlock] = [TextContent(type="text", text="\n".join([*notes, text]))]
    if then == "screenshot":
        try:
            seen = await pictures.look(desktop, await caller.view(desktop_id))
        except CarrelError as error:  # it was done all the same
            content.append(TextContent(type="text", text=f"There is no picture of it: {error}"))
        else:
            assert seen.screenshot is not None, "pictures.look brings a picture"
            content.append(pictures.content(seen.screenshot.data, seen.screenshot.format))
    return content


async def _ready(desktop: Desktop, deadline: float) -> list[str]:
    """Wait until the IDE is ready, so that what runs has its time; what it notes of itself.

    Raises:
        IdeNotReady: it is not, or only now.
    """
    state = await _ask(desktop, i.GetState(seconds=ALL_SECONDS), deadline)
    if deadline - time.monotonic() < _ENOUGH_SECONDS:
        raise IdeNotReady(
            "The IDE has become ready only now; nothing was run.", hint="Call again, at once."
        )
    return state.notes if isinstance(state, i.IdeState) else []


async def _ask(desktop: Desktop, action: i.IdeAction, deadline: float) -> i.IdeAnswer:
    """What the IDE answers; while it starts, and no dialog holds it up, it is asked again."""
    while True:
        left = max(_LEAST_SECONDS, deadline - time.monotonic())
        try:
            seconds = round(min(action.seconds, left), 1)  # it may stand in an error
            return await desktop.ide(action.model_copy(update={"seconds": seconds}))
        except IdeNotReady:
            left = deadline - time.monotonic()
            if left < _LEAST_SECONDS or (await desktop.ide_health()).phase == "waiting_for_dialog":
                raise


async def _with_one(caller: Caller) -> str:
    """Which templates have an IDE, if the caller may know."""
    with suppress(CarrelError):
        names = [it.name for it in await caller.carrel.templates() if it.ide is not None]
        if names:
            return f"Use a desktop of a template that has one: {', '.join(names[:10])}."
    return ""


async def _whole(desktop: Desktop, answer: i.IdeAnswer) -> str:
    """Where all of a long output is to be read, if it could be put there."""
    output = getattr(answer, "output", "")
    if len(output) <= idetext.most(answer):
        return ""
    with suppress(CarrelError):  # the desktop's disk is full, say: then there is only the part
        await desktop.write_file(OUTPUT_FILE, output.encode())
        return OUTPUT_FILE
    return ""


async def _source(desktop: Desktop, where: i.Debugged) -> str:
    """The lines around the one where the program stopped."""
    with suppress(CarrelError):
        data = await desktop.read_file(where.path, limit=_MAX_SOURCE_BYTES)
        return idetext.around(data.decode(errors="replace"), where.line)
    return ""
