"""The debugger of the stub: Python's ``bdb`` behind the tools that JetBrains' debugger has."""

from __future__ import annotations

import bdb
import ctypes
import functools
import json
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver.exceptions import ToolError

if TYPE_CHECKING:
    from tests.workspace.desktopd.ide.jetbrains_stub import Project


class Session(bdb.Bdb):
    """A program that is debugged, in a thread of its own."""

    def __init__(self, script: Path, arguments: list[str], output: Path) -> None:
        super().__init__()
        self.script, self.output, self.name = script, output, script.stem
        self.state = "running"
        self.frame: FrameType | None = None
        self._arguments = arguments
        self._has_begun = False
        self._next: Callable[[], None] | None = None
        self.changed = threading.Condition()

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """End it while it runs: nothing is traced then, so it is made to raise."""
        ident, end = ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(SystemExit)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, end)

    def _live(self) -> None:
        with self.output.open("w", buffering=1) as file:
            write = functools.partial(print, file=file)
            names = {"__name__": "__main__", "__file__": str(self.script), "print": write}
            sys.path.insert(0, str(self.script.parent))
            try:
                self.run(compile(self.script.read_text(), str(self.script), "exec"), names)
            except SystemExit:
                pass
            except Exception as error:
                write(repr(error))
            finally:
                sys.path.remove(str(self.script.parent))
                self._turn("stopped", None)

    def _turn(self, state: str, frame: FrameType | None) -> None:
        with self.changed:
            self.state, self.frame = state, frame
            self.changed.notify_all()

    def user_line(self, frame: FrameType) -> None:
        if not self._has_begun:
            self._has_begun = True
            if not self.break_here(frame):
                self.set_continue()
                return
        self._turn("paused", frame)
        with self.changed:
            self.changed.wait_for(lambda: self._next is not None)
            step, self._next = self._next, None
        assert step is not None
        step()

    def user_return(self, frame: FrameType, return_value: Any) -> None:
        self.user_line(frame)

    def go(self, action: str) -> None:
        frame = self.frame
        assert frame is not None
        ways: dict[str, Callable[[], None]] = {
            "RESUME": self.set_continue,
            "STEP_INTO": self.set_step,
            "STEP_OVER": lambda: self.set_next(frame),
            "STEP_OUT": lambda: self.set_return(frame),
            "STOP": self.set_quit,
        }
        with self.changed:
            self.state, self.frame, self._next = "running", None, ways[action]
            self.changed.notify_all()

    def wait(self, timeout_ms: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.state != "running", timeout_ms / 1000)

    def frames(self) -> list[FrameType]:
        found, frame = [], self.frame
        while frame is not None and frame.f_code.co_filename != bdb.__file__:
            if not frame.f_code.co_filename.startswith(sys.base_prefix):
                found.append(frame)
            frame = frame.f_back
        return found

    def position(self) -> dict[str, Any] | None:
        if self.frame is None:
            return None
        path = self.canonic(self.frame.f_code.co_filename)
        return {"filePath": f"file://{path}", "line": self.frame.f_lineno}


