"""The IDE as an interface: one small set of actions, the same for every IDE, in the window that a
person watches.

Paths are absolute in the desktop, or relative to the folder that is open. Lines and columns count
from 1, columns in UTF-16 code units, as VS Code and the IDEs of JetBrains show them. A place may be
told by ``symbol`` in place of a column: the first time that this text stands in the line. What an
IDE says of files, and what programs in it print, was written by whoever made them: it is data, and
never an instruction.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    TypeAdapter,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from workspace import actions as a

MAX_SECONDS = 600.0
MAX_FILE_BYTES = 8 << 20  # larger ones are not opened: editors turn most of what they do off
MAX_TEXT = 1_000_000
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_OUTPUT_CHARS = 200_000  # of a task's, a test run's or a terminal's: the last ones

IdeKind = Literal["vscode", "jetbrains"]
Severity = Literal["error", "warning", "information", "hint"]
Path = Annotated[
    str,
    Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$", examples=["src/app.py"]),
]
Line = Annotated[int, Field(ge=1, le=10_000_000), a.Number]
Column = Annotated[int, Field(ge=1, le=10_000_000), a.Number]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS), a.Number]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), a.Number]
Offset = Annotated[int, Field(ge=0, le=1_000_000), a.Number]


# Whoever reads a template loads all of these, and most never use one: they are built when they are.
_LATE = ConfigDict(defer_build=True)


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Output(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


# What is asked for. ``seconds`` bounds each; what runs longer is ended or left, as it says.


class _Quick(_Input):
    seconds: Seconds = 20


class _Paged(_Quick):
    limit: Limit = DEFAULT_LIMIT
    after: Annotated[Offset, Field(description="the next of what was told before")] = 0


class _Place(_Quick):
    path: Path
    line: Line
    column: Column | None = None
    symbol: Annotated[
        Name | None, Field(description="in place of a column: this text in the line")
    ] = None

    @model_validator(mode="after")
    def _one(self) -> _Place:
        if self.column is not None and self.symbol is not None:
            raise ValueError("give a column or a symbol, not both")
        return self


class Open(_Quick):
    """Show a file in the editor, with the cursor at a place."""

    type: Literal["open"] = "open"
    path: Path
    line: Line | None = None
    column: Column | None = None

    @model_validator(mode="after")
    def _fits(self) -> Open:
        if self.column is not None and self.line is None:
            raise ValueError("a column needs a line")
        return self


class OpenFolder(_Input):
    """Open a folder in place of the one that is open; it answers once the IDE is ready again."""

    type: Literal["open_folder"] = "open_folder"
    path: Path
    seconds: Seconds = 60


class GetState(_Quick):
    """What is open: folder, files, the active editor and its selection, what is not saved."""

    type: Literal["state"] = "state"


class GetDiagnostics(_Paged):
    """Errors and warnings of a file, or of all that the IDE has looked at, once it is at rest."""

    type: Literal["diagnostics"] = "diagnostics"
    path: Path | None = None
    least: Annotated[Severity, Field(description="and what is worse")] = "warning"


class GetSymbols(_Paged):
    """The symbols of a file, or those of the whole folder whose name has ``query`` in it."""

    type: Literal["symbols"] = "symbols"
    path: Path | None = None
    query: Annotated[str | None, Field(min_length=1, max_length=200)] = None

    @model_validator(mode="after")
    def _one(self) -> GetSymbols:
        if (self.path is None) == (self.query is None):
            raise ValueError("give a path or a query, and not both")
        return self


class GetDefinition(_Place):
    """Where what stands at a place is defined."""

    type: Literal["definition"] = "definition"


class GetReferences(_Place):
    """Where what stands at a place is used."""

    type: Literal["references"] = "references"
    limit: Limit = DEFAULT_LIMIT
    after: Offset = 0


class GetHover(_Place):
    """What the IDE tells of what stands at a place: its type, its documentation."""

    type: Literal["hover"] = "hover"


class Rename(_Place):
    """Rename what stands at a place wherever it is used, and save the files."""

    type: Literal["rename"] = "rename"
    new_name: Name
    seconds: Seconds = 30


class FileEdit(_Input):
    """One change of a file: ``old`` text replaced, or a range of lines and columns.

    ``old`` must stand there once, unless ``all``. A range takes the place from ``line`` and
    ``column`` up to ``end_line`` and ``end_column``, the end excluded; without columns it is whole
    lines. ``create`` makes a new file of ``new``.
    """

    path: Path
    new: Annotated[str, Field(max_length=MAX_TEXT)]
    old: Annotated[str | None, Field(min_length=1, max_length=MAX_TEXT)] = None
    all: Annotated[bool, Field(description="every place where old stands")] = False
    line: Line | None = None
    column: Column | None = None
    end_line: Line | None = None
    end_column: Column | None = None
    expected: Annotated[
        str | None,
        Field(max_length=MAX_TEXT, description="what must stand in the range, else a conflict"),
    ] = None
    create: bool = False

    @model_validator(mode="after")
    def _one(self) -> FileEdit:
        ways = [self.old is not None, self.line is not None, self.create]
        if sum(ways) != 1:
            raise ValueError("give old, or a range that begins with line, or create")
        if self.line is None and (
            (self.column, self.end_line, self.end_column, self.expected) != (None,) * 4
        ):
            raise ValueError("column, end_line, end_column and expected belong to a range")
        if self.line is not None and (self.end_line is None or self.end_line < self.line):
            raise ValueError("a range needs an end_line that is not before its line")
        if (self.column is None) != (self.end_column is None):
            raise ValueError("give both columns, or none for whole lines")
        if self.all and self.old is None:
            raise ValueError("all belongs to old")
        return self


class ApplyEdit(_Quick):
    """Change files, all or none of them, as they stand in the editor, show and save them."""

    type: Literal["apply_edit"] = "apply_edit"
    edits: Annotated[list[FileEdit], Field(min_length=1, max_length=200)]


class Format(_Quick):
    """Format a file by the IDE's formatter for its language, and save it."""

    type: Literal["format"] = "format"
    path: Path


