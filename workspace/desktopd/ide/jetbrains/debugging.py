"""The debugger of an IDE of JetBrains, by its ``xdebug_*`` tools (bundled since 2026.1).

Documented: lines from 1, frames from 0 (the innermost); files as URLs; RESUME only lets go, and
WAIT_FOR_PAUSE tells the next stop; a session that has ended is not found any more. Assumed: how
``xdebug_get_frame_values`` writes a variable, which no document says: what is not understood is
told as it stands.
"""

from __future__ import annotations

import itertools
import re
import shlex
from typing import Any

from workspace import ide as i
from workspace.desktopd.ide.jetbrains import places, running, tools
from workspace.desktopd.ide.jetbrains.asking import Asking
from workspace.desktopd.threads import in_thread
from workspace.errors import InvalidRequest, NotDebugging

_MAX_FRAMES = 200
_MAX_VARIABLES = 500
_MAX_VALUE = 1000
_STEPS = {"step_over": "STEP_OVER", "step_into": "STEP_INTO", "step_out": "STEP_OUT"}
# Of the trees in which variables are told.
_MARKS = " \t+|`\\-" + "".join(map(chr, range(0x2500, 0x2580)))
DebugAction = (
    i.SetBreakpoints | i.StartDebugging | i.GoOn | i.Inspect | i.EvaluateInFrame | i.StopDebugging
)


