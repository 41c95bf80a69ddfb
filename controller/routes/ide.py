"""The IDE of a desktop: how it is, and what it is asked to do.

What stands in files, what is written into them, and commands are never in the log: of an action its
kind, the paths and lines, of texts their length, of a command also a digest. What only reads is not
in it.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from controller.answers import OF_DESKTOP
from controller.routes import Id, caller, desktop, dumped, parts, recorded
from controller.streams import until_gone
from workspace import ide as i

router = APIRouter(prefix="/v1/workspaces/{workspace_id}/ide", tags=["ide"], responses=OF_DESKTOP)
_PATH = 200  # so many characters of one are in the log
_MANY = 20  # so many files, breakpoints
_READS = (
    i.GetState,
    i.GetDiagnostics,
    i.GetSymbols,
    i.GetDefinition,
    i.GetReferences,
    i.GetHover,
    i.Inspect,
)
_EXAMPLES = {
    "open": {"value": {"type": "open", "path": "src/app.py", "line": 12}},
    "diagnostics": {"value": {"type": "diagnostics", "path": "src/app.py"}},
    "rename": {
        "value": {
            "type": "rename",
            "path": "src/app.py",
            "line": 12,
            "symbol": "total",
            "new_name": "sum_of_all",
        }
    },
    "edit": {
        "value": {
            "type": "apply_edit",
            "edits": [{"path": "src/app.py", "old": "a - b", "new": "a + b"}],
        }
    },
    "tests": {"value": {"type": "run_tests", "pattern": "test_total", "seconds": 30}},
    "breakpoints": {
        "value": {
            "type": "debug",
            "do": "set_breakpoints",
            "path": "src/app.py",
            "breakpoints": [{"line": 12}],
        }
    },
    "debug": {"value": {"type": "debug", "do": "start", "program": "src/app.py"}},
    "evaluate": {"value": {"type": "debug", "do": "evaluate", "expression": "a + b"}},
}


@router.get("")
async def health(request: Request, workspace_id: Id) -> i.IdeHealth:
    """How the IDE is: not started, starting, waiting for a dialog, indexing, ready."""
    return await (await desktop(request, workspace_id)).ide_health()


@router.post("", response_model=i.IdeAnswer)
async def act(
    request: Request,
    workspace_id: Id,
    body: Annotated[i.IdeAction, Body(openapi_examples=_EXAMPLES)],
) -> Response:
    """Have the IDE do one thing, in the window that people watch; never retried."""
    own = parts(request)
    handed = await own.lifecycle.handed(workspace_id, actor=caller(request).name)

    async def play() -> bytes:
        if not _changes(body):
            return dumped(await handed.desktop.ide(body))
        async with recorded(request, workspace_id, "ide", **_told(body)) as event:
            keep = handed.keep_frames
            kept = own.frames.around(handed.desktop, workspace_id, keep, event)
            async with kept if keep != "none" else nullcontext():
                answer = await handed.desktop.ide(body)
            event |= _came(answer)
            return dumped(answer)

    return Response(await until_gone(request.receive, play()), media_type="application/json")


def _changes(action: i.IdeAction) -> bool:
    """Whether it does more than read."""
    if isinstance(action, i.CodeActions):
        return action.apply is not None
    return not isinstance(action, _READS)


def _told(action: i.IdeAction) -> dict[str, Any]:  # Any: JSON values
    """An action as the log tells of it."""
    told: dict[str, Any] = {"type": action.type}
    for name in ("do", "line", "program", "name", "id"):
        if (value := getattr(action, name, None)) is not None:
            told[name] = value[:_PATH] if isinstance(value, str) else value
    if (path := getattr(action, "path", None)) is not None:
        told["path"] = path[:_PATH]
    match action:
        case i.Rename(new_name=text):
            told["length"] = len(text)
        case i.ApplyEdit(edits=edits):
            told["edits"] = [_edit(each) for each in edits[:_MANY]]
            told["count"] = len(edits)
        case i.CodeActions(apply=str(title)):
            told["length"] = len(title)
        case i.RunTask(command=str(text)) | i.RunInTerminal(command=text):
            told |= _digest(text)
        case i.EvaluateInFrame(expression=text):
            told |= _digest(text)
        case i.RunTests(pattern=str(text)):
            told["length"] = len(text)
        case i.SetBreakpoints(breakpoints=points):
            told["lines"] = [point.line for point in points[:_MANY]]
        case i.StartDebugging(args=args) | i.RunCommand(args=args):
            told["count"] = len(args)
        case _:
            pass
    return told


def _edit(edit: i.FileEdit) -> dict[str, Any]:  # Any: JSON values
    told: dict[str, Any] = {"path": edit.path[:_PATH], "length": len(edit.new)}
    return told if edit.line is None else told | {"line": edit.line}


def _digest(text: str) -> dict[str, Any]:  # Any: JSON values
    return {"length": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _came(answer: i.IdeAnswer) -> dict[str, Any]:  # Any: JSON values
    """What came of it, as the log tells of it."""
    match answer:
        case i.Changed(files=files):
            changed = [each.path[:_PATH] for each in files[:_MANY]]
            return {"changed": changed, "files": len(files)}
        case i.Ran(exit_code=code):
            return {"exit_code": code}
        case i.Tested(exit_code=code, passed=passed, failed=failed):
            return {"exit_code": code, "passed": passed, "failed": failed}
        case i.Debugged(state=state, line=line):
            return {"state": state, "at": line} if state == "stopped" else {"state": state}
        case i.Installed(version=version):
            return {"version": version[:_PATH]}
        case _:
            return {}
