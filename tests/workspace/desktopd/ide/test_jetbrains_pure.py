"""What of the JetBrains adapter decides without an IDE, as tables."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from workspace import ide as i
from workspace.desktopd.ide.jetbrains import edits, places, preparing, testing
from workspace.desktopd.ide.jetbrains.debugging import variables
from workspace.desktopd.ide.jetbrains.launching import find, home_of
from workspace.desktopd.ide.jetbrains.phases import START_SECONDS, Facts, dialogs_of, phase
from workspace.desktopd.ide.jetbrains.tools import NEEDS, arguments, can, failure
from workspace.desktopd.ide.jetbrains.wire import Offer, Said
from workspace.errors import EditConflict, InvalidRequest, Unavailable
from workspace.models import Window, WindowKind

GOOD = Facts(
    is_running=True, seconds=30, is_listening=True, is_connected=True, is_answering=True,
    is_open=True,
)  # fmt: skip
LATE = START_SECONDS + 1


@pytest.mark.parametrize(
    ("facts", "expected", "words"),
    [
        (Facts(False), "not_started", "does not run"),
        (Facts(False, is_listening=True, dialogs=("Crash",)), "not_started", ""),
        (Facts(True, 3), "starting", "starts"),
        (Facts(True, 3, is_listening=True), "starting", "starts"),
        (Facts(True, 3, dialogs=("User Agreement",)), "waiting_for_dialog", "User Agreement"),
        (Facts(True, LATE, dialogs=("a", "b", "c", "d")), "waiting_for_dialog", "1 more"),
        (Facts(True, LATE), "not_answering", "does not listen"),
        (Facts(True, LATE, is_listening=True), "not_answering", "does not answer"),
        (Facts(True, 9, True, is_refused=True), "not_answering", "token"),
        (Facts(True, 9, True, False, True), "not_answering", "does not answer"),
        (Facts(True, 9, True, False, True, dialogs=("Ask",)), "waiting_for_dialog", "Ask"),
        (Facts(True, 9, True, False, True, True), "starting", "opens the folder"),
        (Facts(True, 9, True, False, True, True, dialogs=("Trust?",)), "waiting_for_dialog", ""),
        (Facts(True, LATE, True, False, True, True, True, True), "indexing", "reads"),
        (GOOD, "ready", ""),
        (Facts(True, 9, True, False, True, True, True, dialogs=("Tip",)), "ready", "Tip"),
    ],
)
def test_the_phase_is_by_what_is_seen(facts: Facts, expected: str, words: str) -> None:
    told = phase(facts)
    assert told[0] == expected
    assert words in told[1]


def window(title: str, kind: WindowKind = "normal", of: str = "jetbrains-pycharm") -> Window:
    return Window(
        id=1, title=title, window_class=of, x=0, y=0, width=100, height=100, kind=kind
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([], ()),
        ([window("shop \u2013 main.py")], ()),
        ([window("shop \u2013 main.py"), window("Rename", "dialog")], ("Rename",)),
        ([window("Error", "dialog", of="xterm")], ()),
        ([window("PyCharm User Agreement")], ("PyCharm User Agreement",)),
        ([window("Data Sharing", of="com-intellij-idea-Main")], ("Data Sharing",)),
        ([window("Welcome to PyCharm")], ("Welcome to PyCharm",)),
        ([window("shop \u2013 license.py")], ()),
        ([window("", "dialog")], ("a dialog",)),
    ],
)
def test_dialogs_are_the_ides_own(shown: Sequence[Window], expected: tuple[str, ...]) -> None:
    assert dialogs_of(shown, "PyCharm") == expected


def test_what_it_can_is_by_the_tools_that_are_there() -> None:
    assert can({}, hands_over=False) == []
    assert can({}, hands_over=True) == ["open_folder"]
    every = {name: Offer(name) for groups in NEEDS.values() for group in groups for name in group}
    assert set(can(every, hands_over=False)) == set(NEEDS)
    half = {"xdebug_start_debugger_session": Offer("xdebug_start_debugger_session")}
    assert can(half, hands_over=False) == []


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (("filePath", "projectPath"), {"filePath": "a.py", "projectPath": "/p"}),
        (("pathInProject", "rootFolder", "line"), {"pathInProject": "a.py", "rootFolder": "/p", "line": 3}),  # noqa: E501
        (("files", "projectPath"), {"files": ["a.py"], "projectPath": "/p"}),
        (("path",), {"path": "a.py"}),
    ],
)  # fmt: skip
def test_arguments_are_those_that_a_version_knows(
    known: tuple[str, ...], expected: dict[str, object]
) -> None:
    assert arguments(Offer("t", frozenset(known)), "/p", "a.py", line=3, column=None) == expected


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Indexes are not ready", "ide_not_ready"),
        ("`projectPath`=`/x` doesn't correspond to any open project.", "ide_not_ready"),
        ("User rejected command execution", "forbidden"),
        ("No occurrences found", "edit_conflict"),
        ("File already exists: a.py. Specify 'overwrite=true'", "edit_conflict"),
        ("Specified path '../x' points to the location outside of the project", "invalid_request"),
        ("File not found: a.py", "file_not_found"),
        ("File a.py doesn't exist or can't be opened", "file_not_found"),
        ("Debug session 'x' not found", "not_debugging"),
        ("Unknown tool: x", "unsupported"),
        ("Something else", "ide_failed"),
        ("", "ide_failed"),
    ],
)
def test_what_a_tool_says_becomes_an_error_of_ours(words: str, code: str) -> None:
    assert failure("tool", Said(words, is_error=True)).code == code


def edit(**told: object) -> i.FileEdit:
    return i.FileEdit.model_validate({"path": "a.txt", "new": "", **told})


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ("a b a", [edit(old="b", new="c")], "a c a"),
        ("a b a", [edit(old="a", new="x", all=True)], "x b x"),
        ("one\ntwo\n", [edit(line=1, end_line=1, new="1")], "1\ntwo\n"),
        ("one\ntwo\n", [edit(line=1, end_line=2, new="")], ""),
        ("one\ntwo", [edit(line=2, end_line=2, new="2")], "one\n2"),
        ("one\ntwo", [edit(line=2, end_line=2, new="2", expected="two")], "one\n2"),
        ("abc", [edit(line=1, column=2, end_line=1, end_column=2, new="-")], "a-bc"),
        ("abc", [edit(line=1, column=4, end_line=1, end_column=4, new="d")], "abcd"),
        # Columns are UTF-16: the picture takes two.
        ("\U0001f600b", [edit(line=1, column=3, end_line=1, end_column=4, new="B")], "\U0001f600B"),
        ("a\nb\nc", [edit(old="c", new="C"), edit(line=1, end_line=1, new="A")], "A\nb\nC"),
        ("a\nb", [edit(old="a\r\nb", new="c\r\nd")], "c\nd"),
    ],
)  # fmt: skip
def test_edits_are_worked_out(before: str, wanted: list[i.FileEdit], after: str) -> None:
    assert edits.changed(before, wanted)[0] == after


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ([edit(old="z", new="")], EditConflict),
        ([edit(old="a", new="")], EditConflict),  # twice
        ([edit(line=1, end_line=1, new="", expected="b")], EditConflict),
        ([edit(line=9, end_line=9, new="")], InvalidRequest),
        ([edit(line=1, column=9, end_line=1, end_column=9, new="")], InvalidRequest),
        ([edit(line=1, column=3, end_line=1, end_column=1, new="")], InvalidRequest),
        ([edit(old="a b", new=""), edit(old="b a", new="")], InvalidRequest),
    ],
)
def test_edits_that_do_not_fit_are_refused(
    wanted: list[i.FileEdit], error: type[Exception]
) -> None:
    with pytest.raises(error):
        edits.changed("a b a", wanted)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a\nb\nc\n", "a\nB\nc\n"),
        ("x\nx\nx\n", "x\nx\ny\nx\n"),
        ("x\nx\n", "x\n"),
        ("a", ""),
        ("same\nsame\nsame\n", "same\nother\nsame\n"),
        ("a\nb", "a\nb\n"),
    ],
)
def test_the_piece_that_is_replaced_stands_once(old: str, new: str) -> None:
    piece, becomes = edits.unique(old, new)
    assert old.count(piece) == 1
    assert old.replace(piece, becomes) == new


def test_places_are_found_in_lines() -> None:
    line = "x = \U0001f600 + total_of"
    assert places.word_at(line, 11) == ("total_of", 10)
    assert places.word_at(line, 3) == ("", 3)
    assert places.column_at(line, line.index("total")) == 10
    asked = i.GetHover(path="a", line=1, symbol="total_of")
    assert places.column_of(asked, line) == 10
    assert places.column_of(i.GetHover(path="a", line=1), "    name = 1") == 5
    for wrong in (i.GetHover(path="a", line=2), i.GetHover(path="a", line=1, column=99)):
        with pytest.raises(InvalidRequest):
            places.column_of(wrong, line)
    assert places.absolute("file:///a%20b/c.py", "/p") == "/a b/c.py"
    for outside in ("/etc/passwd", "../x", "/p", "/pp/x"):
        with pytest.raises(InvalidRequest):
            places.relative(outside, "/p")


PYTEST = """\
F.s                                                                      [100%]
=================================== FAILURES ===================================
_________________________________ test_wrong __________________________________

    def test_wrong():