class Debugging:
    """What is remembered of a session between calls: how far its output has been told."""

    def __init__(self) -> None:
        self._output_path = ""
        self._told_bytes = 0
        self._session = ""

    async def do(self, asking: Asking, action: DebugAction) -> i.Debugged:
        asking.first("debug", "xdebug_start_debugger_session")
        asking.first("debug", "xdebug_control_session")
        match action:
            case i.SetBreakpoints():
                return await self._set(asking, action)
            case i.StartDebugging():
                return await self._start(asking, action)
            case i.GoOn():
                return await self._go_on(asking, action)
            case i.Inspect():
                return await self._inspect(asking, action)
            case i.EvaluateInFrame():
                return await self._evaluate(asking, action)
            case i.StopDebugging():
                return await self._stop(asking)

    async def _set(self, asking: Asking, action: i.SetBreakpoints) -> i.Debugged:
        text = await asking.text(action.path)
        last = text.count("\n") + 1
        for each in action.breakpoints:
            if each.line > last:
                raise InvalidRequest(f"{action.path} has {last} lines, not {each.line}.")
        name = places.relative(action.path, asking.folder)
        listed = tools.as_object(
            "xdebug_list_breakpoints", await asking.call("xdebug_list_breakpoints", path=name)
        )
        for old in tools.objects(listed.get("breakpoints")):
            if old.get("type", "line") == "line" and old.get("id"):
                await asking.call("xdebug_remove_breakpoint", breakpointId=old["id"])
        found = []
        for wanted in action.breakpoints:
            said = await asking.attempt(
                "xdebug_set_breakpoint", path=name, line=wanted.line, condition=wanted.condition
            )
            if said.is_error:
                words = said.text.strip()[:500]
                found.append(i.BreakpointSet(line=wanted.line, message=words))
                continue
            told = tools.as_object("xdebug_set_breakpoint", said)
            added = told.get("added")
            added = added if isinstance(added, dict) else {}
            found.append(
                i.BreakpointSet(
                    line=tools.number(added.get("line"), wanted.line),
                    is_verified=bool(added),
                    message=tools.string(told.get("message"), 500),
                )
            )
        state, _ = await self._status(asking)
        return i.Debugged(state=state, breakpoints=found)

    async def _start(self, asking: Asking, action: i.StartDebugging) -> i.Debugged:
        if action.stop_on_entry:
            raise asking.refuse(
                "This IDE does not stop a program on entry: set a breakpoint on its first line."
            )
        where: dict[str, Any]
        if action.name is not None:
            known = await running.configurations(asking)
            if known and all(each["name"] != action.name for each in known):
                names = ", ".join(str(each["name"])[:100] for each in known[:20])
                raise InvalidRequest(
                    f"There is no run configuration {action.name!r}.", hint=f"There are: {names}"
                )
            where = {"configurationName": action.name}
        else:
            assert action.program is not None
            where = await self._run_point(asking, action.program)
        path = where.pop("path", None)
        said = await asking.call(
            "xdebug_start_debugger_session",
            path=path,
            **where,
            timeout=asking.own_timeout(),
            graceWaitMs=min(500, asking.own_timeout()),
            programArguments=shlex.join(action.args) if action.args else None,
        )
        told = tools.as_object("xdebug_start_debugger_session", said)
        self._session = tools.string(told.get("sessionId"), 1000)
        self._output_path, self._told_bytes = tools.string(told.get("fullOutputPath"), 4096), 0
        first = "" if self._output_path else tools.string(told.get("output"), i.MAX_OUTPUT_CHARS)
        state = tools.string(told.get("state"))
        if state == "stopped":
            code = told.get("exitCode")
            return i.Debugged(
                state="ended",
                exit_code=code if isinstance(code, int) else None,
                output=first or await self._output(),
            )
        if state == "paused":
            _, session = await self._status(asking)
            return await self._at(asking, session.get("currentPosition"), "breakpoint", first)
        return await self._wait(asking, "breakpoint", first)

    async def _run_point(self, asking: Asking, program: str) -> dict[str, Any]:
        """The line of a file from which it is run as a whole."""
        await asking.text(program)
        name = places.relative(program, asking.folder)
        said = await asking.call("get_run_configurations", path=name)
        points = tools.objects(tools.as_object("get_run_configurations", said).get("runPoints"))
        lines = [each["line"] for each in points if isinstance(each.get("line"), int)]
        if not lines:
            raise InvalidRequest(
                f"The IDE sees nothing to run in {program}.",
                hint='A Python file needs a line `if __name__ == "__main__":`; or give the name '
                "of a run configuration.",
            )
        return {"path": name, "line": lines[-1] if program.endswith(".py") else lines[0]}

    async def _go_on(self, asking: Asking, action: i.GoOn) -> i.Debugged:
        await self._paused(asking)
        if action.do == "continue":
            await self._control(asking, "RESUME")
            return await self._wait(asking, "breakpoint")
        told = await self._control(asking, _STEPS[action.do])
        if told.get("status") == "running":
            return await self._wait(asking, "step")
        return await self._come(asking, told, "step")

    async def _wait(self, asking: Asking, reason: str, output: str = "") -> i.Debugged:
        try:
            told = await self._control(asking, "WAIT_FOR_PAUSE")
        except NotDebugging:
            told = {"status": "stopped"}  # it ended before it was asked
        return await self._come(asking, told, reason, output)

    async def _come(
        self, asking: Asking, told: dict[str, Any], reason: str, output: str = ""
    ) -> i.Debugged:
        if told.get("status") == "paused":
            return await self._at(asking, told.get("newPosition"), reason, output)
        ended = told.get("status") == "stopped"
        return i.Debugged(
            state="ended" if ended else "running", output=output + await self._output()
        )

    async def _at(self, asking: Asking, position: Any, reason: str, output: str = "") -> i.Debugged:
        position = position if isinstance(position, dict) else {}
        path = tools.string(position.get("filePath"), 4096)
        return i.Debugged(
            state="stopped",
            reason=reason,
            path=places.absolute(path, asking.folder) if path else "",
            line=tools.number(position.get("line"), 0),
            output=output + await self._output(),
        )

    async def _inspect(self, asking: Asking, action: i.Inspect) -> i.Debugged:
        session = await self._paused(asking)
        at = await self._at(asking, session.get("currentPosition"), "")
        if action.do == "stack":
            said = await asking.call("xdebug_get_stack", limit=_MAX_FRAMES, **self._of(session))
            frames = tools.objects(tools.as_object("xdebug_get_stack", said).get("frames"))
            stack = [_frame(each, number, asking.folder) for number, each in enumerate(frames)]
            return at.model_copy(update={"stack": stack[:_MAX_FRAMES]})
        said = await asking.call(
            "xdebug_get_frame_values", frameIndex=action.frame, depth=0, **self._of(session)
        )
        return at.model_copy(update={"variables": variables(said.text)})

    async def _evaluate(self, asking: Asking, action: i.EvaluateInFrame) -> i.Debugged:
        session = await self._paused(asking)
        said = await asking.attempt(
            "xdebug_evaluate_expression",
            expression=action.expression,
            frameIndex=action.frame,
            depth=0,
            **self._of(session),
        )
        if said.is_error:
            error = tools.failure("xdebug_evaluate_expression", said)
            if isinstance(error, NotDebugging):
                raise error
            raise InvalidRequest(f"It cannot be evaluated: {said.text.strip()[:1000]}")
        at = await self._at(asking, session.get("currentPosition"), "")
        found = re.match(r"^\{(?P<type>[^{}]*)\}\s*(?P<value>.*)$", said.text, re.DOTALL)
        value, kind = (found["value"], found["type"]) if found else (said.text, "")
        return at.model_copy(update={"value": value[:10_000], "value_type": kind})

    async def _stop(self, asking: Asking) -> i.Debugged:
        _, session = await self._status(asking)
        if not session:
            return i.Debugged(state="none")
        try:
            told = await self._control(asking, "STOP", **self._of(session))
        except NotDebugging:
            told = {"status": "stopped"}  # it ended by itself meanwhile
        return await self._come(asking, told, "")

    async def _control(self, asking: Asking, action: str, **more: Any) -> dict[str, Any]:
        session = more or ({"sessionId": self._session} if self._session else {})
        said = await asking.call(
            "xdebug_control_session", action=action, timeout=asking.own_timeout(), **session
        )
        return tools.as_object("xdebug_control_session", said)

    async def _status(self, asking: Asking) -> tuple[Any, dict[str, Any]]:
        """The state that we tell, and the session that is meant; none: empty."""
        if not asking.has("xdebug_get_debugger_status"):
            return "none", {}
        said = await asking.call("xdebug_get_debugger_status")
        told = tools.as_object("xdebug_get_debugger_status", said)
        live = [
            each for each in tools.objects(told.get("sessions")) if each.get("state") != "stopped"
        ]
        wanted = (self._session, told.get("activeSessionId"))
        chosen = next((each for each in live if each.get("id") in wanted), None)
        session = chosen or (live[0] if live else {})
        states = {"paused": "stopped", "running": "running"}
        return states.get(str(session.get("state")), "none"), session

    async def _paused(self, asking: Asking) -> dict[str, Any]:
        """The session, stopped; raises NotDebugging."""
        state, session = await self._status(asking)
        if state == "none":
            raise NotDebugging("Nothing is debugged.")
        if state != "stopped":
            raise NotDebugging("The program runs: it is not stopped at a breakpoint.")
        self._session = tools.string(session.get("id"), 1000)
        return session

    @staticmethod
    def _of(session: dict[str, Any]) -> dict[str, Any]:
        return {"sessionId": session["id"]} if session.get("id") else {}

    async def _output(self) -> str:
        """What the program printed since this was asked, of the file that has it."""
        path = self._output_path
        if not path.startswith("/"):
            return ""

        limit, told = 4 * i.MAX_OUTPUT_CHARS, self._told_bytes
        try:
            new = await in_thread(lambda: places.content_of(path, limit, begin=told))
        except OSError:
            return ""
        self._told_bytes += len(new)
        return new.decode(errors="replace")[-i.MAX_OUTPUT_CHARS :]


