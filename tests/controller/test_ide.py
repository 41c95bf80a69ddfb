"""What the log tells of the IDE, and what a desktop without one answers."""

from __future__ import annotations

from typing import Any  # JSON values

import httpx
import pytest

from controller.routes.ide import _came, _changes, _told
from tests.controller.conftest import claim
from workspace import ide as i

pytestmark = pytest.mark.anyio
SECRET = "Marzipan7Q"
READS: list[i.IdeAction] = [
    i.GetState(),
    i.GetDiagnostics(),
    i.GetSymbols(query=SECRET),
    i.GetDefinition(path="a", line=1),
    i.GetReferences(path="a", line=1),
    i.GetHover(path="a", line=1),
    i.CodeActions(path="a", line=1),
    i.Inspect(do="stack"),
    i.Inspect(do="variables"),
]
TOLD: list[tuple[i.IdeAction, dict[str, Any]]] = [
    (i.Open(path="a.py", line=3), {"type": "open", "path": "a.py", "line": 3}),
    (i.OpenFolder(path="p" * 300), {"type": "open_folder", "path": "p" * 200}),
    (
        i.Rename(path="a.py", line=3, symbol=SECRET, new_name=SECRET),
        {"type": "rename", "path": "a.py", "line": 3, "length": 10},
    ),
    (
        i.ApplyEdit(
            edits=[
                i.FileEdit(path="a.py", old=SECRET, new=SECRET),
                i.FileEdit(path="b.py", line=2, end_line=2, new="", expected=SECRET),
            ]
        ),
        {
            "type": "apply_edit",
            "edits": [{"path": "a.py", "length": 10}, {"path": "b.py", "length": 0, "line": 2}],
            "count": 2,
        },
    ),
    (
        i.CodeActions(path="a.py", line=3, apply=SECRET),
        {"type": "code_actions", "path": "a.py", "line": 3, "length": 10},
    ),
    (
        i.RunTask(command=SECRET),
        {"type": "run_task", "length": 10, "sha256": "441eadc67160f449"},
    ),
    (i.RunTask(name="build"), {"type": "run_task", "name": "build"}),
    (i.RunTests(pattern=SECRET), {"type": "run_tests", "length": 10}),
    (
        i.RunInTerminal(command=SECRET),
        {"type": "terminal", "name": "agent", "length": 10, "sha256": "441eadc67160f449"},
    ),
    (
        i.SetBreakpoints(
            path="a.py", breakpoints=[i.Breakpoint(line=3), i.Breakpoint(line=5, condition=SECRET)]
        ),
        {"type": "debug", "do": "set_breakpoints", "path": "a.py", "lines": [3, 5]},
    ),
    (
        i.StartDebugging(program="a.py", args=[SECRET]),
        {"type": "debug", "do": "start", "program": "a.py", "count": 1},
    ),
    (
        i.EvaluateInFrame(expression=SECRET),
        {"type": "debug", "do": "evaluate", "length": 10, "sha256": "441eadc67160f449"},
    ),
    (i.RunCommand(id="a.b", args=[SECRET]), {"type": "command", "id": "a.b", "count": 1}),
    (i.InstallExtension(id="a.b"), {"type": "install_extension", "id": "a.b"}),
]


@pytest.mark.parametrize("action", READS)
def test_what_only_reads_is_not_in_the_log(action: i.IdeAction) -> None:
    assert not _changes(action)


@pytest.mark.parametrize(("action", "told"), TOLD)
def test_what_is_written_is_told_by_its_length(action: i.IdeAction, told: dict[str, Any]) -> None:
    assert _changes(action)
    assert _told(action) == told


def test_what_came_of_it_is_told_without_texts() -> None:
    ran = i.Ran(type="terminal", exit_code=1, output=SECRET)
    assert _came(ran) == {"exit_code": 1}
    tested = i.Tested(passed=1, failed=2, exit_code=1, output=SECRET, ran=SECRET)
    assert _came(tested) == {"exit_code": 1, "passed": 1, "failed": 2}
    changed = i.Changed(type="rename", files=[i.ChangedFile(path="a", changes=2)], title=SECRET)
    assert _came(changed) == {"changed": ["a"], "files": 1}
    stopped = i.Debugged(state="stopped", line=3, value=SECRET, output=SECRET)
    assert _came(stopped) == {"state": "stopped", "at": 3}
    assert _came(i.CommandResult(value=SECRET)) == {}


async def test_a_desktop_without_one_says_so(http: httpx.AsyncClient) -> None:
    base = f"/v1/workspaces/{(await claim(http, template='desktop'))['id']}"
    for answer in (
        await http.get(f"{base}/ide"),
        await http.post(f"{base}/ide", json={"type": "state"}),
        await http.post(f"{base}/ide", json={"type": "format", "path": "a.py"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "no_ide")
    kinds = [event["kind"] for event in (await http.get(f"{base}/events")).json()["events"]]
    assert kinds.count("ide") == 1
    for body in (
        "{}",
        '{"type": "nothing"}',
        '{"type": "debug", "do": "nothing"}',
        '{"type": "open"}',
        r'{"type": "command", "id": "a", "args": ["\ud800"]}',
        '{"type": "command", "id": "a", "args": [1e999]}',
        '{{"type": "command", "id": "a", "args": [{}1{}]}}'.format("[" * 300, "]" * 300),
        '{"type": "state", "seconds": 1e9}',
    ):
        answer = await http.post(
            f"{base}/ide", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_paused_desktop_is_resumed_by_it(http: httpx.AsyncClient) -> None:
    base = f"/v1/workspaces/{(await claim(http, template='desktop'))['id']}"
    assert (await http.post(f"{base}/pause")).json()["state"] == "paused"
    assert (await http.post(f"{base}/ide", json={"type": "state"})).json()["code"] == "no_ide"
    assert (await http.get(base)).json()["state"] == "ready"