>       assert 1 == 2
E       assert 1 == 2

test_one.py:5: AssertionError
=========================== short test summary info ============================
FAILED test_one.py::test_wrong - assert 1 == 2
1 failed, 1 passed, 1 skipped in 0.02s
"""
UNITTEST = """\
test_a (test_one.One.test_a) ... ok
test_b (test_one.One.test_b) ... FAIL

======================================================================
FAIL: test_b (test_one.One.test_b)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/p/test_one.py", line 9, in test_b
    self.assertEqual(1, 2)
AssertionError: 1 != 2

----------------------------------------------------------------------
Ran 2 tests in 0.001s

FAILED (failures=1)
"""
SERVICES = """\
##teamcity[testStarted name='test_a']
##teamcity[testFinished name='test_a' duration='1']
##teamcity[testStarted name='test_b']
##teamcity[testFailed name='test_b' message='1 |!= 2' details='File "/p/test_one.py", line 9|nx']
##teamcity[testFinished name='test_b' duration='1']
##teamcity[testIgnored name='test_c' message='not now']
"""


@pytest.mark.parametrize(
    ("output", "numbers", "where"),
    [
        (PYTEST, (1, 1, 1), ("/p/test_one.py", 5)),
        (UNITTEST, (1, 1, 0), ("/p/test_one.py", 9)),
        (SERVICES, (1, 1, 1), ("/p/test_one.py", 9)),
        ("3 passed in 0.1s\n", (3, 0, 0), None),
        ("something else\n", (None, None, None), None),
        ("", (None, None, None), None),
    ],
)
def test_what_came_of_tests_is_read(
    output: str, numbers: tuple[int | None, ...], where: tuple[str, int] | None
) -> None:
    told = testing.result(
        output, ran="", exit_code=1, is_cut=False, elapsed_seconds=0.0, folder="/p"
    )  # fmt: skip
    assert (told.passed, told.failed, told.skipped) == numbers
    assert [(each.path, each.line) for each in told.failures] == ([where] if where else [])
    for failure_ in told.failures:
        assert "2" in failure_.message


def test_run_configurations_of_tests_are_found() -> None:
    python = {"name": "Main", "description": "Python"}
    tests = {"name": "All of them", "description": "Python tests"}
    assert testing.of_tests([python, tests]) == "All of them"
    assert testing.of_tests([python, {"name": "Run tests", "description": "Shell Script"}])
    assert testing.of_tests([python, {"name": "latest", "description": ""}]) is None


def test_the_runner_is_by_the_files(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert testing.runner(folder, None, None) is None
    (tmp_path / "package.json").write_text('{"scripts": {"test": "x"}}')
    assert testing.runner(folder, None, "a b") == "npm test --silent -- -t 'a b'"
    (tmp_path / "test_one.py").write_text("")
    assert "pytest" in str(testing.runner(folder, None, None))
    (tmp_path / "package.json").write_text("[]")
    assert "-k" in str(testing.runner(folder, "test_one.py", "x"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = {int} 3", ("x", "3", "int")),
        ("+ self = {Cart} <Cart object>", ("self", "<Cart object>", "Cart")),
        ("\u251c\u2500 name: str = 'a = b'", ("name", "'a = b'", "str")),
        ("x = 3", ("x", "3", "")),
        ("what nobody knows", ("what nobody knows", "", "")),
    ],
)
def test_variables_are_read(line: str, expected: tuple[str, str, str]) -> None:
    told = variables(f"\n{line}\n")[0]
    assert (told.name, told.value, told.type) == expected


def test_no_output_takes_long_to_read() -> None:
    """Each of these took minutes, or for ever, by a pattern that tries every way to read it."""
    blank = "\n" * 100_000
    for output in (
        "1 a11" + " a11" * 20_000 + " x",
        f"{blank}x",
        f"Ran 1 test in 1s\nFAIL: x\n{blank}x",
        f"FAILED a.py::t - x\n_ t{'_' * 100_000}x\n1 failed in 1s\n",
    ):
        assert testing.result(
            output, ran="", exit_code=1, is_cut=False, elapsed_seconds=0, folder="/p"
        )
    assert variables(f"{' ' * 100_000}x")[0].name == "x"


# Preparing, and which IDE there is.


def an_ide(folder: Path, **told: object) -> Path:
    (folder / "bin").mkdir(parents=True)
    launch = [{"os": "Linux", "vmOptionsFilePath": "bin/pycharm64.vmoptions"}]
    info = {"name": "PyCharm", "version": "2026.2", "dataDirectoryName": "PyCharm2026.2"}
    (folder / "product-info.json").write_text(json.dumps({**info, "launch": launch, **told}))
    program = folder / "bin" / "pycharm.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def options_of(text: str) -> dict[str | None, str | None]:
    return {each.get("name"): each.get("value") for each in ElementTree.fromstring(text).iter()}


def test_it_is_prepared_so_that_it_asks_nothing(tmp_path: Path) -> None:
    an_ide(tmp_path / "ide")
    home = tmp_path / "home"
    settings = home / ".config/JetBrains/PyCharm2026.2"
    (settings / "options").mkdir(parents=True)
    (settings / "options/ide.general.xml").write_text(
        '<application><component name="GeneralSettings"><option name="autoSave" value="no"/>'
        '<option name="confirmExit" value="true"/></component></application>'
    )
    (settings / "pycharm64.vmoptions").write_text("-Xmx3g\n-Didea.mcp.server.force.port=1\n")
    told = ["--home", str(home), "--port", "7000", "--trust", "/p & q", "--accept-agreement"]
    assert preparing.main([str(tmp_path / "ide"), *told]) == 0

    server = options_of((settings / "options/mcpServer.xml").read_text())
    assert server["enableMcpServer"] == "true"
    assert server["enableBraveMode"] == "true"
    assert server["mcpServerPort"] == "7000"
    general = options_of((settings / "options/ide.general.xml").read_text())
    assert (general["autoSave"], general["confirmExit"]) == ("no", "false")
    assert 'key="/p &amp; q"' in (settings / "options/trusted-paths.xml").read_text()
    lines = (settings / "pycharm64.vmoptions").read_text().splitlines()
    assert "-Xmx3g" in lines
    assert [each for each in lines if "force.port" in each] == ["-Didea.mcp.server.force.port=7000"]
    consent = (home / ".local/share/JetBrains/consentOptions/accepted").read_text()
    assert consent.startswith("rsch.send.usage.stat:1.1:0:")
    node = '_!(!!cg"p!(}!}@"j!(k!|w"w!\'8!b!"p!\':!e@=='  # as Java writes "privacy_policy"
    agreed = home / ".java/.userPrefs/jetbrains" / node / "prefs.xml"
    assert 'key="eua_accepted_version" value="999.999"' in agreed.read_text()
    assert not list(home.rglob("*.new"))

    again = {path: path.read_bytes() for path in home.rglob("*.xml")}
    assert preparing.main([str(tmp_path / "ide"), *told]) == 0
    assert {path: path.read_bytes() for path in home.rglob("*.xml")} == again


def test_the_agreement_is_not_accepted_unasked_and_commands_may_be_confirmed(
    tmp_path: Path,
) -> None:
    an_ide(tmp_path / "ide")
    home = tmp_path / "home"
    assert preparing.main([str(tmp_path / "ide"), "--home", str(home), "--ask"]) == 0
    assert not (home / ".java").exists()
    server = home / ".config/JetBrains/PyCharm2026.2/options/mcpServer.xml"
    assert options_of(server.read_text())["enableBraveMode"] == "false"


@pytest.mark.parametrize("before", ["", "<", "<!DOCTYPE x><application/>", "<other/>", "\0"])
def test_settings_that_cannot_be_read_are_written_anew(before: str) -> None:
    text = preparing.merged(before, {"A": {"b": "1"}})
    assert options_of(text)["b"] == "1"


@pytest.mark.parametrize(
    "told", [{"dataDirectoryName": "../../x"}, {"dataDirectoryName": ".."}, {"launch": 3}]
)
def test_a_folder_that_is_no_ide_is_none(tmp_path: Path, told: dict[str, object]) -> None:
    assert preparing.product_of(str(tmp_path)) is None
    assert preparing.main([str(tmp_path), "--home", str(tmp_path)]) == 2
    an_ide(tmp_path / "ide", **told)
    assert preparing.product_of(str(tmp_path / "ide")) is None


def test_the_program_is_found_in_path(tmp_path: Path) -> None:
    program = an_ide(tmp_path / "pycharm")
    links = tmp_path / "links"
    links.mkdir()
    (links / "pycharm").symlink_to(program)
    assert find(None, str(links)) == str(links / "pycharm")
    assert find("pycharm", str(links)) == str(links / "pycharm")
    assert find(None, str(program.parent)) == str(program)
    assert find(str(program), "") == str(program)
    assert home_of(str(links / "pycharm")) == str(tmp_path / "pycharm")
    for name in ("goland", str(tmp_path / "nothing")):
        with pytest.raises(Unavailable):
            find(name, str(links))


def test_the_images_script_prepares_too(tmp_path: Path) -> None:
    script = Path(__file__).parents[4] / "images/kata-ubuntu-desktop/jetbrains/prepare"
    assert script.stat().st_mode & stat.S_IXUSR
    an_ide(tmp_path / "ide")
    command = f"{script} {tmp_path}/ide --home {tmp_path}/home >/dev/null"
    assert os.waitstatus_to_exitcode(os.system(command)) == 0
    assert (tmp_path / "home/.config/JetBrains/PyCharm2026.2/options/mcpServer.xml").exists()
