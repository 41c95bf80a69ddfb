"""Our extension in a real code-server: what it answers, and what it does to the files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.images.vscode import IDE, TOKEN, Bridge, Refused, code_server
from tests.waiting import until

SOURCES = Path(__file__).parents[2] / "images" / "kata-ubuntu-desktop" / "vscode-bridge"
PROJECT = {
    "tsconfig.json": '{"compilerOptions": {"strict": true, "allowImportingTsExtensions": true,'
    ' "noEmit": true, "module": "nodenext", "types": []}, "include": ["ts"]}\n',
    "ts/shapes.ts": "/** How large it is. */\n"
    "export function area(w: number, h: number): number {\n  return w * h;\n}\n",
    "ts/main.ts": 'import { area } from "./shapes.ts";\n\nconst size: number = area(2, 3);\n'
    "export const wrong: string = size;\n",
    "py/util.py": 'def double(n: int) -> int:\n    """Twice as much."""\n    return n*2\n',
    "py/app.py": "from util import double\n\nvalue = 21\nprint('it is', double(value))\n"
    'wrong: int = "a"\n',
    "py/test_util.py": "from util import double\n\n\nclass TestDouble:\n    def test_good(self):\n"
    "        assert double(2) == 4\n\n    def test_bad(self):\n        assert double(2) == 5\n",
    "js/count.js": 'function twice(n) {\n  const m = n * 2;\n  console.log("m is", m);\n'
    "  return m;\n}\ntwice(21);\nprocess.exit(4);\n",
    "node/sums.test.ts": 'import assert from "node:assert";\nimport test from "node:test";\n\n'
    'test("good", () => {});\ntest("bad", () => assert.equal(1 as number, 2));\n'
    'test.skip("not yet", () => {});\n',
    "node/test/loose.js": 'require("node:test")("loose", () => {});\n',
    "data.json": '{"a": 1,}\n',
    ".vscode/tasks.json": '{"version": "2.0.0", "tasks": ['
    '{"label": "where", "type": "shell", "command": "echo in ${workspaceFolder}; exit 3"},'
    '{"label": "words", "type": "process", "command": "printf", "args": ["<%s>", "a b", "$c"]},'
    '{"label": "after", "type": "shell", "command": "test -e made", "dependsOn": ["make"]},'
    '{"label": "make", "type": "shell", "command": "sleep 1; touch made"},'
    '{"label": "both", "dependsOn": ["where"]}]}\n',
    ".vscode/launch.json": '{"version": "0.2.0", "configurations": [{"name": "The app", "type":'
    ' "debugpy", "request": "launch", "program": "${workspaceFolder}/py/app.py"}]}\n',
}


def write(folder: Path) -> None:
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Path]:
    with code_server(project) as path:
        yield path


@pytest.fixture
def bridge(server: Path, project: Path) -> Iterator[Bridge]:
    """A connection; afterwards the project's files are as they were, and saved."""
    with Bridge(server) as bridge:
        yield bridge
        bridge.do("command", id="workbench.action.files.revert")
        write(project)


def refused(bridge: Bridge, type: str, /, **fields: object) -> Refused:
    with pytest.raises(Refused) as caught:
        bridge.do(type, **fields)
    return caught.value


def runs(command: str) -> bool:
    """Whether a process of this command line is there."""
    wanted = command.replace(" ", "\0").encode() + b"\0"
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if process.read_bytes() == wanted:
                return True
    return False


