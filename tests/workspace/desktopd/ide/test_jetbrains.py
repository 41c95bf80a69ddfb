"""The whole vocabulary through an IDE of JetBrains: the stub, or by ``make test-jetbrains`` a real
one. Each test leaves the project as it found it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.workspace.desktopd.ide.jetbrains import (
    IS_REAL,
    Ide,
    running,
    running_really,
    write_project,
)
from tests.workspace.desktopd.x11.harness import Server
from workspace import ide as i
from workspace.errors import (
    EditConflict,
    FileMissing,
    Forbidden,
    InvalidRequest,
    NotADirectory,
    NotDebugging,
    TooLarge,
    Unavailable,
    Unsupported,
)

pytestmark = pytest.mark.timeout(600 if IS_REAL else 60)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a real IDE is shown on."""
    if not IS_REAL:
        yield {}
        return
    server = Server(tmp_path_factory.mktemp("screen"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAUTHORITY", str(server.authority))
        try:
            server.start("openbox")
            yield {"DISPLAY": server.display, "XAUTHORITY": str(server.authority)}
        finally:
            server.stop()


@pytest.fixture(scope="module")
async def started(
    tmp_path_factory: pytest.TempPathFactory, screen: dict[str, str]
) -> AsyncIterator[Ide]:
    folder = tmp_path_factory.mktemp("ide")
    settings = i.IdeSettings(kind="jetbrains", commands=["Reformat*", "SaveAll"])
    try:
        run = running_really(folder, **screen) if IS_REAL else running(folder, settings=settings)
        async with run as ide:
            await ide.until_ready()
            yield ide
    except Unavailable as error:
        pytest.exit(f"{error} Set CARREL_JETBRAINS to the program of one.", returncode=1)


@pytest.fixture
async def ide(started: Ide) -> Ide:
    write_project(started.folder)
    return started


stub_only = pytest.mark.skipif(IS_REAL, reason="what only the stub can be told to do")


async def test_it_says_how_it_is_and_what_it_can(ide: Ide) -> None:
    told = await ide.adapter.health()
    assert (told.ide, told.phase, told.folder) == ("jetbrains", "ready", str(ide.folder))
    assert told.name
    assert told.version
    assert {"open", "rename", "apply_edit", "run_task", "open_folder"} <= set(told.can)
    assert "code_actions" not in told.can


async def test_it_opens_files_and_tells_which_are_open(ide: Ide) -> None:
    opened = await ide.do(type="open", path="prices.py", line=6, column=5)
    assert isinstance(opened, i.Opened)
    assert opened.path == str(ide.folder / "prices.py")
    assert (opened.line, opened.column, opened.lines) == (6, 5, 12)
    await ide.do(type="open", path=str(ide.folder / "main.py"))
    state = await ide.do(type="state")
    assert isinstance(state, i.IdeState)
    assert state.folder == str(ide.folder)
    assert {Path(each.path).name for each in state.files} >= {"prices.py", "main.py"}
    assert state.active is not None
    assert state.active.path.endswith("main.py")


async def test_it_finds_problems(ide: Ide) -> None:
    (ide.folder / "orders.py").write_text("import json\n\n\ndef broken(:\n    pass\n")
    found = await ide.do(type="diagnostics", path="orders.py")
    assert isinstance(found, i.Diagnostics)
    assert found.is_settled
    first = found.diagnostics[0]
    assert (first.severity, first.range.line) == ("error", 4)
    assert first.path == str(ide.folder / "orders.py")
    (ide.folder / "orders.py").write_text("import json\n")
    found = await ide.do(type="diagnostics", path="orders.py")
    assert isinstance(found, i.Diagnostics)
    assert [each.range.line for each in found.diagnostics] == [1]
    found = await ide.do(type="diagnostics", path="orders.py", least="error")
    assert isinstance(found, i.Diagnostics)
    assert found.total == 0


async def test_it_looks_into_the_files_that_are_open(ide: Ide) -> None:
    await ide.do(type="open", path="others.py")
    (ide.folder / "others.py").write_text("x = = 1\n")
    found = await ide.do(type="diagnostics")
    assert isinstance(found, i.Diagnostics)
    assert "others.py" in {Path(each.path).name for each in found.diagnostics}


async def test_it_finds_symbols_by_name(ide: Ide) -> None:
    found = await ide.do(type="symbols", query="with_tax")
    assert isinstance(found, i.Symbols)
    symbol = found.symbols[0]
    assert (symbol.name, symbol.kind, symbol.range.line) == ("with_tax", "function", 6)
    assert symbol.path == str(ide.folder / "prices.py")
    page = await ide.do(type="symbols", query="t", limit=1)
    assert isinstance(page, i.Symbols)
    assert (len(page.symbols), page.next) == (1, 1)
    with pytest.raises(Unsupported, match="query") as raised:
        await ide.do(type="symbols", path="prices.py")
    assert "symbols" in raised.value.hint


async def test_it_finds_definitions(ide: Ide) -> None:
    for place in ({"symbol": "total"}, {"column": 14}):
        found = await ide.do(type="definition", path="orders.py", line=5, **place)
        assert isinstance(found, i.Locations)
        at = found.locations[0]
        assert at.path == str(ide.folder / "prices.py")
        assert at.range == i.Range(line=10, column=5, end_line=10, end_column=10)
        assert at.text == "def total(prices):"


async def test_it_finds_references_and_no_namesakes(ide: Ide) -> None:
    found = await ide.do(type="references", path="prices.py", line=10, symbol="total")
    assert isinstance(found, i.Locations)
    places = {(Path(each.path).name, each.range.line) for each in found.locations}
    assert places == {("prices.py", 10), ("orders.py", 1), ("orders.py", 5)}
    page = await ide.do(type="references", path="prices.py", line=10, symbol="total", limit=2)
    assert isinstance(page, i.Locations)
    assert (len(page.locations), page.total, page.next) == (2, 3, 2)


async def test_it_tells_what_stands_at_a_place(ide: Ide) -> None:
    told = await ide.do(type="hover", path="orders.py", line=5, symbol="total")
    assert isinstance(told, i.Hover)
    assert "total" in told.text
    told = await ide.do(type="hover", path="orders.py", line=2)
    assert isinstance(told, i.Hover)
    assert told.text == ""


async def test_it_renames_where_a_symbol_is_used_and_nowhere_else(ide: Ide) -> None:
    done = await ide.do(type="rename", path="orders.py", line=5, symbol="total", new_name="summed")
    assert isinstance(done, i.Changed)
    files = {Path(each.path).name: each.changes for each in done.files}
    assert files == {"prices.py": 1, "orders.py": 2}
    assert "def summed(prices)" in ide.text("prices.py")
    assert "amount = summed(prices)" in ide.text("orders.py")
    assert "def total(words)" in ide.text("others.py")


async def test_it_refuses_renames_that_conflict(ide: Ide) -> None:
    before = ide.text("prices.py")
    with pytest.raises(EditConflict, match="total"):
        await ide.do(type="rename", path="prices.py", line=6, symbol="with_tax", new_name="total")
    with pytest.raises(InvalidRequest):
        await ide.do(type="rename", path="prices.py", line=6, symbol="with_tax", new_name="a b")
    with pytest.raises(InvalidRequest, match="does not stand"):
        await ide.do(type="rename", path="prices.py", line=6, symbol="nobody", new_name="a")
    assert ide.text("prices.py") == before


async def test_it_edits_files_all_or_none(ide: Ide) -> None:
    (ide.folder / "new.py").unlink(missing_ok=True)
    done = await ide.do(
        type="apply_edit",
        edits=[
            {"path": "prices.py", "old": "RATE = 20", "new": "RATE = 10"},
            {"path": "prices.py", "line": 10, "column": 5, "end_line": 10, "end_column": 10,
             "new": "sum_of", "expected": "total"},
            {"path": "orders.py", "line": 1, "end_line": 1, "new": "from prices import sum_of"},
            {"path": "orders.py", "old": "total(", "new": "sum_of("},
            {"path": "new.py", "create": True, "new": "NEW = 1\n"},
        ],
    )  # fmt: skip
    assert isinstance(done, i.Changed)
    assert {Path(each.path).name: each.changes for each in done.files} == {
        "prices.py": 2, "orders.py": 2, "new.py": 1,
    }  # fmt: skip
    assert "RATE = 10" in ide.text("prices.py")
    assert "def sum_of(prices)" in ide.text("prices.py")
    assert ide.text("orders.py").startswith("from prices import sum_of\n\n")
    assert "amount = sum_of(prices)" in ide.text("orders.py")
    assert ide.text("new.py") == "NEW = 1\n"
    (ide.folder / "new.py").unlink()

    write_project(ide.folder)
    with pytest.raises(EditConflict, match="does not stand"):
        await ide.do(
            type="apply_edit",
            edits=[
                {"path": "prices.py", "old": "RATE = 20", "new": "RATE = 10"},
                {"path": "orders.py", "old": "what is not there", "new": ""},
            ],
        )
    assert "RATE = 20" in ide.text("prices.py")


async def test_it_refuses_edits_of_what_is_another_by_now(ide: Ide) -> None:
    place = {"line": 3, "column": 1, "end_line": 3, "end_column": 5, "new": "TAX"}
    edits = [{"path": "prices.py", "expected": "RACE", **place}]
    with pytest.raises(EditConflict, match="RATE"):
        await ide.do(type="apply_edit", edits=edits)
    edits = [{"path": "prices.py", "old": "prices", "new": "costs"}]
    with pytest.raises(EditConflict, match="2 times"):
        await ide.do(type="apply_edit", edits=edits)
    edits = [{"path": "prices.py", "create": True, "new": ""}]
    with pytest.raises(EditConflict, match="there already"):
        await ide.do(type="apply_edit", edits=edits)
    edits = [{"path": "prices.py", **place}, {"path": "prices.py", "old": "RATE =", "new": ""}]
    with pytest.raises(InvalidRequest, match="same place"):
        await ide.do(type="apply_edit", edits=edits)
    assert "RATE = 20" in ide.text("prices.py")


async def test_it_formats_files(ide: Ide) -> None:
    (ide.folder / "others.py").write_text("def one():\n\treturn 1   \n\n\n")
    done = await ide.do(type="format", path="others.py")
    assert isinstance(done, i.Changed)
    assert [Path(each.path).name for each in done.files] == ["others.py"]
    assert ide.text("others.py") == "def one():\n    return 1\n"
    again = await ide.do(type="format", path="others.py")
    assert isinstance(again, i.Changed)
    assert again.files == []


async def test_it_runs_commands_and_run_configurations(ide: Ide) -> None:
    ran = await ide.do(type="run_task", command="echo out; echo err >&2; exit 3")
    assert isinstance(ran, i.Ran)
    assert (ran.exit_code, ran.output.split()) == (3, ["out", "err"])
    ran = await ide.do(type="run_task", name="Main")
    assert isinstance(ran, i.Ran)
    assert ran.exit_code == 0
    assert "360 EUR" in ran.output
    with pytest.raises(InvalidRequest, match="Nothing"):
        await ide.do(type="run_task", name="Nothing of that name")
    ran = await ide.do(type="terminal", command="pwd")
    assert isinstance(ran, i.Ran)
    assert (ran.exit_code, ran.output.strip()) == (0, str(ide.folder))


async def test_it_cuts_long_output_at_its_begin(ide: Ide) -> None:
    ran = await ide.do(type="run_task", command="seq 5000")
    assert isinstance(ran, i.Ran)
    assert ran.is_cut
    assert ran.output.rstrip().endswith("\n5000")


async def test_it_runs_tests(ide: Ide) -> None:
    for chosen, numbers in (
        ({}, (1, 1)),
        ({"path": "test_orders.py"}, (1, 1)),
        ({"pattern": "test_bill"}, (1, 0)),
    ):
        told = await ide.do(type="run_tests", **chosen)
        assert isinstance(told, i.Tested)
        assert (told.passed, told.failed) == numbers, told.output
        assert [each.name.split(".")[-1].split("::")[-1] for each in told.failures] == [
            "test_wrong"
        ] * numbers[1]
        for failure in told.failures:
            assert "121 EUR" in failure.message
            assert (Path(failure.path).name, failure.line) == ("test_orders.py", 11)


async def test_it_debugs_a_program(ide: Ide) -> None:
    told = await ide.do(
        type="debug", do="set_breakpoints", path="orders.py", breakpoints=[{"line": 6}]
    )
    assert isinstance(told, i.Debugged)
    assert [(each.line, each.is_verified) for each in told.breakpoints] == [(6, True)]
    told = await ide.do(type="debug", do="start", program="main.py")
    assert isinstance(told, i.Debugged)
    assert (told.state, told.reason, told.line) == ("stopped", "breakpoint", 6)
    assert told.path == str(ide.folder / "orders.py")
    state = await ide.do(type="state")
    assert isinstance(state, i.IdeState)
    assert state.debugging
    told = await ide.do(type="debug", do="stack")
    assert isinstance(told, i.Debugged)
    assert [(each.frame, each.line) for each in told.stack[:2]] == [(0, 6), (1, 6)]
    assert [Path(each.path).name for each in told.stack[:2]] == ["orders.py", "main.py"]
    told = await ide.do(type="debug", do="variables")
    assert isinstance(told, i.Debugged)
    assert {each.name: (each.value, each.type) for each in told.variables}["amount"] == (
        "360", "int",
    )  # fmt: skip
    told = await ide.do(type="debug", do="evaluate", expression="amount + 1")
    assert isinstance(told, i.Debugged)
    assert (told.value, told.value_type) == ("361", "int")
    told = await ide.do(type="debug", do="evaluate", expression="len(prices)", frame=1)
    assert isinstance(told, i.Debugged)
    assert told.value == "2"
    with pytest.raises(InvalidRequest, match="NameError"):
        await ide.do(type="debug", do="evaluate", expression="nobody")
    printed = ""
    for step in ("step_out", "step_over"):
        told = await ide.do(type="debug", do=step)
        assert isinstance(told, i.Debugged)
        assert (told.state, told.reason) == ("stopped", "step")
        printed += told.output
    assert Path(told.path).name == "main.py"
    told = await ide.do(type="debug", do="continue")
    assert isinstance(told, i.Debugged)
    assert told.state == "ended"
    assert printed + told.output == "360 EUR\n"
    with pytest.raises(NotDebugging):
        await ide.do(type="debug", do="stack")


async def test_it_stops_debugging_and_breakpoints_have_conditions(ide: Ide) -> None:
    breakpoints = [{"line": 7, "condition": "price == 200"}]
    await ide.do(type="debug", do="set_breakpoints", path="orders.py", breakpoints=[])
    await ide.do(type="debug", do="set_breakpoints", path="prices.py", breakpoints=breakpoints)
    told = await ide.do(type="debug", do="start", name="Main")
    assert isinstance(told, i.Debugged)
    assert (told.state, told.line) == ("stopped", 7)
    told = await ide.do(type="debug", do="evaluate", expression="price")
    assert isinstance(told, i.Debugged)
    assert told.value == "200"
    told = await ide.do(type="debug", do="stop")
    assert isinstance(told, i.Debugged)
    assert told.state == "ended"
    told = await ide.do(type="debug", do="stop")
    assert isinstance(told, i.Debugged)
    assert told.state == "none"
    await ide.do(type="debug", do="set_breakpoints", path="prices.py", breakpoints=[])
    told = await ide.do(type="debug", do="start", name="Main")
    assert isinstance(told, i.Debugged)
    assert told.state == "ended"
    with pytest.raises(InvalidRequest, match="__main__"):
        await ide.do(type="debug", do="start", program="prices.py")
    with pytest.raises(Unsupported, match="entry"):
        await ide.do(type="debug", do="start", program="main.py", stop_on_entry=True)
    wrong = [{"line": 1000}]
    with pytest.raises(InvalidRequest, match="lines"):
        await ide.do(type="debug", do="set_breakpoints", path="prices.py", breakpoints=wrong)


async def test_it_opens_another_folder(ide: Ide) -> None:
    other = ide.folder.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "one.py").write_text("ONE = 1\n")
    try:
        opened = await ide.do(type="open_folder", path=str(other))
        assert isinstance(opened, i.FolderOpened)
        assert opened.path == str(other)
        assert (await ide.adapter.health()).folder == str(other)
        shown = await ide.do(type="open", path="one.py")
        assert isinstance(shown, i.Opened)
        assert shown.path == str(other / "one.py")
    finally:
        await ide.do(type="open_folder", path=str(ide.folder))
    with pytest.raises(FileMissing):
        await ide.do(type="open_folder", path=str(other / "nothing"))
    with pytest.raises(NotADirectory):
        await ide.do(type="open_folder", path=str(other / "one.py"))


async def test_it_says_what_is_wrong_with_a_path(ide: Ide) -> None:
    (ide.folder / "binary").write_bytes(b"\0\1\2")
    with (ide.folder / "large").open("wb") as file:
        file.truncate(50 << 20)
    for verb, more in (
        ("open", {}), ("diagnostics", {}), ("format", {}), ("hover", {"line": 1}),
        ("rename", {"line": 1, "new_name": "x"}),
    ):  # fmt: skip
        for path, error in (
            ("nothing.py", FileMissing),
            ("/etc/passwd", InvalidRequest),
            ("binary", InvalidRequest),
            ("large", TooLarge),
        ):
            with pytest.raises(error):
                await ide.do(type=verb, path=path, **more)
    with pytest.raises(InvalidRequest, match="lines"):
        await ide.do(type="hover", path="prices.py", line=1000)
    (ide.folder / "binary").unlink()
    (ide.folder / "large").unlink()


async def test_it_says_what_it_cannot(ide: Ide) -> None:
    for action in (
        {"type": "code_actions", "path": "prices.py", "line": 1},
        {"type": "install_extension", "id": "some.thing"},
    ):
        with pytest.raises(Unsupported) as raised:
            await ide.do(**action)
        assert "rename" in raised.value.hint


@stub_only
async def test_it_runs_the_commands_that_are_allowed(ide: Ide) -> None:
    done = await ide.do(type="command", id="ReformatCode")
    assert isinstance(done, i.CommandResult)
    assert done.value == "done ReformatCode"
    with pytest.raises(Forbidden, match="Exit"):
        await ide.do(type="command", id="Exit")
