"""What can go wrong with an IDE of JetBrains, one thing after another, with the stub."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import psutil
import pytest

from tests.workspace.desktopd.ide.jetbrains import Ide, programs_of, running, write_project
from tests.workspace.desktopd.ide.jetbrains_stub_launcher import install
from workspace import ide as i
from workspace.desktopd.hands import Hands
from workspace.desktopd.ide.ides import Ides
from workspace.desktopd.ide.jetbrains import launch, places
from workspace.desktopd.ide.jetbrains.adapter import JetBrains
from workspace.errors import (
    CarrelError,
    EditConflict,
    Forbidden,
    IdeFailed,
    IdeNotReady,
    InvalidRequest,
    TimedOut,
    Unavailable,
    Unsupported,
)
from workspace.models import Window


@pytest.fixture(scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ide]:
    async with running(tmp_path_factory.mktemp("ide")) as ide:
        await ide.until_ready()
        yield ide


@pytest.fixture
async def ide(started: Ide) -> AsyncIterator[Ide]:
    """It runs, and nothing fails yet; afterwards it must work as before."""
    write_project(started.folder)
    ours = [
        "token", "hang", "indexing", "not_open", "only_sse", "slow", "drop", "garbage", "nonsense",
        "oversize", "rename_refused", "reject_commands",
    ]  # fmt: skip
    yield started
    started.turn(**dict.fromkeys(ours), folder=str(started.folder))
    await started.until_ready()
    state = await started.do(type="state", seconds=5)
    assert isinstance(state, i.IdeState)


async def phase(ide: Ide) -> tuple[str, str]:
    begin = time.monotonic()
    told = await ide.adapter.health()
    assert time.monotonic() - begin < 10  # generous: the promise is two seconds, on a quiet machine
    return told.phase, told.message


def beside(
    ide: Ide, *, shown: Sequence[Window] = (), token: str = "", age: float = 1.0
) -> JetBrains:
    """Another adapter to the same IDE, that sees these windows."""

    async def windows() -> Sequence[Window]:
        return shown

    return JetBrains(
        str(ide.folder),
        settings=i.IdeSettings(kind="jetbrains"),
        port=ide.adapter._wire.port,  # type: ignore[attr-defined]
        token=token,
        pid=lambda: os.getpid(),
        age=lambda: age,
        windows=windows,
        name="PyCharm",
    )


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  # of another process: nothing tells it
            await asyncio.sleep(0.05)


def dialog(title: str) -> Window:
    return Window(
        id=1, title=title, window_class="jetbrains-pycharm", x=0, y=0, width=9, height=9,
        kind="dialog",
    )  # fmt: skip


async def test_one_that_does_not_run_is_not_started(tmp_path: Path) -> None:
    async def windows() -> Sequence[Window]:
        return ()

    adapter = JetBrains(
        str(tmp_path), settings=i.IdeSettings(kind="jetbrains"), port=1, token="",
        pid=lambda: None, age=lambda: 0.0, windows=windows,
    )  # fmt: skip
    told = await adapter.health()
    assert (told.phase, told.can, told.folder) == ("not_started", [], None)
    with pytest.raises(IdeNotReady, match="reached"):
        await adapter.do(i.GetState(seconds=2))
    await adapter.aclose()


async def test_one_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    async def shown() -> None:
        pass

    async with programs_of(tmp_path, {"PATH": "/nowhere"}) as programs:
        for program in (None, "pycharm", "/nowhere/bin/pycharm"):
            settings = i.IdeSettings(kind="jetbrains", program=program)
            with pytest.raises(Unavailable, match="no"):
                await launch(programs, settings, str(tmp_path), shown)


async def test_a_wrong_token_is_refused_and_said_so(ide: Ide) -> None:
    ide.turn(token="another")
    other = beside(ide, token="wrong")
    told = await other.health()
    assert told.phase == "not_answering"
    assert "token" in told.message
    with pytest.raises(CarrelError, match="token") as raised:
        await other.do(i.GetState())
    assert raised.value.code == "ide_failed"
    await other.aclose()
    other = beside(ide, token="another")
    assert (await other.health()).phase == "ready"
    await other.aclose()


@pytest.mark.parametrize(
    ("age", "shown", "expected"),
    [
        (1.0, [], "starting"),
        (1e6, [], "not_answering"),
        (1e6, [dialog("Crash")], "waiting_for_dialog"),
    ],
)
async def test_one_that_hangs_is_told_in_time(
    ide: Ide, age: float, shown: list[Window], expected: str
) -> None:
    ide.turn(hang=True)
    other = beside(ide, age=age, shown=shown)
    assert (await other.health()).phase == expected
    with pytest.raises((IdeNotReady, TimedOut)):
        await other.do(i.GetState(seconds=0.5))
    assert (await ide.adapter.health()).phase == "not_answering"
    ide.turn(hang=None)
    await asyncio.wait_for(other.until_ready(), 20)
    await other.aclose()


async def test_it_is_reached_over_the_older_transport(ide: Ide) -> None:
    ide.turn(only_sse=True)
    other = beside(ide)
    assert (await other.health()).phase == "ready"
    shown = await other.do(i.Open(path="main.py"))
    assert isinstance(shown, i.Opened)
    ide.turn(slow={"get_all_open_file_paths": 3})
    with pytest.raises(TimedOut):
        await other.do(i.GetState(seconds=0.5))
    ide.turn(slow=None)
    assert isinstance(await other.do(i.GetState()), i.IdeState)
    await other.aclose()


async def test_it_waits_for_a_dialog(ide: Ide) -> None:
    ide.turn(not_open=True)
    other = beside(ide, shown=[dialog("Trust Project?")])
    told = await other.health()
    assert told.phase == "waiting_for_dialog"
    assert "Trust Project?" in told.message
    ide.turn(not_open=None)
    assert (await other.health()).phase == "ready"
    ide.turn(slow={"execute_terminal_command": 3})
    with pytest.raises(TimedOut, match="Trust Project") as raised:
        await other.do(i.RunInTerminal(command="true", seconds=0.5))
    assert "dialog" in raised.value.hint
    await other.aclose()


async def test_a_folder_that_is_not_open_yet_is_starting(ide: Ide) -> None:
    ide.turn(not_open=True)
    assert (await phase(ide))[0] == "starting"
    with pytest.raises(IdeNotReady, match="open project"):
        await ide.do(type="state", seconds=0.5)


async def test_it_waits_while_it_indexes(ide: Ide) -> None:
    ide.turn(indexing=True)
    assert (await phase(ide))[0] == "indexing"
    for action in (
        {"type": "symbols", "query": "total"},
        {"type": "definition", "path": "orders.py", "line": 5, "symbol": "total"},
        {"type": "rename", "path": "prices.py", "line": 10, "symbol": "total", "new_name": "x"},
    ):
        with pytest.raises(IdeNotReady, match=r"[Ii]ndex"):
            await ide.do(seconds=0.8, **action)
    found = await ide.do(type="diagnostics", path="main.py", seconds=3)
    assert isinstance(found, i.Diagnostics)
    assert not found.is_settled
    asked = asyncio.ensure_future(ide.do(type="symbols", query="with_tax", seconds=20))
    await asyncio.sleep(0.5)
    assert not asked.done()
    ide.turn(indexing=None)
    answer = await asked
    assert isinstance(answer, i.Symbols)
    assert answer.total == 1


async def test_slow_answers_are_given_up(ide: Ide) -> None:
    ide.turn(slow={"get_all_open_file_paths": 3, "search_symbol": 3})
    with pytest.raises(TimedOut, match=r"0\.5|longer|in"):
        await ide.do(type="state", seconds=0.5)
    assert (await phase(ide))[0] == "not_answering"
    shown = await ide.do(type="open", path="main.py")  # others are served meanwhile
    assert isinstance(shown, i.Opened)


@pytest.mark.parametrize("how", ["drop", "garbage", "oversize"])
async def test_what_breaks_off_or_is_nonsense_is_said_so(ide: Ide, how: str) -> None:
    ide.turn(**{how: "get_all_open_file_paths"})
    with pytest.raises((IdeFailed, TimedOut)):
        await ide.do(type="state", seconds=3)
    assert isinstance(await ide.do(type="open", path="main.py"), i.Opened)


async def test_an_answer_is_read_to_its_limit_whatever_is_in_it(ide: Ide) -> None:
    ide.turn(oversize="get_all_open_file_paths")
    with pytest.raises(IdeFailed, match="more than 8 MiB"):
        await ide.do(type="state", seconds=10)


async def test_tools_that_are_told_wrongly_are_no_defect_of_ours(ide: Ide) -> None:
    ide.turn(nonsense="tools/list")
    other = beside(ide)
    assert (await other.health()).phase == "starting"
    with pytest.raises(IdeNotReady, match="cannot be reached"):
        await other.do(i.GetState(seconds=2))
    await other.aclose()


async def test_a_pipe_among_the_files_holds_nothing_up(ide: Ide) -> None:
    pipe = ide.folder / "pipe"
    os.mkfifo(pipe)
    try:
        found = await ide.do(
            type="references", path="prices.py", line=10, symbol="total", seconds=10
        )
        assert isinstance(found, i.Locations)
        assert found.total
        with pytest.raises(InvalidRequest, match="no regular file"):
            await ide.do(type="open", path="pipe")
        with pytest.raises(OSError, match="no regular file"):
            places.content_of(str(pipe), 10)
    finally:
        pipe.unlink()


async def test_a_file_with_nothing_in_it_is_edited(ide: Ide) -> None:
    (ide.folder / "empty.py").write_text("")
    edit = {"path": "empty.py", "line": 1, "end_line": 1, "new": "X = 1\n"}
    await ide.do(type="apply_edit", edits=[edit])
    assert ide.text("empty.py") == "X = 1\n"
    (ide.folder / "empty.py").unlink()


async def test_whoever_hands_a_file_over_ends_with_who_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as ide:
        await ide.until_ready()
        hand_over = ide.adapter._hand_over  # type: ignore[attr-defined]
        ide.turn(slow_launcher=True)
        begin = time.monotonic()
        shown = await ide.do(type="open", path="main.py", line=1, seconds=1)
        assert isinstance(shown, i.Opened)
        assert shown.line == 0  # it was not moved there in time
        assert time.monotonic() - begin < 10  # generous: it has 15 seconds of its own
        known = set(psutil.Process().children(recursive=True))
        asked = asyncio.ensure_future(hand_over(["--line", "1", "--column", "0", "main.py"]))
        await until(lambda: bool(set(psutil.Process().children(recursive=True)) - known))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert not set(psutil.Process().children(recursive=True)) - known


async def test_many_at_once_are_each_answered(ide: Ide) -> None:
    actions: list[dict[str, object]] = [{"type": "state"}, {"type": "open", "path": "main.py"}]
    actions += [{"type": "diagnostics", "path": "prices.py"}, {"type": "symbols", "query": "t"}]
    answers = await asyncio.gather(*(ide.do(**each) for each in actions * 5))
    assert [answer.type for answer in answers] == [each["type"] for each in actions * 5]


async def test_a_rename_that_is_refused_changes_nothing(ide: Ide) -> None:
    ide.turn(rename_refused=True)
    before = ide.text("prices.py")
    with pytest.raises(EditConflict, match="upstream"):
        await ide.do(type="rename", path="prices.py", line=10, symbol="total", new_name="x")
    assert ide.text("prices.py") == before


async def test_a_file_that_changed_meanwhile_is_a_conflict(ide: Ide) -> None:
    ide.turn(slow={"apply_patch": 1.0})
    edits = [{"path": "prices.py", "old": "RATE = 20", "new": "RATE = 10"}]
    asked = asyncio.ensure_future(ide.do(type="apply_edit", edits=edits))
    await asyncio.sleep(0.4)
    (ide.folder / "prices.py").write_text("RATE = 7\n")
    with pytest.raises(EditConflict, match="could not change"):
        await asked
    assert ide.text("prices.py") == "RATE = 7\n"


async def test_what_was_edited_before_a_conflict_is_put_back(ide: Ide) -> None:
    ide.turn(slow={"apply_patch": 0.5})
    edits = [
        {"path": "orders.py", "old": "EUR", "new": "USD"},
        {"path": "prices.py", "old": "RATE = 20", "new": "RATE = 10"},
    ]
    asked = asyncio.ensure_future(ide.do(type="apply_edit", edits=edits))
    await asyncio.sleep(0.3)
    (ide.folder / "prices.py").write_text("RATE = 7\n")
    with pytest.raises(EditConflict):
        await asked
    assert "EUR" in ide.text("orders.py")
    assert ide.text("prices.py") == "RATE = 7\n"


async def test_a_task_that_never_ends_is_ended(ide: Ide) -> None:
    ran = await ide.do(type="run_task", name="Forever", seconds=2)
    assert isinstance(ran, i.Ran)
    assert ran.exit_code is None
    assert "begun" in ran.output
    ran = await ide.do(type="run_task", command="echo begun; sleep 600", seconds=2)
    assert isinstance(ran, i.Ran)
    assert (ran.exit_code, ran.output.strip()) == (None, "begun")
    child = ide.launched.children[0].pid
    sleeping = [p for p in psutil.Process(child).children(recursive=True) if "600" in p.cmdline()]
    assert sleeping == []


async def test_a_command_in_the_terminal_goes_on(ide: Ide) -> None:
    mark = ide.folder / "went-on"
    mark.unlink(missing_ok=True)
    ran = await ide.do(type="terminal", command="echo a; sleep 2; touch went-on", seconds=1)
    assert isinstance(ran, i.Ran)
    assert ran.exit_code is None
    await until(mark.exists)
    mark.unlink()


async def test_a_person_may_refuse_a_command(ide: Ide) -> None:
    ide.turn(reject_commands=True)
    with pytest.raises(Forbidden, match="rejected"):
        await ide.do(type="terminal", command="true")


async def test_debugging_that_never_ends_is_told_to_run(ide: Ide) -> None:
    (ide.folder / "main.py").write_text(
        'import time\n\nif __name__ == "__main__":\n    while True:\n        time.sleep(0.01)\n'
    )
    told = await ide.do(type="debug", do="start", program="main.py", seconds=2)
    assert isinstance(told, i.Debugged)
    assert told.state == "running"
    with pytest.raises(CarrelError, match="runs") as raised:
        await ide.do(type="debug", do="variables")
    assert raised.value.code == "not_debugging"
    # A stop of a program that runs: the stub's debugger looks at the next line that it comes to.
    told = await ide.do(type="debug", do="stop", seconds=10)
    assert isinstance(told, i.Debugged)
    assert told.state == "ended"


async def test_a_new_session_is_made_when_the_ide_is_another(tmp_path: Path) -> None:
    async with running(tmp_path) as ide:
        await ide.until_ready()
        ide.turn(die=True)
        with pytest.raises((IdeFailed, TimedOut)):
            await ide.do(type="state", seconds=5)
        child = ide.launched.children[0]
        await asyncio.wait_for(child.exited.wait(), 10)
        assert (await phase(ide))[0] == "not_started"


async def test_one_that_never_listens_is_starting(tmp_path: Path) -> None:
    (tmp_path / "switches.json").write_text('{"silent": true}')
    async with running(tmp_path) as ide:
        assert (await phase(ide))[0] == "starting"
        with pytest.raises(IdeNotReady):
            await ide.do(type="state", seconds=1)


@pytest.mark.parametrize("version", ["2025.2", "2026.1"])
async def test_it_adapts_to_what_a_version_has(tmp_path: Path, version: str) -> None:
    async with running(
        tmp_path, "--version", version, "--without", "xdebug_control_session"
    ) as ide:
        await ide.until_ready()
        can = (await ide.adapter.health()).can
        assert "debug" not in can
        assert ("symbols" in can) == (version != "2025.2")
        with pytest.raises(Unsupported, match="debug"):
            await ide.do(type="debug", do="stop")
        edits = [
            {"path": "prices.py", "old": "RATE = 20", "new": "RATE = 10"},
            {"path": "prices.py", "old": "RATE //", "new": "RATE * 1 //"},
            {"path": "new.py", "create": True, "new": "ONE = 1\n"},
        ]
        await ide.do(type="apply_edit", edits=edits)
        assert "RATE = 10\n" in ide.text("prices.py")
        assert "price * RATE * 1 // 100" in ide.text("prices.py")
        done = await ide.do(
            type="rename", path="orders.py", line=5, symbol="total", new_name="summed"
        )
        assert isinstance(done, i.Changed)
        assert len(done.files) == 2
        (ide.folder / "others.py").write_text("a = 1  \n")
        await ide.do(type="format", path="others.py")
        assert ide.text("others.py") == "a = 1\n"
        found = await ide.do(type="diagnostics", path="main.py")
        assert isinstance(found, i.Diagnostics)
        assert found.total == 0


async def test_without_a_guarded_tool_a_file_is_written_whole(tmp_path: Path) -> None:
    async with running(tmp_path, "--without", "apply_patch") as ide:
        await ide.until_ready()
        edits = [{"path": "prices.py", "old": "RATE = 20", "new": "RATE = 10"}]
        await ide.do(type="apply_edit", edits=edits)
        assert "RATE = 10\n" in ide.text("prices.py")


async def test_it_dies_and_comes_back_by_itself(tmp_path: Path) -> None:
    """By way of the daemon's keeper of IDEs."""
    switches, project = tmp_path / "switches.json", tmp_path / "project"
    write_project(project)
    program = install(tmp_path / "pycharm", switches)
    settings = i.IdeSettings(kind="jetbrains", program=str(program), folder=str(project))
    (tmp_path / "ide").mkdir(mode=0o700)
    async with programs_of(tmp_path, {"PATH": os.environ["PATH"]}) as programs:
        ides = Ides(programs, settings, Hands(), str(tmp_path / "ide"))
        try:
            ides.on_screen(True)
            state = await ides.do(i.GetState(seconds=30))
            assert isinstance(state, i.IdeState)
            own = [each for each in psutil.Process().children() if each.status() != "zombie"]
            process = next(each for each in own if str(switches) in each.cmdline())
            process.send_signal(signal.SIGKILL)
            await until(lambda: not process.is_running())
            state = await ides.do(i.GetState(seconds=30))
            assert isinstance(state, i.IdeState)
            assert "started anew" in " ".join(state.notes)
            assert (await ides.health()).restarts == 1
        finally:
            await ides.aclose()
