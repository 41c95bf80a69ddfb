"""A STUB of an IDE of JetBrains: an MCP server with the tools that its documentation and published
source describe, over a real folder of files.

It is not an IDE, and what it does stands for no more than the shapes of arguments and answers:
symbols are words, problems are what Python's own compiler says, and the debugger is ``bdb``. It
serves by the real ``mcp`` package, over streamable HTTP (/stream) and SSE (/sse).

``jetbrains_stub_launcher`` starts it. A file of switches (JSON, read anew at each request) says how
it is to fail: ``token``, ``hang``, ``indexing``, ``not_open``, ``only_sse``, ``slow`` (seconds, by
tool), ``drop``, ``garbage``, ``nonsense`` and ``oversize`` (a tool, or a method of MCP),
``rename_refused``, ``reject_commands``, ``die`` (when a tool is called), ``silent`` (it runs, and
never listens), ``slow_launcher`` (which does not end while an IDE runs); and ``folder``, what is
open.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings

INDEXING = "Project indexing was in progress; results may be incomplete — retry once it completes."
_DECLARED = r"^[ \t]*(?:async\s+)?(?:def|class)\s+{0}\b|^[ \t]*{0}\s*(?::[^=\n]+)?=[^=]"
Scope = MutableMapping[str, Any]


class Project:
    """The folder that is open, and what is known of the code in it: words."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def file(self, path: str) -> Path:
        whole = (self.folder / path).resolve()
        if not whole.is_relative_to(self.folder.resolve()):
            raise ToolError(f"Specified path '{path}' points outside of the project directory")
        if not whole.is_file():
            raise ToolError(f"File not found: {path}")
        return whole

    def sources(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self.folder.rglob("*.py")):
            yield str(path.relative_to(self.folder)), path.read_text()

    def declared(self, word: str, near: str) -> tuple[str, int] | None:
        """Where a word is declared: in the file itself, else in the one it is imported from."""
        known = dict(self.sources())
        imported = re.findall(r"^from (\w+) import (.*)$", known.get(near, ""), re.MULTILINE)
        origins = [
            f"{module}.py" for module, names in imported if word in re.findall(r"\w+", names)
        ]
        for name in [near, *origins]:
            pattern = _DECLARED.format(re.escape(word))
            if found := re.search(pattern, known.get(name, ""), re.MULTILINE):
                begin = found.start() + len(found.group()) - len(found.group().lstrip())
                return name, known[name].count("\n", 0, begin) + 1
        return None

    def word(self, path: str, line: int, column: int) -> str:
        lines = self.file(path).read_text().split("\n")
        if not 1 <= line <= len(lines):
            raise ToolError("Line number is out of bounds of the document")
        for found in re.finditer(r"\w+", lines[line - 1]):
            if found.start() <= column - 1 <= found.end():
                return found.group()
        return ""

    def uses(self, word: str, target: tuple[str, int]) -> dict[str, str]:
        """The files in which the word means what is declared at the target."""
        return {
            name: text
            for name, text in self.sources()
            if re.search(rf"\b{re.escape(word)}\b", text) and self.declared(word, name) == target
        }


def problems(text: str, path: str) -> list[dict[str, Any]]:
    """Errors by Python's compiler, warnings by a look for imports that nobody uses."""
    lines = text.split("\n")
    try:
        tree = ast.parse(text, path)
    except SyntaxError as error:
        line, column = error.lineno or 1, error.offset or 1
        return [_problem("ERROR", "", error.msg, lines, line, column)]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = (alias.asname or alias.name).partition(".")[0]
                if len(re.findall(rf"\b{name}\b", text)) == 1:
                    words = f"Unused import statement '{name}'"
                    at = node.lineno, node.col_offset + 1
                    found.append(_problem("WARNING", "PyUnresolvedReferences", words, lines, *at))
    return found


def _problem(
    severity: str, inspection: str, words: str, lines: list[str], line: int, column: int
) -> dict[str, Any]:
    told = {"severity": severity, "description": words, "lineText": lines[line - 1]}
    return {
        **told,
        "line": line,
        "column": column,
        **({"inspectionId": inspection} if inspection else {}),
    }


