"""The IDE as an interface: what is asked of the one that runs in a desktop, a method for each verb.

Paths are absolute, or relative to the folder that is open; lines and columns count from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import JsonValue

from workspace import ide as i
from workspace.calls.wire import Wire, parse
from workspace.errors import DesktopLost
from workspace.transport import asked

_JSON = {"Content-Type": "application/json"}
_MARGIN_SECONDS = 5.0  # for what it was asked to be begun and told
A = TypeVar("A")


class IdeCalls:
    """The IDE of a desktop; what it tells of files was written by whoever made them.

    Each may raise :class:`~workspace.errors.NoIde` (the template has none),
    :class:`~workspace.errors.IdeNotReady` (it starts, or waits for a dialog),
    :class:`~workspace.errors.IdeFailed`, :class:`~workspace.errors.FileMissing`,
    :class:`~workspace.errors.Unsupported` (this one cannot do that) and
    :class:`~workspace.errors.TimedOut`; what changes something
    :class:`~workspace.errors.HumanInControl`.
    """

    _wire: Wire

    async def ide_health(self) -> i.IdeHealth:
        """How the IDE is: starting, ready, waiting for a dialog; and what it can do."""
        return parse(i.IdeHealth.model_validate_json, await self._wire.call("GET", "/ide"))

    async def ide(self, action: i.IdeAction) -> i.IdeAnswer:
        """Have the IDE do one thing, which takes ``action.seconds`` at most."""
        body = await self._wire.call(
            "POST",
            "/ide",
            content=action.model_dump_json(exclude_none=True),
            headers=_JSON,
            seconds=action.seconds + _MARGIN_SECONDS,
        )
        return parse(i.IDE_ANSWER.validate_json, body)

    async def _ide(self, action: i.IdeAction, kind: type[A]) -> A:
        answer = await self.ide(action)
        if not isinstance(answer, kind):
            raise DesktopLost("The desktop's IDE answered something else than was asked.")
        return answer

    async def wait_for_ide(self, seconds: float = 120) -> i.IdeState:
        """What is open in the IDE, once it is ready: it starts beside its desktop.

        Raises:
            IdeNotReady: it is not in that time; the message says what it waits for.
        """
        return await self._ide(asked(i.GetState, seconds=seconds), i.IdeState)

    async def ide_open(
        self, path: str, line: int | None = None, column: int | None = None
    ) -> i.Opened:
        """Show a file in the editor, with the cursor at a place."""
        return await self._ide(asked(i.Open, path=path, line=line, column=column), i.Opened)

    async def ide_open_folder(self, path: str, *, seconds: float = 60) -> i.FolderOpened:
        """Open a folder in place of the one that is open, and wait until the IDE is ready."""
        return await self._ide(asked(i.OpenFolder, path=path, seconds=seconds), i.FolderOpened)

    async def ide_state(self) -> i.IdeState:
        """The folder, the files that are open, the active editor, what is not saved."""
        return await self._ide(i.GetState(), i.IdeState)

    async def ide_diagnostics(
        self,
        path: str | None = None,
        *,
        least: i.Severity = "warning",
        limit: int = i.DEFAULT_LIMIT,
        after: int = 0,
        seconds: float = 20,
    ) -> i.Diagnostics:
        """Errors and warnings of a file, or of all that the IDE has looked at, once it is at rest.

        Read on from ``next`` by ``after``.
        """
        wanted = asked(
            i.GetDiagnostics, path=path, least=least, limit=limit, after=after, seconds=seconds
        )
        return await self._ide(wanted, i.Diagnostics)

    async def ide_symbols(
        self,
        path: str | None = None,
        *,
        query: str | None = None,
        limit: int = i.DEFAULT_LIMIT,
        after: int = 0,
    ) -> i.Symbols:
        """The symbols of a file, or those of the folder whose name has ``query`` in it."""
        wanted = asked(i.GetSymbols, path=path, query=query, limit=limit, after=after)
        return await self._ide(wanted, i.Symbols)

    async def ide_definition(
        self, path: str, line: int, column: int | None = None, *, symbol: str | None = None
    ) -> i.Locations:
        """Where what stands at a place is defined; ``symbol`` is a text in the line."""
        place = asked(i.GetDefinition, path=path, line=line, column=column, symbol=symbol)
        return await self._ide(place, i.Locations)

    async def ide_references(
        self,
        path: str,
        line: int,
        column: int | None = None,
        *,
        symbol: str | None = None,
        limit: int = i.DEFAULT_LIMIT,
        after: int = 0,
    ) -> i.Locations:
        """Where what stands at a place is used."""
        place = asked(
            i.GetReferences,
            path=path,
            line=line,
            column=column,
            symbol=symbol,
            limit=limit,
            after=after,
        )
        return await self._ide(place, i.Locations)

    async def ide_hover(
        self, path: str, line: int, column: int | None = None, *, symbol: str | None = None
    ) -> str:
        """What the IDE tells of what stands at a place, in Markdown."""
        place = asked(i.GetHover, path=path, line=line, column=column, symbol=symbol)
        return (await self._ide(place, i.Hover)).text

    async def ide_rename(
        self,
        path: str,
        line: int,
        new_name: str,
        *,
        column: int | None = None,
        symbol: str | None = None,
        seconds: float = 30,
    ) -> i.Changed:
        """Rename what stands at a place wherever it is used, and save the files.

        Raises:
            EditConflict: it cannot be; nothing was changed.
        """
        wanted = asked(
            i.Rename,
            path=path,
            line=line,
            column=column,
            symbol=symbol,
            new_name=new_name,
            seconds=seconds,
        )
        return await self._ide(wanted, i.Changed)

    async def ide_edit(self, *edits: i.FileEdit) -> i.Changed:
        """Change files, all or none of them, in the editor, and save them.

        Raises:
            EditConflict: a file is not as an edit takes it to be; nothing was changed.
        """
        return await self._ide(asked(i.ApplyEdit, edits=list(edits)), i.Changed)

    async def ide_replace(
        self, path: str, old: str, new: str, *, everywhere: bool = False
    ) -> i.Changed:
        """Replace a text that stands once in a file, or ``everywhere`` in it."""
        return await self.ide_edit(asked(i.FileEdit, path=path, old=old, new=new, all=everywhere))

    async def ide_format(self, path: str) -> i.Changed:
        """Format a file by the IDE's formatter, and save it."""
        return await self._ide(asked(i.Format, path=path), i.Changed)

    async def ide_fixes(
        self, path: str, line: int, end_line: int | None = None, *, kind: str | None = None
    ) -> list[i.CodeAction]:
        """The fixes and refactorings that are offered for lines of a file."""
        wanted = asked(i.CodeActions, path=path, line=line, end_line=end_line, kind=kind)
        return (await self._ide(wanted, i.CodeActionList)).actions

    async def ide_fix(
        self, path: str, line: int, title: str, end_line: int | None = None
    ) -> i.Changed:
        """Apply one of :meth:`ide_fixes` by its title, and save the files."""
        wanted = asked(i.CodeActions, path=path, line=line, end_line=end_line, apply=title)
        return await self._ide(wanted, i.Changed)

    async def ide_task(
        self, command: str | None = None, *, name: str | None = None, seconds: float = 45
    ) -> i.Ran:
        """Run a command as a task, or a task by its name, to its end; it has ``seconds``."""
        return await self._ide(asked(i.RunTask, command=command, name=name, seconds=seconds), i.Ran)

    async def ide_tests(
        self, pattern: str | None = None, *, path: str | None = None, seconds: float = 45
    ) -> i.Tested:
        """Run the tests of the folder, those in ``path``, or those whose name fits."""
        return await self._ide(
            asked(i.RunTests, pattern=pattern, path=path, seconds=seconds), i.Tested
        )

    async def ide_breakpoints(self, path: str, *points: int | i.Breakpoint) -> i.Debugged:
        """The breakpoints of a file, by line, in place of those that it has."""
        given = [asked(i.Breakpoint, line=it) if isinstance(it, int) else it for it in points]
        return await self._debug(asked(i.SetBreakpoints, path=path, breakpoints=given))

    async def ide_debug(
        self,
        program: str | None = None,
        *,
        name: str | None = None,
        args: Sequence[str] = (),
        stop_on_entry: bool = False,
        seconds: float = 30,
    ) -> i.Debugged:
        """Debug a program, or a launch configuration by its name, up to its first stop or end."""
        return await self._debug(
            asked(
                i.StartDebugging,
                program=program,
                name=name,
                args=list(args),
                stop_on_entry=stop_on_entry,
                seconds=seconds,
            )
        )

    async def ide_step(
        self,
        how: Literal["continue", "step_over", "step_into", "step_out"] = "step_over",
        *,
        seconds: float = 30,
    ) -> i.Debugged:
        """Let the stopped program go on: by one step, or to the next stop.

        Raises:
            NotDebugging: no program is stopped.
        """
        return await self._debug(asked(i.GoOn, do=how, seconds=seconds))

    async def ide_stack(self) -> i.Debugged:
        """Where the stopped program is."""
        return await self._debug(asked(i.Inspect, do="stack"))

    async def ide_variables(self, frame: int = 0) -> list[i.Variable]:
        """The variables of a frame of the stopped program; 0 is the innermost."""
        return (await self._debug(asked(i.Inspect, do="variables", frame=frame))).variables

    async def ide_evaluate(self, expression: str, frame: int = 0) -> i.Debugged:
        """The ``value`` of an expression in a frame of the stopped program."""
        return await self._debug(asked(i.EvaluateInFrame, expression=expression, frame=frame))

    async def ide_stop(self) -> i.Debugged:
        """End the program that is debugged; there being none is no error."""
        return await self._debug(i.StopDebugging())

    async def _debug(self, action: i.Debug) -> i.Debugged:
        return await self._ide(action, i.Debugged)

    async def ide_terminal(
        self, command: str, *, name: str = "agent", seconds: float = 30
    ) -> i.Ran:
        """Run a command in a terminal of the IDE, which is shown; what takes longer goes on."""
        return await self._ide(
            asked(i.RunInTerminal, command=command, name=name, seconds=seconds), i.Ran
        )

    async def ide_install(
        self, id: str | None = None, *, path: str | None = None, seconds: float = 120
    ) -> i.Installed:
        """Install an extension: a VSIX in the desktop, or by id where the way out allows it."""
        return await self._ide(
            asked(i.InstallExtension, id=id, path=path, seconds=seconds), i.Installed
        )

    async def ide_command(self, id: str, *args: JsonValue) -> JsonValue:
        """What a command of the IDE brings, as JSON.

        Raises:
            Forbidden: the template does not permit that one.
        """
        return (await self._ide(asked(i.RunCommand, id=id, args=list(args)), i.CommandResult)).value