def _frame(told: dict[str, Any], number: int, folder: str) -> i.Frame:
    path = tools.string(told.get("file"), 4096)
    index = told.get("index")
    return i.Frame(
        frame=index if isinstance(index, int) else number,
        name=tools.string(told.get("presentation"), 500),
        path=places.absolute(path, folder) if path else "",
        line=tools.number(told.get("line"), 0),
    )


def variables(text: str) -> list[i.Variable]:
    """The variables of a frame, as the IDE writes them: one a line."""
    lines = (line for line in text.splitlines() if line.strip())
    return [_variable(line) for line in itertools.islice(lines, _MAX_VARIABLES)]


def _variable(line: str) -> i.Variable:
    """``name = {type} value`` or ``name: type = value``, behind the marks of a tree."""
    head, equals, value = line.partition("=")
    name, _, kind = head.lstrip(_MARKS).partition(":")
    if not equals or not name.strip():
        return i.Variable(name=line.strip(_MARKS)[:_MAX_VALUE], value="")
    value = value.strip()
    if value.startswith("{") and "}" in value:
        kind, _, value = value[1:].partition("}")
    return i.Variable(
        name=name.strip()[:_MAX_VALUE],
        value=value.lstrip()[:_MAX_VALUE],
        type=kind.strip()[:_MAX_VALUE],
    )