def run_configurations(folder: Path) -> list[dict[str, Any]]:
    """Those of ``.run/*.run.xml``, in the IDE's own form, with the ``argv`` of each."""
    found = []
    for path in sorted(folder.glob(".run/*.run.xml")):
        element = ElementTree.fromstring(path.read_text()).find("configuration")
        assert element is not None
        options = {each.get("name"): each.get("value", "") for each in element.iter("option")}
        options = {k: v.replace("$PROJECT_DIR$", str(folder)) for k, v in options.items()}
        kind = element.get("type", "")
        if kind == "ShConfigurationType":
            argv = ["/bin/bash", "-c", options["SCRIPT_TEXT"]]
        elif kind == "tests":
            argv = [sys.executable, "-m", "unittest", "discover", "-v"]
        else:
            argv = [sys.executable, options["SCRIPT_NAME"], *options["PARAMETERS"].split()]
        found.append(
            {
                "name": element.get("name"),
                "description": {"tests": "Python tests", "PythonConfigurationType": "Python"}.get(
                    kind, "Shell Script"
                ),
                "supportsDynamicLaunchOverrides": kind == "PythonConfigurationType",
                "argv": argv,
            }
        )
    return found


def apply_patch(project: Project, text: str) -> str:
    """A unified diff of one file, each hunk where its old lines stand."""
    heads = re.findall(r"^\+\+\+ b/(.*)$", text, re.MULTILINE)
    done, errors = 0, []
    for name, body in zip(
        heads, re.split(r"^diff --git .*$", text, flags=re.MULTILINE)[1:], strict=True
    ):
        path = project.file(name)
        content, is_fit = path.read_text(), True
        for hunk in re.split(r"^@@.*@@.*\n", body, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            sides = {"-": "", "+": ""}
            for at, line in enumerate(lines):
                bare = at + 1 < len(lines) and lines[at + 1].startswith("\\")
                piece = line[1:].rstrip("\n") if bare else line[1:]
                for side in {" ": "-+", "-": "-", "+": "+"}.get(line[:1], ""):
                    sides[side] += piece
            is_fit = is_fit and content.count(sides["-"]) >= 1
            content = content.replace(sides["-"], sides["+"], 1)
        if is_fit:
            path.write_text(content)
            done += 1
        else:
            errors.append(f"{name}: Failed to find expected lines")
    told = f"{done} out of {len(heads)} operations applied."
    if errors:
        told += f" {len(errors)} operations failed to be applied due to errors:\n" + "\n".join(
            errors
        )
    return told


class Stub:
    """The tools, as ``version`` of the IDE has them."""

    def __init__(self, switches: Path, version: str, without: set[str]) -> None:
        self._switches = switches
        self._open: list[str] = []
        self.server = MCPServer("PyCharm MCP Server", version=version)
        from tests.workspace.desktopd.ide.jetbrains_stub_debugger import Debugger

        self.debugger = Debugger(self.project, self.output_file)
        every: list[Callable[..., str]] = [
            self.open_file_in_editor, self.get_all_open_file_paths, self.create_new_file,
            self.get_file_problems, self.get_symbol_info, self.get_run_configurations,
            self.execute_run_configuration, self.execute_terminal_command,
        ]  # fmt: skip
        if version < "2026":
            every += [self.replace_text_in_file, self.old_rename, self.old_reformat]
        else:
            every += [
                self.lint_files, self.search_symbol, self.rename_refactoring, self.apply_patch,
                self.reformat_file, self.invoke_ide_action, *self.debugger.tools,
            ]  # fmt: skip
        if version == "2026.1":
            every.append(self.replace_text_in_file)
        for tool in every:
            name = {"old_rename": "rename_refactoring", "old_reformat": "reformat_file"}.get(
                tool.__name__, tool.__name__
            )
            if name not in without:
                self.server.tool(name=name, structured_output=False)(self._slow(tool, name))

    def _slow(self, tool: Callable[..., str], name: str) -> Callable[..., str]:
        @functools.wraps(tool)
        def slow(*args: Any, **kwargs: Any) -> str:
            time.sleep(self.switches().get("slow", {}).get(name, 0))
            return tool(*args, **kwargs)

        return slow

    def switches(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads(self._switches.read_text())
        except (OSError, ValueError):
            told = {}
        return told

    def project(self, path: str | None) -> Project:
        told = self.switches()
        folder = told["folder"]
        if told.get("not_open") or (path and os.path.realpath(path) != os.path.realpath(folder)):
            raise ToolError(f"`projectPath`=`{path}` doesn't correspond to any open project.")
        return Project(folder)

    def output_file(self) -> Path:
        folder = self._switches.parent / "outputs"
        folder.mkdir(exist_ok=True)
        path = folder / f"{len(list(folder.iterdir()))}.txt"
        path.touch()
        return path

    def _partial(self) -> dict[str, str]:
        return {"partialResultReason": INDEXING} if self.switches().get("indexing") else {}

    # The tools: names, parameters and answers are the IDE's.

    def open_file_in_editor(self, filePath: str, projectPath: str | None = None) -> str:
        """Opens the file in the editor."""
        project = self.project(projectPath)
        name = str(project.file(filePath).relative_to(project.folder.resolve()))
        self._open = [name, *(each for each in self._open if each != name)]
        return "[success]"

    def get_all_open_file_paths(self, projectPath: str | None = None) -> str:
        """The open editors."""
        self.project(projectPath)
        active = self._open[0] if self._open else None
        return json.dumps({"activeFilePath": active, "openFiles": self._open})

    def create_new_file(
        self,
        pathInProject: str,
        text: str | None = None,
        overwrite: bool = False,
        projectPath: str | None = None,
    ) -> str:
        """Creates a file."""
        project = self.project(projectPath)
        path = project.folder / pathInProject
        if path.exists() and not overwrite:
            raise ToolError(f"File already exists: {pathInProject}. Specify 'overwrite=true'")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or "")
        return "[success]"

    def replace_text_in_file(
        self,
        pathInProject: str,
        oldText: str,
        newText: str,
        replaceAll: bool = True,
        caseSensitive: bool = True,
        projectPath: str | None = None,
    ) -> str:
        """Replaces text."""
        path = self.project(projectPath).file(pathInProject)
        text = path.read_text()
        if oldText not in text or (not oldText and text):
            raise ToolError("No occurrences found")
        path.write_text(text.replace(oldText, newText, -1 if replaceAll else 1))
        return "[success]"

    def apply_patch(
        self, input: str | None = None, patch: str | None = None, projectPath: str | None = None
    ) -> str:
        """Applies a patch."""
        return apply_patch(self.project(projectPath), input or patch or "")

    def lint_files(
        self,
        files: list[str],
        min_severity: str = "warning",
        timeout: int = 120_000,
        projectPath: str | None = None,
    ) -> str:
        """Problems of files."""
        project, items = self.project(projectPath), []
        if self.switches().get("indexing"):  # it waits for the index, in its own time
            time.sleep(min(timeout / 1000, 1.0))
            return json.dumps({"items": [], "more": True})
        for name in files:
            found = problems(project.file(name).read_text(), name)
            kept = [p for p in found if min_severity != "error" or p["severity"] == "ERROR"]
            if kept:
                items.append({"filePath": name, "problems": kept})
        return json.dumps({"items": items})

    def get_file_problems(
        self,
        filePath: str,
        errorsOnly: bool = True,
        timeout: int = 10_000,
        projectPath: str | None = None,
    ) -> str:
        """Problems of a file."""
        project = self.project(projectPath)
        found = problems(project.file(filePath).read_text(), filePath)
        kept = [p for p in found if not errorsOnly or p["severity"] == "ERROR"]
        return json.dumps({"filePath": filePath, "errors": kept})

    def search_symbol(
        self,
        q: str,
        paths: list[str] | None = None,
        include_external: bool = False,
        limit: int = 1000,
        projectPath: str | None = None,
    ) -> str:
        """Symbols by a part of their name."""
        items = []
        for name, text in self.project(projectPath).sources():
            for number, line in enumerate(text.split("\n"), 1):
                found = re.match(r"\s*(?:def|class)\s+(\w+)", line)
                if found and q.lower() in found.group(1).lower():
                    begin, end = found.start(1) + 1, found.end(1) + 1
                    items.append({"filePath": name, "startLine": number, "startColumn": begin,
                                  "endLine": number, "endColumn": end})  # fmt: skip
        more = {"more": True} if len(items) > limit else {}
        return json.dumps({"items": items[:limit], **more, **self._partial()})

    def get_symbol_info(
        self, filePath: str, line: int, column: int, projectPath: str | None = None
    ) -> str:
        """What stands at a place."""
        project = self.project(projectPath)
        word = project.word(filePath, line, column)
        target = project.declared(word, filePath) if word else None
        if target is None:
            return json.dumps({"documentation": "", **self._partial()})
        text = project.file(target[0]).read_text().split("\n")[target[1] - 1]
        told: dict[str, Any] = {"documentation": f"`{text.strip()}`", **self._partial()}
        if target != (filePath, line):  # at a declaration stands no reference
            told["symbolInfo"] = {
                "name": word,
                "declarationText": f"<…>\n{text}\n<…>",
                "declarationFile": target[0],
                "declarationLine": target[1],
                "language": "Python",
            }
        return json.dumps(told)

    def rename_refactoring(
        self,
        pathInProject: str,
        symbolName: str,
        newName: str,
        contextSnippet: str | None = None,
        line: int | None = None,
        column: int | None = None,
        targetIndex: int | None = None,
        preview: bool = False,
        projectPath: str | None = None,
    ) -> str:
        """Renames a symbol."""
        project, told = self.project(projectPath), self.switches()

        def failed(kind: str, hint: str, **more: Any) -> str:
            error = {"kind": kind, "hint": hint}
            return json.dumps({"ok": False, "applied": False, "error": error, **more})

        if told.get("indexing"):
            return failed("index_not_ready", "Retry when indexing finishes.")
        if told.get("rename_refused"):
            return failed("not_renamable", "A library symbol has to change upstream.")
        if not newName.isidentifier():
            return failed("new_name_invalid", f"'{newName}' is not a valid identifier for Python.")
        if line and column and project.word(pathInProject, line, column) != symbolName:
            return failed("wrong_symbol", "Another name stands there.")
        target = project.declared(symbolName, pathInProject)
        if target is None:
            return failed("symbol_not_found", "No such symbol.")
        text = project.file(target[0]).read_text()
        if re.search(_DECLARED.format(newName), text, re.MULTILINE):
            conflict = {"description": f"{newName} is already declared", "filePath": target[0]}
            return failed("conflicts_found", "Choose another newName.", conflicts=[conflict])
        usages = self._renamed(project, symbolName, newName, target)
        affects = {"files": len(usages), "usages": sum(usages.values())}
        return json.dumps({"ok": True, "applied": True, "affects": affects})

    def _renamed(
        self, project: Project, old: str, new: str, target: tuple[str, int]
    ) -> dict[str, int]:
        counts = {}
        for name, text in project.uses(old, target).items():
            changed, counts[name] = re.subn(rf"\b{old}\b", new, text)
            (project.folder / name).write_text(changed)
        return counts

    def old_rename(
        self, pathInProject: str, symbolName: str, newName: str, projectPath: str | None = None
    ) -> str:
        """Renames a symbol (2025)."""
        project = self.project(projectPath)
        target = project.declared(symbolName, pathInProject)
        if target is None or target[0] != pathInProject:
            raise ToolError(f"Couldn't find symbol '{symbolName}' in file '{pathInProject}'")
        usages = self._renamed(project, symbolName, newName, target)
        return f"Successfully renamed '{symbolName}' to '{newName}' with {sum(usages.values())}"

    def reformat_file(self, files: list[str], projectPath: str | None = None) -> str:
        """Reformats files."""
        project = self.project(projectPath)
        for name in files:
            path = project.file(name)
            lines = [line.expandtabs(4).rstrip() for line in path.read_text().split("\n")]
            path.write_text("\n".join(lines).rstrip("\n") + "\n")
        return "ok"

    def old_reformat(self, path: str, projectPath: str | None = None) -> str:
        """Reformats a file (2025)."""
        return self.reformat_file([path], projectPath)

    def invoke_ide_action(self, actionId: str, projectPath: str | None = None) -> str:
        """Does an action of the IDE (of some products)."""
        self.project(projectPath)
        return f"done {actionId}"

    def get_run_configurations(
        self, filePath: str | None = None, projectPath: str | None = None
    ) -> str:
        """Run configurations, or where a file can be run."""
        project = self.project(projectPath)
        if filePath is None:
            known = run_configurations(project.folder)
            told = [{k: v for k, v in each.items() if k != "argv"} for each in known]
            return json.dumps({"configurations": told})
        lines = project.file(filePath).read_text().split("\n")
        points = [n for n, line in enumerate(lines, 1) if line.startswith("if __name__ ==")]
        return json.dumps({"filePath": filePath, "runPoints": [{"line": n} for n in points]})

    def execute_run_configuration(
        self,
        configurationName: str | None = None,
        filePath: str | None = None,
        line: int | None = None,
        timeout: int = 10_000,
        waitForExit: bool = True,
        programArguments: str | None = None,
        workingDirectory: str | None = None,
        envs: dict[str, str] | None = None,
        projectPath: str | None = None,
    ) -> str:
        """Runs a configuration; what does not end in time goes on."""
        project = self.project(projectPath)
        known = {each["name"]: each for each in run_configurations(project.folder)}
        if configurationName not in known:
            raise ToolError(f"Run configuration '{configurationName}' not found")
        chosen = known[configurationName]
        if envs and not chosen["supportsDynamicLaunchOverrides"]:
            raise ToolError("The configuration does not support launch overrides")
        path = self.output_file()
        with path.open("wb") as output:
            process = subprocess.Popen(
                chosen["argv"], cwd=project.folder, env={**os.environ, **(envs or {})},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        code = _waited(process, timeout)
        text = path.read_text(errors="replace")
        shown = text if len(text) <= 10_000 else text[:10_000] + "<truncated>"
        exited = {} if code is None else {"exitCode": code}
        return json.dumps({"output": shown, "fullOutputPath": str(path), **exited})

    def execute_terminal_command(
        self,
        command: str,
        executeInShell: bool = False,
        reuseExistingTerminalWindow: bool = True,
        timeout: int = 60_000,
        maxLinesCount: int = 1000,
        truncateMode: str = "START",
        projectPath: str | None = None,
    ) -> str:
        """Runs a command in the terminal; what does not end in time goes on."""
        project, path = self.project(projectPath), self.output_file()
        if self.switches().get("reject_commands"):
            raise ToolError("User rejected command execution")
        with path.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/bash", "-c", command] if executeInShell else command.split(),
                cwd=project.folder, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        code = _waited(process, timeout)
        lines = path.read_text(errors="replace").split("\n")
        if len(lines) > maxLinesCount:
            mark = "<<<...content truncated...>>>"
            lines = [mark, *lines[1 - maxLinesCount :]]
        told: dict[str, Any] = {"command_output": "\n".join(lines)}
        told |= {"is_timed_out": True} if code is None else {"command_exit_code": code}
        return json.dumps(told)


def _waited(process: subprocess.Popen[bytes], timeout_ms: int) -> int | None:
    try:
        return process.wait(timeout_ms / 1000)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, daemon=True).start()  # no zombie stays
        return None


Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Failing:
    """What stands before the server, and has it fail as the switches say."""

    def __init__(self, stub: Stub) -> None:
        security = TransportSecuritySettings(allowed_hosts=["127.0.0.1:*"], allowed_origins=[])
        self._stub = stub
        self._stream: App = stub.server.streamable_http_app(
            streamable_http_path="/stream", transport_security=security
        )
        self._sse: App = stub.server.sse_app(
            sse_path="/sse", message_path="/message/", transport_security=security
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._stream(scope, receive, send)
            return
        told = self._stub.switches()
        sent = dict(scope["headers"]).get(b"ij_mcp_auth_token", b"").decode()
        while self._stub.switches().get("hang"):  # noqa: ASYNC110  # a file says it
            await anyio.sleep(0.05)
        if told.get("token") and sent != told["token"]:
            await _answer(send, 401, b"MCP server is running in restricted mode.")
            return
        if scope["path"].startswith("/stream") and told.get("only_sse"):
            await _answer(send, 404, b"")
            return
        app = self._stream if scope["path"].startswith("/stream") else self._sse
        if scope["method"] != "POST":
            await app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if await self._failed(_tool(body), told, send, bytes(body)):
            return

        replayed = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> MutableMapping[str, Any]:
            return next(replayed, None) or await receive()

        await app(scope, again, send)

    async def _failed(self, tool: str, told: dict[str, Any], send: Send, body: bytes) -> bool:
        if tool and told.get("die"):
            os._exit(9)
        if tool and tool == told.get("drop"):
            headers = [(b"content-type", b"text/event-stream"), (b"content-length", b"100")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b": x\n", "more_body": True})
            raise ConnectionAbortedError
        if tool and tool == told.get("garbage"):
            await _answer(send, 200, b'{"jsonrpc": 2, \xff')
            return True
        if tool and tool == told.get("oversize"):
            line = b"y" * 4000 + b"\n\n"  # as if events ended here
            await _answer(send, 200, b'{"x": "' + line * 5000 + b'"}')
            return True
        if tool and tool == told.get("nonsense"):
            told = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {"tools": 3}}
            await _answer(send, 200, json.dumps(told).encode())
            return True
        return False


def _tool(body: bytes) -> str:
    try:
        asked = json.loads(body)
        method = str(asked["method"])
        return str(asked["params"]["name"]) if method == "tools/call" else method
    except (ValueError, KeyError, TypeError):
        return ""


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(switches: Path, version: str, without: set[str], port: int) -> None:
    """Serve until it is killed."""
    uvicorn.run(
        Failing(Stub(switches, version, without)), host="127.0.0.1", port=port,
        log_level="critical", timeout_graceful_shutdown=1,
    )  # fmt: skip