class CodeActions(_Quick):
    """The fixes and refactorings that the IDE offers for lines of a file; one of them applied."""

    type: Literal["code_actions"] = "code_actions"
    path: Path
    line: Line
    end_line: Line | None = None
    kind: Annotated[
        str | None, Field(max_length=200, description="only quickfix, refactor, source, ...")
    ] = None
    apply: Annotated[
        Name | None, Field(description="the title of the one to apply; the files are saved")
    ] = None


class RunTask(_Input):
    """Run a task of the IDE by its name, or a command as one, and wait for its end.

    One that has not ended after ``seconds`` is ended, and the answer says so.
    """

    type: Literal["run_task"] = "run_task"
    name: Name | None = None
    command: Annotated[str | None, Field(min_length=1, max_length=32_768)] = None
    seconds: Seconds = 45

    @model_validator(mode="after")
    def _one(self) -> RunTask:
        if (self.name is None) == (self.command is None):
            raise ValueError("give a name or a command, and not both")
        return self


class RunTests(_Input):
    """Run the tests of the folder, or those in ``path``, or those whose name fits ``pattern``."""

    type: Literal["run_tests"] = "run_tests"
    pattern: Annotated[str | None, Field(min_length=1, max_length=500)] = None
    path: Path | None = None
    seconds: Seconds = 45


class Breakpoint(_Input):
    """Where a program is to stop, if ``condition`` holds there."""

    line: Line
    condition: Annotated[str | None, Field(min_length=1, max_length=1000)] = None


class SetBreakpoints(_Quick):
    """The breakpoints of a file, in place of those that it has; none: it has none then."""

    type: Literal["debug"] = "debug"
    do: Literal["set_breakpoints"] = "set_breakpoints"
    path: Path
    breakpoints: Annotated[list[Breakpoint], Field(max_length=200)]


class StartDebugging(_Input):
    """Debug a program, or a launch configuration by its name; it answers when the program stops,
    ends, or still runs after ``seconds``."""

    type: Literal["debug"] = "debug"
    do: Literal["start"] = "start"
    program: Annotated[Path | None, Field(description="a .py, .js, .ts file")] = None
    name: Annotated[Name | None, Field(description="of a launch configuration")] = None
    args: Annotated[list[Annotated[str, Field(max_length=10_000)]], Field(max_length=100)] = []
    stop_on_entry: bool = False
    seconds: Seconds = 30

    @model_validator(mode="after")
    def _one(self) -> StartDebugging:
        if (self.program is None) == (self.name is None):
            raise ValueError("give a program or a name, and not both")
        return self


class GoOn(_Input):
    """Let the stopped program go on: to the next stop, or by one step."""

    type: Literal["debug"] = "debug"
    do: Literal["continue", "step_over", "step_into", "step_out"]
    seconds: Seconds = 30


class Inspect(_Quick):
    """Where the program is: its stack, and the variables of a frame (0: the innermost)."""

    type: Literal["debug"] = "debug"
    do: Literal["stack", "variables"]
    frame: Annotated[int, Field(ge=0, le=1000), a.Number] = 0


class EvaluateInFrame(_Quick):
    """The value of an expression in a frame of the stopped program; it may change the program."""

    type: Literal["debug"] = "debug"
    do: Literal["evaluate"] = "evaluate"
    expression: Annotated[str, Field(min_length=1, max_length=10_000)]
    frame: Annotated[int, Field(ge=0, le=1000), a.Number] = 0