def test_its_own_tests_and_types() -> None:
    node = [IDE / "node" / "bin" / "node"]
    for command in (
        ["--test", "--test-reporter=dot", "test/*.test.ts"],
        ["node_modules/typescript/bin/tsc", "--noEmit"],
    ):
        ran = subprocess.run(
            [*node, *command], cwd=SOURCES, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


# Who may speak, and how.


def test_hello_says_who_it_is(bridge: Bridge, project: Path) -> None:
    assert bridge.hello["name"] == "code-server"
    assert bridge.hello["folder"] == str(project)
    assert {"open", "diagnostics", "debug", "command"} <= set(bridge.hello["can"])
    assert len(bridge.hello["can"]) == 18


def test_only_who_knows_the_token_is_heard(server: Path) -> None:
    assert server.stat().st_mode & 0o777 == 0o600
    with pytest.raises(EOFError):
        Bridge(server, token=TOKEN[:-1])
    for first in ('{"id": 1, "method": "do", "params": {"type": "state"}}', "nonsense", "[]"):
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(10)
            other.connect(str(server))
            other.sendall(first.encode() + b"\n")
            assert other.recv(100) == b""


def test_an_endless_line_is_cut_off(server: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(30)
        other.connect(str(server))
        with suppress(ConnectionError):  # while there is still something to send
            for _ in range(20):
                other.sendall(b"x" * (1 << 20))
            while other.recv(1000):
                pass
        with pytest.raises(ConnectionError):
            other.sendall(b"x")


def test_what_it_does_not_know_is_unsupported(bridge: Bridge) -> None:
    for name in ("fly", "constructor", "__proto__", ""):
        assert refused(bridge, name).code == "unsupported"
    with pytest.raises(Refused, match="no method"):
        bridge.result(bridge.send("dance"))


def test_requests_run_side_by_side_and_can_be_cancelled(bridge: Bridge) -> None:
    slow = bridge.send("do", type="run_task", command="sleep 984", seconds=60)
    assert bridge.do("state")["type"] == "state"
    assert bridge.result(bridge.send("cancel", id=slow)) == {"cancelled": True}
    with pytest.raises(Refused, match="cancelled"):
        bridge.result(slow)
    until(lambda: not runs("sleep 984"))


# Opening.


def test_open_shows_a_place(bridge: Bridge, project: Path) -> None:
    path = str(project / "py/app.py")
    opened = bridge.do("open", path="py/app.py", line=4, column=7)
    assert opened == {
        **{"type": "open", "path": path, "line": 4, "column": 7},
        **{"language": "python", "lines": 6},
    }
    state = bridge.do("state")
    assert state["folder"] == str(project)
    assert state["active"]["path"] == path
    assert state["active"]["selection"] == {"line": 4, "column": 7, "end_line": 4, "end_column": 7}
    assert {"path": path, "is_dirty": False} in state["files"]


def test_what_cannot_be_opened_is_said(bridge: Bridge, project: Path) -> None:
    (project / "binary").write_bytes(b"ELF\0\1")
    with (project / "large").open("wb") as large:
        large.truncate(50 << 20)
    os.mkfifo(project / "pipe")
    try:
        for path, code in {
            "none.py": "file_not_found",
            "py/app.py/none": "file_not_found",
            "py": "is_a_directory",
            "binary": "invalid_request",
            "large": "too_large",
            "pipe": "invalid_request",
            "/dev/zero": "invalid_request",
        }.items():
            for verb in ("open", "diagnostics"):
                assert refused(bridge, verb, path=path).code == code, path
            edit = {"path": path, "old": "a", "new": "b"}
            assert refused(bridge, "apply_edit", edits=[edit]).code == code, path
    finally:
        for name in ("binary", "large", "pipe"):
            (project / name).unlink()
    assert refused(bridge, "open", path="py/app.py", line=7).code == "invalid_request"
    assert refused(bridge, "open", path="py/app.py", line=1, column=30).code == "invalid_request"
    assert refused(bridge, "open_folder", path="none").code == "file_not_found"
    assert refused(bridge, "open_folder", path="py/app.py").code == "not_a_directory"


def test_a_file_outside_of_the_folder_is_a_file(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("one\n")
    assert bridge.do("open", path=str(tmp_path / "notes.txt"))["language"] == "plaintext"
    edit = {"path": str(tmp_path / "notes.txt"), "old": "one", "new": "two"}
    bridge.do("apply_edit", edits=[edit])
    assert (tmp_path / "notes.txt").read_text() == "two\n"


# Reading.


def test_diagnostics_of_typescript_and_python(bridge: Bridge, project: Path) -> None:
    bridge.do("open", path="data.json")
    for path, code, line in (
        ("ts/main.ts", "2322", 4),
        ("py/app.py", "reportAssignmentType", 5),
    ):
        answer = bridge.do("diagnostics", path=path)
        assert answer["is_settled"]
        (found,) = answer["diagnostics"]
        assert found["path"] == str(project / path)
        assert (found["severity"], found["code"], found["range"]["line"]) == ("error", code, line)
    everything = bridge.do("diagnostics")
    assert {item["path"] for item in everything["diagnostics"]} >= {
        str(project / "ts/main.ts"),
        str(project / "py/app.py"),
    }
    assert bridge.do("state")["active"]["path"] == str(project / "data.json")  # nothing was shown


def test_diagnostics_are_of_the_file_as_it_is_now(bridge: Bridge, project: Path) -> None:
    (project / "py/app.py").write_text("nothing_here\n")
    (found,) = bridge.do("diagnostics", path="py/app.py", least="error")["diagnostics"]
    assert found["code"] == "reportUndefinedVariable"
    edit = {"path": "ts/main.ts", "old": "string", "new": "number"}
    bridge.do("apply_edit", edits=[edit])
    assert bridge.do("diagnostics", path="ts/main.ts")["diagnostics"] == []


def test_diagnostics_by_language_servers_that_it_does_not_know(bridge: Bridge) -> None:
    bridge.do("open", path="py/util.py")
    answer = bridge.do("diagnostics", path="data.json")
    assert [item["message"] for item in answer["diagnostics"]] == ["Trailing comma"]
    assert bridge.do("state")["active"]["path"].endswith("py/util.py")


def test_diagnostics_come_by_pages(bridge: Bridge, project: Path) -> None:
    (project / "py/app.py").write_text("a\nb\nc\n")
    first = bridge.do("diagnostics", path="py/app.py", least="error", limit=2)
    assert (len(first["diagnostics"]), first["total"], first["next"]) == (2, 3, 2)
    rest = bridge.do("diagnostics", path="py/app.py", least="error", limit=2, after=2)
    assert (rest["diagnostics"][0]["range"]["line"], rest["next"]) == (3, None)


def test_symbols(bridge: Bridge, project: Path) -> None:
    (symbol,) = bridge.do("symbols", path="ts/shapes.ts")["symbols"]
    assert (symbol["name"], symbol["kind"], symbol["range"]["line"]) == ("area", "function", 2)
    methods = bridge.do("symbols", path="py/test_util.py")["symbols"]
    assert [(row["name"], row["kind"], row["container"]) for row in methods] == [
        ("TestDouble", "class", ""),
        ("test_good", "method", "TestDouble"),
        ("test_bad", "method", "TestDouble"),
    ]
    for query, path in (("doub", "py/util.py"), ("are", "ts/shapes.ts")):
        found = bridge.do("symbols", query=query)["symbols"]
        assert str(project / path) in {row["path"] for row in found}


@pytest.mark.parametrize(
    ("path", "line", "name", "home", "uses"),
    [("ts/main.ts", 3, "area", "ts/shapes.ts", 3), ("py/app.py", 4, "double", "py/util.py", 6)],
)
def test_definition_references_and_hover(
    bridge: Bridge, project: Path, path: str, line: int, name: str, home: str, uses: int
) -> None:
    place = {"path": path, "line": line, "symbol": name}
    (definition,) = bridge.do("definition", **place)["locations"]
    assert definition["path"] == str(project / home)
    assert name in definition["text"]
    references = bridge.do("references", **place)
    assert references["total"] == uses
    assert name in bridge.do("hover", **place)["text"]
    assert refused(bridge, "hover", path=path, line=line, symbol="absent").code == "invalid_request"


# Editing.


def test_rename_across_files(bridge: Bridge, project: Path) -> None:
    place = {"path": "ts/shapes.ts", "line": 2, "symbol": "area"}
    answer = bridge.do("rename", **place, new_name="surface")
    assert {(file["path"], file["changes"]) for file in answer["files"]} == {
        (str(project / "ts/shapes.ts"), 1),
        (str(project / "ts/main.ts"), 2),
    }
    assert "surface(2, 3)" in (project / "ts/main.ts").read_text()
    place = {"path": "py/util.py", "line": 1, "symbol": "double"}
    assert len(bridge.do("rename", **place, new_name="twice")["files"]) == 3
    assert "twice(value)" in (project / "py/app.py").read_text()


def test_a_rename_that_cannot_be_says_why(bridge: Bridge, project: Path) -> None:
    error = refused(bridge, "rename", path="py/util.py", line=2, column=1, new_name="x")
    assert (error.code, "can't be renamed" in error.message) == ("edit_conflict", True)
    error = refused(bridge, "rename", path="data.json", line=1, column=1, new_name="x")
    assert error.code == "edit_conflict"
    shapes = "const depth = 1;\n" + PROJECT["ts/shapes.ts"]
    util = PROJECT["py/util.py"] + "\n\ndef triple(n: int) -> int:\n    return n * 3\n"
    (project / "ts/shapes.ts").write_text(shapes)
    (project / "py/util.py").write_text(util)
    for path, line, symbol, name in (
        ("ts/shapes.ts", 3, "area", "depth"),  # taken
        ("ts/shapes.ts", 3, "area", "a b"),  # no name
        ("ts/main.ts", 3, "area", "size"),  # taken where it is used
        ("py/util.py", 1, "double", "triple"),
        ("py/util.py", 1, "double", "class"),
    ):
        error = refused(bridge, "rename", path=path, line=line, symbol=symbol, new_name=name)
        assert error.code == "edit_conflict"
        assert name == "class" or f"As {name} it would be wrong" in error.message
    assert (project / "ts/shapes.ts").read_text() == shapes
    assert (project / "py/util.py").read_text() == util
    assert (project / "ts/main.ts").read_text() == PROJECT["ts/main.ts"]
    assert not any(each["is_dirty"] for each in bridge.do("state")["files"])


def test_rename_without_a_project_file_finds_closed_files(bridge: Bridge, project: Path) -> None:
    os.rename(project / "tsconfig.json", project / "kept")
    try:
        loose = {"loose/a.ts": "export const one = 1;\n"}
        loose |= {
            f"loose/b{i}.ts": f'import {{ one }} from "./a";\nexport const v{i} = one;\n'
            for i in range(20)
        }
        (project / "loose").mkdir()
        for name, text in loose.items():
            (project / name).write_text(text)
        place = {"path": "loose/a.ts", "line": 1, "symbol": "one"}
        assert len(bridge.do("rename", **place, new_name="uno")["files"]) == 21
        assert (project / "loose/b7.ts").read_text().count("uno") == 2
    finally:
        os.rename(project / "kept", project / "tsconfig.json")
        shutil.rmtree(project / "loose")


def test_apply_edit_changes_shows_and_saves(bridge: Bridge, project: Path) -> None:
    answer = bridge.do(
        "apply_edit",
        edits=[
            {"path": "py/util.py", "old": "n*2", "new": "n + n"},
            {
                "path": "py/app.py",
                "line": 3,
                "end_line": 3,
                "new": "value = 1",
                "expected": "value = 21",
            },
            {"path": "made/new.txt", "create": True, "new": "hello\n"},
        ],
    )
    assert {(Path(file["path"]).name, file["changes"]) for file in answer["files"]} == {
        ("util.py", 1),
        ("app.py", 1),
        ("new.txt", 1),
    }
    assert "return n + n\n" in (project / "py/util.py").read_text()
    assert "\nvalue = 1\n" in (project / "py/app.py").read_text()
    assert (project / "made/new.txt").read_text() == "hello\n"
    state = bridge.do("state")
    assert state["active"]["path"].startswith(str(project / "py"))
    assert not any(file["is_dirty"] for file in state["files"])
    shutil.rmtree(project / "made")


def test_apply_edit_does_all_or_nothing(bridge: Bridge, project: Path) -> None:
    good = {"path": "py/util.py", "old": "n*2", "new": "n + n"}
    made = {"path": "made/new.txt", "create": True, "new": "hello\n"}
    for bad, code in (
        ({"path": "py/app.py", "old": "absent", "new": ""}, "edit_conflict"),
        ({"path": "py/app.py", "old": "double", "new": ""}, "edit_conflict"),
        (
            {"path": "py/app.py", "line": 1, "end_line": 1, "expected": "no", "new": ""},
            "edit_conflict",
        ),
        ({"path": "py/none.py", "old": "a", "new": ""}, "file_not_found"),
        ({"path": "py/util.py", "create": True, "new": ""}, "invalid_request"),
        ({"path": "data.json", "create": True, "new": ""}, "file_exists"),
        ({"path": "data.json/x", "create": True, "new": ""}, "not_a_directory"),
    ):
        assert refused(bridge, "apply_edit", edits=[good, made, bad]).code == code, bad
    assert (project / "py/util.py").read_text() == PROJECT["py/util.py"]
    assert not (project / "made").exists()


def test_windows_line_ends_and_signs_outside_of_the_bmp_stay(bridge: Bridge, project: Path) -> None:
    path = project / "dos.txt"
    path.write_bytes("a😀b\r\nc\r\nd\r\n".encode())
    edits = [
        {"path": "dos.txt", "line": 1, "column": 4, "end_line": 1, "end_column": 5, "new": "B"},
        {"path": "dos.txt", "old": "c\nd", "new": "C\nD"},
    ]
    bridge.do("apply_edit", edits=edits)
    assert path.read_bytes() == "a😀B\r\nC\r\nD\r\n".encode()
    path.unlink()


def test_a_file_that_changed_on_disk_is_read_anew(bridge: Bridge, project: Path) -> None:
    bridge.do("open", path="py/app.py")
    (project / "py/app.py").write_text("fresh = 1\n")
    bridge.do("apply_edit", edits=[{"path": "py/app.py", "old": "fresh = 1", "new": "fresh = 2"}])
    assert (project / "py/app.py").read_text() == "fresh = 2\n"


def test_unsaved_changes_and_a_change_on_disk_conflict(bridge: Bridge, project: Path) -> None:
    bridge.do("open", path="py/app.py", line=1, column=1)
    bridge.do("command", id="type", args=[{"text": "# a person\n"}])
    until(lambda: any(file["is_dirty"] for file in bridge.do("state")["files"]))
    edit = {"path": "py/app.py", "old": "value = 21", "new": "value = 22"}
    bridge.do("apply_edit", edits=[edit])  # what is not saved is part of how it stands
    assert (project / "py/app.py").read_text().startswith("# a person\n")
    bridge.do("command", id="type", args=[{"text": "# more\n"}])
    until(lambda: any(file["is_dirty"] for file in bridge.do("state")["files"]))
    (project / "py/app.py").write_text("value = 22\n")
    error = refused(bridge, "apply_edit", edits=[{**edit, "old": "22", "new": "23"}])
    assert error.code == "edit_conflict"
    assert (project / "py/app.py").read_text() == "value = 22\n"


def test_two_edits_at_once_are_both_done(bridge: Bridge, project: Path) -> None:
    edits = [{"path": "py/util.py", "old": "n*2", "new": "n*3"}]
    more = [{"path": "py/util.py", "old": "Twice", "new": "Three times"}]
    requests = [bridge.send("do", type="apply_edit", edits=each) for each in (edits, more)]
    for request in requests:
        bridge.result(request)
    text = (project / "py/util.py").read_text()
    assert ("n*3" in text, "Three times" in text) == (True, True)


def test_format(bridge: Bridge, project: Path) -> None:
    assert bridge.do("format", path="py/util.py")["files"][0]["changes"] >= 1
    assert "return n * 2" in (project / "py/util.py").read_text()
    assert bridge.do("format", path="py/util.py")["files"] == []
    (project / "js/count.js").write_text("const  a=1\n")
    bridge.do("format", path="js/count.js")
    assert (project / "js/count.js").read_text() == "const a = 1\n"
    (project / "py/util.py").write_text("def (:\n")
    assert refused(bridge, "format", path="py/util.py").code == "edit_conflict"
    (project / "plain.txt").write_text("x\n")
    assert refused(bridge, "format", path="plain.txt").code == "unsupported"
    (project / "plain.txt").unlink()


def test_code_actions(bridge: Bridge, project: Path) -> None:
    (project / "ts/main.ts").write_text(
        'import { area } from "./shapes.ts";\nexport const a = 1;\n'
    )
    offered = bridge.do("code_actions", path="ts/main.ts", line=1, kind="quickfix")["actions"]
    (title,) = [each["title"] for each in offered if "Remove" in each["title"]]
    answer = bridge.do("code_actions", path="ts/main.ts", line=1, kind="quickfix", apply=title)
    assert (answer["type"], answer["title"]) == ("code_actions", title)
    assert (project / "ts/main.ts").read_text() == "export const a = 1;\n"
    error = refused(bridge, "code_actions", path="ts/main.ts", line=1, apply="Fly")
    assert error.code == "invalid_request"


# Running.


def test_a_command_as_a_task(bridge: Bridge, project: Path) -> None:
    command = "pwd; echo oops >&2; echo token: $CARREL_IDE_TOKEN; exit 5"
    ran = bridge.do("run_task", command=command)
    assert ran["exit_code"] == 5
    assert sorted(ran["output"].splitlines()) == sorted([str(project), "oops", "token:"])
    assert not ran["is_cut"]
    assert "agent: task" in {each["name"] for each in bridge.do("state")["terminals"]}


def test_a_task_that_never_ends_is_ended(bridge: Bridge, project: Path) -> None:
    ran = bridge.do("run_task", command="echo begun; sleep 987", seconds=1)
    assert (ran["exit_code"], ran["output"]) == (None, "begun\n")
    until(lambda: not runs("sleep 987"))
    ran = bridge.do("run_task", command="trap '' TERM; sleep 986; echo stubborn", seconds=1)
    assert ran["exit_code"] is None
    # What a shell leaves behind when it ends at once is ended with it.
    command = "(trap '' TERM; exec sleep 984) & wait"
    assert bridge.do("run_task", command=command, seconds=1)["exit_code"] is None
    until(lambda: not runs("sleep 984"))


def test_of_long_output_the_end_is_kept(bridge: Bridge) -> None:
    ran = bridge.do("run_task", command="seq 200000; echo end")
    assert (ran["exit_code"], ran["is_cut"], len(ran["output"])) == (0, True, 200_000)
    assert ran["output"].endswith("200000\nend\n")


def test_tasks_of_the_folder(bridge: Bridge, project: Path) -> None:
    ran = bridge.do("run_task", name="where")
    assert (ran["exit_code"], ran["output"]) == (3, f"in {project}\n")
    assert bridge.do("run_task", name="words")["output"] == "<a b><$c>"
    assert bridge.do("run_task", name="both")["exit_code"] == 0
    assert bridge.do("run_task", name="after")["exit_code"] == 0  # of what ran before it
    error = refused(bridge, "run_task", name="none")
    assert (error.code, "where" in error.message) == ("invalid_request", True)


def test_tests_of_python(bridge: Bridge, project: Path) -> None:
    tested = bridge.do("run_tests", path="py")
    assert (tested["passed"], tested["failed"], tested["skipped"]) == (1, 1, 0)
    (failure,) = tested["failures"]
    assert failure["name"] == "py/test_util.py::TestDouble::test_bad"
    assert (failure["path"], failure["line"]) == (str(project / "py/test_util.py"), 9)
    assert "assert 4 == 5" in failure["message"]
    assert tested["exit_code"] == 1
    assert "-m pytest" in tested["ran"]
    tested = bridge.do("run_tests", path="py/test_util.py", pattern="good")
    assert (tested["passed"], tested["failed"], tested["exit_code"]) == (1, 0, 0)


def test_tests_of_typescript(bridge: Bridge, project: Path) -> None:
    tested = bridge.do("run_tests", path="node/sums.test.ts")
    assert (tested["passed"], tested["failed"], tested["skipped"]) == (1, 1, 1)
    (failure,) = tested["failures"]
    assert (failure["name"], failure["line"]) == ("bad", 5)
    tested = bridge.do("run_tests", path="node/sums.test.ts", pattern="good")
    assert (tested["passed"], tested["failed"], tested["exit_code"]) == (1, 0, 0)
    tested = bridge.do("run_tests", path="node")  # Node takes files, and no folders
    assert (tested["passed"], tested["failed"], tested["skipped"]) == (2, 1, 1)
    assert bridge.do("run_tests", path="node/test")["passed"] == 1


def test_tests_that_cannot_be_told_or_end(bridge: Bridge, project: Path) -> None:
    assert refused(bridge, "run_tests").code == "invalid_request"  # both languages have some
    assert refused(bridge, "run_tests", path="none").code == "file_not_found"
    assert refused(bridge, "run_tests", path="ts").code == "file_not_found"
    (project / "py/test_util.py").write_text("import time\n\ndef test_it():\n    time.sleep(99)\n")
    tested = bridge.do("run_tests", path="py", seconds=3)
    assert (tested["passed"], tested["exit_code"]) == (None, None)


def test_a_terminal_stays(bridge: Bridge, project: Path) -> None:
    ran = bridge.do("terminal", command="echo $CARREL_IDE_TOKEN hi; cd py; false")
    assert (ran["exit_code"], ran["output"]) == (1, "hi\n")
    assert bridge.do("terminal", command="pwd")["output"] == f"{project}/py\n"
    busy = bridge.do("terminal", command="sleep 985", seconds=1)
    assert busy["exit_code"] is None
    assert bridge.do("terminal", command="echo other")["output"] == "other\n"
    for _ in range(3):  # each in a shell that has only now been started
        named = bridge.do("terminal", command="exit 3", name="mine", seconds=20)
        assert named["exit_code"] == 3
    gone = bridge.send("do", type="terminal", command="sleep 986", name="mine", seconds=60)
    until(lambda: runs("sleep 986"))
    until(lambda: terminal_of(bridge) == "mine")
    bridge.do("command", id="workbench.action.terminal.kill")
    with pytest.raises(Refused, match="closed before the command had ended"):
        bridge.result(gone)


@pytest.mark.parametrize(
    ("command", "code", "output"),
    [
        ("cat <<E\nx\nE", 0, "x\n"),
        ("for i in 1 2; do\n  echo $i\ndone\n", 0, "1\n2\n"),
        ('echo "hi !!"', 0, "hi !!\n"),
        ("(exit 7)", 7, ""),
        ("# nothing", 0, ""),
        ("kept=$(pwd); f() { echo $kept; }", 0, ""),
        ("f | wc -l", 0, "1\n"),
    ],
)
def test_a_terminal_takes_whatever_a_shell_does(
    bridge: Bridge, command: str, code: int, output: str
) -> None:
    ran = bridge.do("terminal", command=command, name="any", seconds=20)
    assert (ran["exit_code"], ran["output"]) == (code, output)


def terminal_of(bridge: Bridge) -> str | None:
    """The name of the one that is shown."""
    return next((it["name"] for it in bridge.do("state")["terminals"] if it["is_active"]), None)


# Debugging.


def test_debugging_python(bridge: Bridge, project: Path) -> None:
    util = str(project / "py/util.py")
    answer = bridge.do("debug", do="set_breakpoints", path="py/util.py", breakpoints=[{"line": 3}])
    assert answer["breakpoints"] == [{"line": 3, "is_verified": False, "message": ""}]
    stopped = bridge.do("debug", do="start", program="py/app.py")
    assert (stopped["state"], stopped["reason"]) == ("stopped", "breakpoint")
    assert (stopped["path"], stopped["line"]) == (util, 3)
    assert [frame["name"] for frame in stopped["stack"]] == ["double", "<module>"]
    assert bridge.do("state")["debugging"] == "app.py"
    until(lambda: bridge.do("state")["active"]["path"] == util)  # who watches sees where
    assert bridge.do("debug", do="variables")["variables"] == [
        {"name": "n", "value": "21", "type": "int"}
    ]
    answer = bridge.do("debug", do="evaluate", expression="n * 100")
    assert (answer["value"], answer["value_type"]) == ("2100", "int")
    answer = bridge.do("debug", do="evaluate", expression="value", frame=1)
    assert answer["value"] == "21"
    error = refused(bridge, "debug", do="evaluate", expression="absent")
    assert (error.code, "NameError" in error.message) == ("invalid_request", True)
    assert refused(bridge, "debug", do="variables", frame=9).code == "invalid_request"
    assert bridge.do("debug", do="step_out")["stack"][0]["name"] == "<module>"
    answer = bridge.do("debug", do="step_over")
    assert (answer["line"], answer["output"]) == (5, "it is 42\n")
    ended = bridge.do("debug", do="continue")
    assert (ended["state"], ended["exit_code"]) == ("ended", 0)
    assert refused(bridge, "debug", do="stack").code == "not_debugging"
    bridge.do("debug", do="set_breakpoints", path="py/util.py", breakpoints=[])
    ended = bridge.do("debug", do="start", name="The app")
    assert (ended["state"], ended["output"]) == ("ended", "it is 42\n")
    error = refused(bridge, "debug", do="start", name="None")
    assert (error.code, "The app" in error.message) == ("invalid_request", True)
    assert refused(bridge, "debug", do="start", program="data.json").code == "invalid_request"


def test_debugging_javascript(bridge: Bridge, project: Path) -> None:
    where = {"path": "js/count.js", "breakpoints": [{"line": 3, "condition": "n === 21"}]}
    bridge.do("debug", do="set_breakpoints", **where)
    stopped = bridge.do("debug", do="start", program="js/count.js")
    assert (stopped["state"], stopped["line"]) == ("stopped", 3)
    assert stopped["path"] == str(project / "js/count.js")
    assert len(stopped["stack"]) == 2
    values = {row["name"]: row["value"] for row in bridge.do("debug", do="variables")["variables"]}
    assert (values["n"], values["m"]) == ("21", "42")
    assert bridge.do("debug", do="evaluate", expression="m + 1")["value"] == "43"
    ended = bridge.do("debug", do="continue")
    assert (ended["state"], ended["exit_code"], ended["output"]) == ("ended", 4, "m is 42\n")
    bridge.do("debug", do="set_breakpoints", path="js/count.js", breakpoints=[])


def test_a_program_that_never_ends_is_ended_by_stop_or_the_next(
    bridge: Bridge, project: Path
) -> None:
    (project / "py/app.py").write_text("import time\nwhile True:\n    time.sleep(0.05)\n")
    answer = bridge.do("debug", do="start", program="py/app.py", seconds=10)
    assert answer["state"] == "running"
    assert refused(bridge, "debug", do="stack").code == "not_debugging"
    answer = bridge.do("debug", do="set_breakpoints", path="py/app.py", breakpoints=[{"line": 3}])
    assert answer["breakpoints"][0]["is_verified"]
    bridge.do("debug", do="set_breakpoints", path="py/app.py", breakpoints=[])
    answer = bridge.do("debug", do="start", program="js/count.js")
    assert (answer["state"], answer["exit_code"]) == ("ended", 4)
    started = bridge.send("do", type="debug", do="start", program="py/app.py", seconds=60)
    answer = bridge.do("debug", do="start", program="js/count.js")  # at once with the other
    assert (answer["state"], answer["exit_code"], answer["output"]) == ("ended", 4, "m is 42\n")
    with pytest.raises(Refused, match="in its place"):
        bridge.result(started)
    for _ in range(2):
        assert bridge.do("debug", do="stop")["state"] == "ended"


# Extensions and commands.

MANIFEST = (
    '<?xml version="1.0" encoding="utf-8"?><PackageManifest Version="2.0.0" xmlns="http://schemas.'
    'microsoft.com/developer/vsx-schema/2011"><Metadata><Identity Language="en-US" Id="tiny" '
    'Version="1.2.3" Publisher="tests"/><DisplayName>Tiny</DisplayName><Description>A test'
    '</Description></Metadata><Installation><InstallationTarget Id="Microsoft.VisualStudio.Code"/>'
    '</Installation><Dependencies/><Assets><Asset Type="Microsoft.VisualStudio.Code.Manifest" '
    'Path="extension/package.json" Addressable="true"/></Assets></PackageManifest>'
)
TINY = (
    'exports.activate = () => { require("vscode").commands.registerCommand('
    '"tiny.twice", (n) => n === "loop" ? globalThis : n * 2);'
    'require("vscode").commands.registerCommand("tiny.ask", () =>'
    ' require("vscode").window.showInputBox()); };'
)


def test_install_an_extension_and_run_its_command(bridge: Bridge, tmp_path: Path) -> None:
    manifest = {
        **{"name": "tiny", "publisher": "tests", "version": "1.2.3", "main": "./main.js"},
        **{"engines": {"vscode": "^1.100.0"}, "activationEvents": ["*"]},
    }
    with zipfile.ZipFile(tmp_path / "tiny.vsix", "w") as packed:
        packed.writestr("extension.vsixmanifest", MANIFEST)
        packed.writestr("extension/package.json", json.dumps(manifest))
        packed.writestr("extension/main.js", TINY)
    answer = bridge.do("install_extension", path=str(tmp_path / "tiny.vsix"))
    assert answer == {"type": "install_extension", "id": "tests.tiny", "version": "1.2.3"}
    assert bridge.do("command", id="tiny.twice", args=[21])["value"] == 42
    assert bridge.do("command", id="tiny.twice", args=["loop"])["value"] is None  # no JSON says it


def test_what_is_no_extension_or_command_is_said(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "no.vsix").write_bytes(b"PK\3\4 nonsense")
    assert (
        refused(bridge, "install_extension", path=str(tmp_path / "no.vsix")).code
        == "invalid_request"
    )
    missing = str(tmp_path / "none.vsix")
    assert refused(bridge, "install_extension", path=missing).code == "file_not_found"
    assert refused(bridge, "command", id="no.such.command").code == "invalid_request"


def test_nothing_waits_for_longer_than_its_seconds(bridge: Bridge) -> None:
    began = time.monotonic()
    error = refused(bridge, "diagnostics", path="py/app.py", seconds=0.0001)
    assert error.code == "timed_out"
    # It asks a person, and nobody is there.
    error = refused(bridge, "command", id="tiny.ask", seconds=0.5)
    assert (error.code, "0.5 s" in error.message) == ("timed_out", True)
    assert time.monotonic() - began < 20
    assert bridge.do("state")["type"] == "state"


# The last one: the folder is another afterwards.


def test_open_folder_is_answered_and_the_extension_comes_again(
    server: Path, project: Path, tmp_path: Path
) -> None:
    with Bridge(server) as bridge:
        assert bridge.do("open_folder", path=".") == {"type": "open_folder", "path": str(project)}
        answer = bridge.do("open_folder", path=str(tmp_path))
        assert answer == {"type": "open_folder", "path": str(tmp_path)}

    def shown() -> str | None:
        with suppress(OSError, EOFError), Bridge(server) as again:
            return str(again.hello["folder"])
        return None

    until(lambda: shown() == str(tmp_path), 60)
    with Bridge(server) as bridge:
        assert bridge.do("state")["folder"] == str(tmp_path)