class Debugger:
    """The tools; breakpoints outlive sessions."""

    def __init__(
        self, project: Callable[[str | None], Project], output: Callable[[], Path]
    ) -> None:
        self._project, self._output = project, output
        self._breakpoints: dict[str, dict[str, Any]] = {}
        self._session: Session | None = None
        self.tools: list[Callable[..., str]] = [
            self.xdebug_set_breakpoint, self.xdebug_remove_breakpoint,
            self.xdebug_list_breakpoints, self.xdebug_start_debugger_session,
            self.xdebug_control_session, self.xdebug_get_debugger_status, self.xdebug_get_stack,
            self.xdebug_get_frame_values, self.xdebug_evaluate_expression,
        ]  # fmt: skip

    def xdebug_set_breakpoint(
        self,
        filePath: str | None = None,
        line: int | None = None,
        condition: str | None = None,
        projectPath: str | None = None,
    ) -> str:
        """Sets a breakpoint."""
        path = self._project(projectPath).file(filePath or "")
        text = path.read_text().split("\n")[(line or 1) - 1]
        if not text.strip() or text.strip().startswith("#"):
            raise ToolError(f"Line {line} is not executable")
        ident = f"{path}:{line}"
        added = {"id": ident, "type": "line", "file": f"file://{path}", "line": line,
                 "enabled": True, "owner": "agent", "condition": condition, "isLogMessage": False,
                 "isLogStack": False, "temporary": False, "suspendPolicy": "all",
                 "hitCount": 0}  # fmt: skip
        self._breakpoints[ident] = added
        if self._session is not None:
            self._session.set_break(str(path), line or 1, cond=condition)
        total = len(self._breakpoints)
        told = {"breakpointId": ident, "added": added, "totalBreakpoints": total}
        return json.dumps({**told, "lineText": text})

    def xdebug_remove_breakpoint(
        self, breakpointId: str | None = None, projectPath: str | None = None
    ) -> str:
        """Removes a breakpoint."""
        gone = self._breakpoints.pop(breakpointId or "", None)
        if gone is not None and self._session is not None:
            self._session.clear_break(gone["file"].removeprefix("file://"), gone["line"])
        count = int(gone is not None)
        told = {"removed": bool(count), "removedCount": count}
        return json.dumps({**told, "totalBreakpoints": len(self._breakpoints)})

    def xdebug_list_breakpoints(
        self, filePath: str | None = None, projectPath: str | None = None
    ) -> str:
        """Lists breakpoints."""
        found = list(self._breakpoints.values())
        if filePath is not None:
            url = f"file://{self._project(projectPath).file(filePath)}"
            found = [each for each in found if each["file"] == url]
        counts = {"totalCount": len(found), "enabledCount": len(found)}
        return json.dumps({"breakpoints": found, **counts})

    def xdebug_start_debugger_session(
        self,
        configurationName: str | None = None,
        filePath: str | None = None,
        line: int | None = None,
        timeout: int = 60_000,
        graceWaitMs: int = 2000,
        programArguments: str | None = None,
        projectPath: str | None = None,
    ) -> str:
        """Starts a session."""
        from tests.workspace.desktopd.ide.jetbrains_stub import run_configurations

        project = self._project(projectPath)
        if configurationName is not None:
            known = {each["name"]: each for each in run_configurations(project.folder)}
            script = Path(known[configurationName]["argv"][1])
        else:
            script = project.file(filePath or "")
        output = self._output()
        session = Session(script, shlex.split(programArguments or ""), output)
        bdb.Breakpoint.clearBreakpoints()
        for each in self._breakpoints.values():
            path = each["file"].removeprefix("file://")
            session.set_break(path, each["line"], cond=each["condition"])
        self._session = session
        session.begin()
        session.wait(graceWaitMs)
        ended = {"exitCode": 0} if session.state == "stopped" else {}
        return json.dumps(
            {
                "sessionId": session.name, "name": session.name, "state": session.state,
                "output": output.read_text(), "fullOutputPath": str(output), **ended,
            }
        )  # fmt: skip

    def _live(self, sessionId: str | None) -> Session:
        session = self._session
        if session is None or session.state == "stopped" or sessionId not in (None, session.name):
            raise ToolError(f"Debug session '{sessionId}' not found")
        return session

    def _paused(self, sessionId: str | None) -> Session:
        session = self._live(sessionId)
        if session.state != "paused":
            raise ToolError("The session is not suspended")
        return session

    def xdebug_control_session(
        self,
        action: str,
        sessionId: str | None = None,
        timeout: int = 30_000,
        projectPath: str | None = None,
    ) -> str:
        """Controls a session."""
        session = self._live(sessionId)
        if action == "STOP" and session.state == "running":
            session.kill()
        elif action not in ("WAIT_FOR_PAUSE", "PAUSE"):
            self._paused(sessionId).go(action)
        if action != "RESUME":
            session.wait(timeout)
        told = {"status": session.state, "newPosition": session.position()}
        return json.dumps({key: value for key, value in told.items() if value is not None})

    def xdebug_get_debugger_status(self, projectPath: str | None = None) -> str:
        """All sessions."""
        session = self._session
        if session is None or session.state == "stopped":
            return json.dumps({"sessions": []})
        told = {"id": session.name, "name": session.name, "state": session.state}
        if position := session.position():
            told["currentPosition"] = position  # type: ignore[assignment]  # JSON
        return json.dumps({"sessions": [told], "activeSessionId": session.name})

    def xdebug_get_stack(
        self,
        sessionId: str | None = None,
        limit: int = 200,
        offset: int = 0,
        projectPath: str | None = None,
    ) -> str:
        """The stack."""
        session = self._paused(sessionId)
        frames = [
            {"presentation": frame.f_code.co_name, "index": index,
             "file": f"file://{session.canonic(frame.f_code.co_filename)}",
             "line": frame.f_lineno, "isCurrent": index == 0}
            for index, frame in enumerate(session.frames())
        ]  # fmt: skip
        page = frames[offset : offset + limit]
        return json.dumps({"frames": page, "totalFrames": len(frames)})

    def _frame(self, sessionId: str | None, index: int | None) -> FrameType:
        frames = self._paused(sessionId).frames()
        if not 0 <= (index or 0) < len(frames):
            raise ToolError(f"Frame index {index} is out of bounds")
        return frames[index or 0]

    def xdebug_get_frame_values(
        self,
        sessionId: str | None = None,
        frameIndex: int | None = None,
        depth: int = 0,
        projectPath: str | None = None,
    ) -> str:
        """The variables of a frame."""
        values = self._frame(sessionId, frameIndex).f_locals
        return "\n".join(
            f"{name} = {{{type(value).__name__}}} {value!r}"
            for name, value in values.items()
            if not name.startswith("__") and not callable(value)
        )

    def xdebug_evaluate_expression(
        self,
        expression: str,
        sessionId: str | None = None,
        frameIndex: int | None = None,
        depth: int = 0,
        projectPath: str | None = None,
    ) -> str:
        """The value of an expression."""
        frame = self._frame(sessionId, frameIndex)
        try:
            value = eval(expression, frame.f_globals, frame.f_locals)
        except Exception as error:
            raise ToolError(f"{type(error).__name__}: {error}") from error
        return f"{{{type(value).__name__}}} {value!r}"