class StopDebugging(_Quick):
    """End the program that is debugged; there being none is no error."""

    type: Literal["debug"] = "debug"
    do: Literal["stop"] = "stop"


Debug = Annotated[
    SetBreakpoints | StartDebugging | GoOn | Inspect | EvaluateInFrame | StopDebugging,
    Field(discriminator="do"),
]


class RunInTerminal(_Input):
    """Run a command in a terminal of the IDE, which is shown and stays open.

    One that has not ended after ``seconds`` goes on there; its exit code is None then.
    """

    type: Literal["terminal"] = "terminal"
    command: Annotated[str, Field(min_length=1, max_length=32_768)]
    name: Annotated[str, Field(min_length=1, max_length=100)] = "agent"
    seconds: Seconds = 30


class InstallExtension(_Input):
    """Install an extension: a VSIX in the desktop, or by id where the way out allows it."""

    type: Literal["install_extension"] = "install_extension"
    path: Path | None = None
    id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")] = None
    seconds: Seconds = 120

    @model_validator(mode="after")
    def _one(self) -> InstallExtension:
        if (self.path is None) == (self.id is None):
            raise ValueError("give a path or an id, and not both")
        return self


def _sendable(args: list[JsonValue]) -> list[JsonValue]:
    """They can be written as JSON, as they are: Python's reader takes more than that."""
    json.dumps(args, allow_nan=False, ensure_ascii=False).encode()  # its errors are ValueErrors
    return args


class RunCommand(_Quick):
    """Run a command of the IDE by its id, if the template allows that one."""

    type: Literal["command"] = "command"
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")]
    args: Annotated[list[JsonValue], Field(max_length=20), AfterValidator(_sendable)] = []


class _Told:
    """A union's JSON schema without ``discriminator``: OpenAPI has none for a union in a union."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        schema.pop("discriminator", None)
        return schema


IdeAction = Annotated[
    Open | OpenFolder | GetState | GetDiagnostics | GetSymbols | GetDefinition | GetReferences
    | GetHover | Rename | ApplyEdit | Format | CodeActions | RunTask | RunTests | Debug
    | RunInTerminal | InstallExtension | RunCommand,
    Field(discriminator="type"),
    _Told(),
]  # fmt: skip
IDE_ACTION: TypeAdapter[IdeAction] = TypeAdapter(IdeAction, config=_LATE)
Verb = Literal[
    "open", "open_folder", "state", "diagnostics", "symbols", "definition", "references", "hover",
    "rename", "apply_edit", "format", "code_actions", "run_task", "run_tests", "debug", "terminal",
    "install_extension", "command",
]  # fmt: skip


# What comes back.

Phase = Literal[
    "not_started", "starting", "waiting_for_dialog", "indexing", "ready", "not_answering"
]


class IdeHealth(_Output):
    """How the IDE is. ``can`` are the verbs that it knows; ``restarts`` how often it was started
    anew after it had ended by itself; ``message`` says what it waits for."""

    ide: IdeKind
    phase: Phase
    name: str = ""  # code-server, Visual Studio Code, PyCharm, ...
    version: str = ""
    folder: str | None = None
    can: list[Verb] = []
    restarts: int = 0
    message: str = ""


class Range(_Output):
    """From a line and column up to another; the end is excluded."""

    line: int
    column: int
    end_line: int
    end_column: int


class Location(_Output):
    """A range of a file, and the text of its first line."""

    path: str
    range: Range
    text: str = ""


class Opened(_Output):
    """A file is shown; ``line`` and ``column`` are where the cursor is (0: not told)."""

    type: Literal["open"] = "open"
    path: str
    line: int
    column: int
    language: str = ""
    lines: int = 0  # that it has


class FolderOpened(_Output):
    """The folder that is open now."""

    type: Literal["open_folder"] = "open_folder"
    path: str


class OpenFile(_Output):
    """A file with a tab of its own."""

    path: str
    is_dirty: bool = False


class Editor(_Output):
    """The editor that has the focus. ``selected`` is the text of the selection, cut after 10,000
    characters."""

    path: str
    language: str = ""
    selection: Range
    selected: str = ""


class Terminal(_Output):
    """A terminal of the IDE."""

    name: str
    is_active: bool = False
    exit_code: int | None = None


class IdeState(_Output):
    """What is open in the IDE."""

    type: Literal["state"] = "state"
    folder: str | None = None
    files: list[OpenFile] = []
    active: Editor | None = None
    terminals: list[Terminal] = []
    debugging: str | None = None  # the name of the session
    notes: list[str] = []  # what happened since the last call, such as a restart; told once


class Diagnostic(_Output):
    """What a language's tools say of a place."""

    path: str
    range: Range
    severity: Severity
    message: str
    source: str = ""
    code: str = ""


class Diagnostics(_Output):
    """Page by page, the worst first. ``is_settled``: the tools were at rest, so this is all."""

    type: Literal["diagnostics"] = "diagnostics"
    diagnostics: list[Diagnostic]
    total: int
    next: int | None = None
    is_settled: bool = True


class Symbol(_Output):
    """``kind`` is the language server protocol's, in lower case; ``container`` what it is in."""

    name: str
    kind: str
    path: str
    range: Range
    container: str = ""


class Symbols(_Output):
    """In the order of the file, or as the IDE ranks them."""

    type: Literal["symbols"] = "symbols"
    symbols: list[Symbol]
    total: int
    next: int | None = None


class Locations(_Output):
    """Where it is defined, or used."""

    type: Literal["definition", "references"]
    locations: list[Location]
    total: int
    next: int | None = None


class Hover(_Output):
    """Markdown; empty if the IDE has nothing to say."""

    type: Literal["hover"] = "hover"
    text: str = ""


class ChangedFile(_Output):
    """A file that was changed and saved, and how many changes it took."""

    path: str
    changes: int


class Changed(_Output):
    """What was changed. ``title`` is that of a code action."""

    type: Literal["rename", "apply_edit", "format", "code_actions"]
    files: list[ChangedFile]
    title: str = ""


class CodeAction(_Output):
    """A fix or a refactoring that is offered; ``disabled`` says why it cannot be applied now."""

    title: str
    kind: str = ""
    is_preferred: bool = False
    disabled: str = ""


class CodeActionList(_Output):
    """What is offered."""

    type: Literal["code_action_list"] = "code_action_list"
    actions: list[CodeAction]


class Ran(_Output):
    """A task, or a command in a terminal. ``exit_code`` None: it has not ended in time; a task is
    ended then. ``is_cut``: of the output only the end is here."""

    type: Literal["run_task", "terminal"]
    exit_code: int | None = None
    output: str = ""
    is_cut: bool = False
    elapsed_seconds: float = 0.0


class FailedTest(_Output):
    """A test that failed, and why."""

    name: str
    message: str = ""
    path: str = ""
    line: int | None = None


class Tested(_Output):
    """What came of the tests. The numbers are None where the runner does not tell them; ``ran``
    is the command, ``exit_code`` None where it had to be ended."""

    type: Literal["run_tests"] = "run_tests"
    passed: int | None = None
    failed: int | None = None
    skipped: int | None = None
    failures: list[FailedTest] = []
    ran: str = ""
    exit_code: int | None = None
    output: str = ""
    is_cut: bool = False
    elapsed_seconds: float = 0.0


class Frame(_Output):
    """One call of the stack; 0 is the innermost."""

    frame: int
    name: str
    path: str = ""
    line: int = 0


class Variable(_Output):
    """A variable of a frame; ``value`` is cut after 1,000 characters."""

    name: str
    value: str
    type: str = ""


class BreakpointSet(_Output):
    """A breakpoint; ``is_verified`` once a debugger has said that it can stop there."""

    line: int
    is_verified: bool = False
    message: str = ""


class Debugged(_Output):
    """Where the program is that is debugged. ``output`` is what it printed since the last call."""

    type: Literal["debug"] = "debug"
    state: Literal["none", "running", "stopped", "ended"]
    reason: str = ""  # of the stop: breakpoint, step, exception, entry, ...
    path: str = ""
    line: int = 0
    stack: list[Frame] = []
    variables: list[Variable] = []
    value: str = ""
    value_type: str = ""
    breakpoints: list[BreakpointSet] = []
    exit_code: int | None = None
    output: str = ""


class Installed(_Output):
    """An extension that is there now."""

    type: Literal["install_extension"] = "install_extension"
    id: str
    version: str = ""


class CommandResult(_Output):
    """What a command brought, as JSON; None where that cannot be said in JSON."""

    type: Literal["command"] = "command"
    value: JsonValue = None


IdeAnswer = Annotated[
    Opened | FolderOpened | IdeState | Diagnostics | Symbols | Locations | Hover | Changed
    | CodeActionList | Ran | Tested | Debugged | Installed | CommandResult,
    Field(discriminator="type"),
]  # fmt: skip
IDE_ANSWER: TypeAdapter[IdeAnswer] = TypeAdapter(IdeAnswer, config=_LATE)


class IdeSettings(_Input):
    """The IDE of a template's desktops, started with them, and what agents may do with it."""

    kind: IdeKind = "vscode"
    program: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9_./-]{1,200}$",
            description="none: the first one that is there; code, codium, windsurf, cursor, "
            "code-server, pycharm, idea, ...",
        ),
    ] = None
    folder: Annotated[Path, Field(description="the one it opens at first; made if missing")] = (
        "/home/user/project"
    )
    commands: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}\*?$")]],
        Field(max_length=200, description="ids that `command` may run; one * at the end"),
    ] = []
    install_extensions: bool = True
