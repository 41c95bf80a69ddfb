"""The life of an IDE: waited for, started anew once, and asked as far as it may be."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.waiting import eventually
from workspace import ide as i
from workspace.control import Take
from workspace.desktopd.children import Child, Children
from workspace.desktopd.hands import Hands
from workspace.desktopd.ide import ides
from workspace.desktopd.ide.adapter import Launched, check_allowed, is_acting
from workspace.desktopd.ide.ides import Ides
from workspace.desktopd.programs import Programs
from workspace.errors import (
    CarrelError,
    Forbidden,
    HumanInControl,
    IdeFailed,
    IdeNotReady,
    Unavailable,
)

pytestmark = pytest.mark.anyio
STATE = i.GetState(seconds=5)
EDIT = i.Format(path="a.py", seconds=5)


class Adapter:
    """An IDE that does what a test says, run by real processes."""

    def __init__(self) -> None:
        self.is_ready = asyncio.Event()
        self.is_closed = False
        self.asked: list[i.IdeAction] = []
        self.hold: asyncio.Event | None = None
        self.was_cancelled = False

    async def health(self) -> i.IdeHealth:
        return i.IdeHealth(ide="vscode", phase="ready" if self.is_ready.is_set() else "starting")

    async def until_ready(self) -> None:
        await self.is_ready.wait()

    async def do(self, action: i.IdeAction) -> i.IdeAnswer:
        self.asked.append(action)
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if action.type == "open_folder":
            return i.FolderOpened(path="/home/user")
        return i.IdeState(notes=["its own"])

    async def aclose(self) -> None:
        self.is_closed = True


class Launcher:
    """Starts such IDEs; ``fails`` is raised in place of one."""

    def __init__(self) -> None:
        self.adapters: list[Adapter] = []
        self.children: list[Child] = []
        self.fails: CarrelError | None = None
        self.is_quick = True
        self.command = "sleep 300 & sleep 301"

    @property
    def last(self) -> Adapter:
        return self.adapters[-1]

    async def __call__(
        self,
        programs: Programs,
        settings: i.IdeSettings,
        folder: str,
        shown: Callable[[], Awaitable[None]],
    ) -> Launched:
        await shown()
        if self.fails is not None:
            raise self.fails
        adapter = Adapter()
        if self.is_quick:
            adapter.is_ready.set()
        self.adapters.append(adapter)
        self.children.append(programs.start(self.command))
        return Launched(adapter, [self.children[-1]], lambda: "its last words")


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    children = Children(adopts=False)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    yield Programs(children, environment, oom_score_adj=0)
    await children.end_all()


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
async def hands() -> AsyncIterator[Hands]:
    hands = Hands()
    yield hands
    hands.close()


@pytest.fixture
async def own(
    programs: Programs,
    hands: Hands,
    launcher: Launcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Ides]:
    monkeypatch.setattr(ides, "_SCREEN_SECONDS", 0.1)
    settings = i.IdeSettings(commands=["workbench.action.*"], install_extensions=False)
    own = Ides(programs, settings, hands, str(tmp_path), launcher)
    yield own
    await own.aclose()
    assert all(child.exit_code is not None for child in launcher.children)
    assert all(adapter.is_closed for adapter in launcher.adapters)


async def test_it_starts_by_itself_once_there_is_a_screen(own: Ides, launcher: Launcher) -> None:
    assert (await own.health()).phase == "starting"
    with pytest.raises(IdeNotReady, match=r"after 0\.2 s: starting"):
        await own.do(i.GetState(seconds=0.2))
    assert not launcher.adapters
    own.on_screen(True)
    assert isinstance(await own.do(STATE), i.IdeState)
    assert (await own.health()).phase == "ready"


async def test_what_is_asked_waits_until_it_is_ready(own: Ides, launcher: Launcher) -> None:
    launcher.is_quick = False
    own.on_screen(True)
    asked = asyncio.ensure_future(own.do(i.GetState(seconds=20)))
    await eventually(lambda: launcher.adapters)
    assert not launcher.last.asked
    launcher.last.is_ready.set()
    assert isinstance(await asked, i.IdeState)
    assert launcher.last.asked[0].seconds < 20  # what is left of them


async def test_one_that_ends_is_started_anew_once_and_says_so(
    own: Ides, launcher: Launcher
) -> None:
    own.on_screen(True)
    await own.do(STATE)
    launcher.children[0].signal(signal.SIGTERM)
    await eventually(lambda: len(launcher.children) == 2)
    told = await own.do(STATE)
    assert isinstance(told, i.IdeState)
    assert told.notes[0] == "its own"
    assert "signal 15: its last words" in told.notes[1]
    again = await own.do(STATE)
    assert isinstance(again, i.IdeState)
    assert again.notes == ["its own"]  # told once
    assert (await own.health()).restarts == 1
    launcher.children[1].signal(signal.SIGKILL)
    await eventually(lambda: launcher.adapters[1].is_closed)
    with pytest.raises(IdeFailed, match="ended again"):
        await own.do(STATE)
    assert (await own.health()).phase == "not_started"
    assert len(launcher.children) == 2
    # Whoever opens a folder asks for it to be started.
    assert isinstance(await own.do(i.OpenFolder(path="~")), i.FolderOpened)
    assert len(launcher.children) == 3
    assert isinstance(await own.do(STATE), i.IdeState)


async def test_one_that_is_closed_says_that(own: Ides, launcher: Launcher) -> None:
    launcher.command = "test -e closed && sleep 302 || { touch closed; sleep 0.1; }"
    own.on_screen(True)
    await eventually(lambda: len(launcher.children) == 2)
    told = await own.do(STATE)
    assert isinstance(told, i.IdeState)
    assert "it was closed" in told.notes[1]


async def test_one_that_ends_while_it_is_asked(own: Ides, launcher: Launcher) -> None:
    own.on_screen(True)
    await own.do(STATE)
    launcher.last.hold = asyncio.Event()
    asked = asyncio.ensure_future(own.do(EDIT))
    await eventually(lambda: len(launcher.last.asked) == 2)
    launcher.children[0].signal(signal.SIGKILL)
    with pytest.raises(IdeFailed, match="ended before it answered"):
        await asked
    assert launcher.adapters[0].was_cancelled


async def test_its_end_with_the_screen_is_not_counted(own: Ides, launcher: Launcher) -> None:
    own.on_screen(True)
    for count in (1, 2, 3):
        await own.do(STATE)
        launcher.children[-1].signal(signal.SIGKILL)
        own.on_screen(False)
        adapter = launcher.last
        await eventually(lambda adapter=adapter: adapter.is_closed)
        assert len(launcher.children) == count  # there is nothing to be shown on
        own.on_screen(True)
    told = await own.do(STATE)
    assert isinstance(told, i.IdeState)
    assert "X server" in told.notes[-1]
    assert (await own.health()).restarts == 0


async def test_one_that_hangs_keeps_nobody_for_ever(
    own: Ides, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ides, "_SLACK_SECONDS", 0.1)
    own.on_screen(True)
    await own.do(STATE)
    launcher.last.hold = asyncio.Event()
    with pytest.raises(IdeFailed, match="hangs"):
        await own.do(i.Format(path="a", seconds=0.1))
    launcher.last.hold.set()
    assert isinstance(await own.do(STATE), i.IdeState)


async def test_one_that_is_not_there(own: Ides, launcher: Launcher) -> None:
    launcher.fails = Unavailable("There is no VS Code in this desktop.", hint="Install it.")
    own.on_screen(True)
    with pytest.raises(Unavailable, match="no VS Code") as caught:
        await own.do(STATE)
    assert caught.value.hint == "Install it."
    told = await own.health()
    assert told.phase == "not_started"
    assert "no VS Code" in told.message


async def test_a_caller_that_goes_away_cancels_it(own: Ides, launcher: Launcher) -> None:
    own.on_screen(True)
    await own.do(STATE)
    launcher.last.hold = asyncio.Event()
    asked = asyncio.ensure_future(own.do(i.RunTask(command="sleep 9")))
    await eventually(lambda: len(launcher.last.asked) == 2)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert launcher.last.was_cancelled


async def test_a_folder_waits_for_another_no_longer_than_it_has(
    own: Ides, launcher: Launcher
) -> None:
    own.on_screen(True)
    await own.do(STATE)
    launcher.last.hold = asyncio.Event()
    first = asyncio.ensure_future(own.do(i.OpenFolder(path="/a")))
    await eventually(lambda: len(launcher.last.asked) == 2)
    with pytest.raises(IdeNotReady, match="Another folder"):
        await asyncio.wait_for(own.do(i.OpenFolder(path="/b", seconds=0.1)), 5)
    launcher.last.hold.set()
    assert isinstance(await first, i.FolderOpened)
    assert isinstance(await own.do(i.OpenFolder(path="/b")), i.FolderOpened)
    assert len(launcher.last.asked) == 3


async def test_a_person_in_control(own: Ides, launcher: Launcher, hands: Hands) -> None:
    own.on_screen(True)
    await own.do(STATE)
    launcher.last.hold = asyncio.Event()
    tasks = [asyncio.ensure_future(own.do(EDIT)) for _ in range(2)]
    tasks.append(asyncio.ensure_future(own.do(STATE)))
    await eventually(lambda: len(launcher.last.asked) == 4)
    await hands.take(Take(holder="ada"))
    for task in tasks[:2]:  # two at once are both broken off
        with pytest.raises(HumanInControl, match="broken off"):
            await task
    assert not tasks[2].done()  # looking goes on
    launcher.last.hold.set()
    assert isinstance(await tasks[2], i.IdeState)
    count = len(launcher.last.asked)
    with pytest.raises(HumanInControl):
        await own.do(EDIT)
    assert len(launcher.last.asked) == count
    assert isinstance(await own.do(STATE), i.IdeState)
    await hands.hand_back("ada")
    await own.do(EDIT)


async def test_what_the_template_does_not_permit(own: Ides, launcher: Launcher) -> None:
    own.on_screen(True)
    with pytest.raises(Forbidden, match=r"git\.push") as caught:
        await own.do(i.RunCommand(id="git.push"))
    assert "workbench.action.*" in caught.value.hint
    with pytest.raises(Forbidden, match="extensions"):
        await own.do(i.InstallExtension(id="a.b"))
    assert not launcher.adapters or not launcher.last.asked
    await own.do(i.RunCommand(id="workbench.action.files.save"))


@pytest.mark.parametrize(
    ("allowed", "id_", "is_allowed"),
    [
        (["a.b"], "a.b", True),
        (["a.b"], "a.b.c", False),
        (["a.*"], "a.b.c", True),
        (["a.*"], "ab", False),
        (["*"], "anything", True),
        ([], "a", False),
    ],
)
def test_commands(allowed: list[str], id_: str, is_allowed: bool) -> None:
    settings = i.IdeSettings(commands=[each for each in allowed if each != "*"])
    if "*" in allowed:
        settings = settings.model_copy(update={"commands": allowed})
    action = i.RunCommand(id=id_)
    if is_allowed:
        check_allowed(action, settings)
    else:
        with pytest.raises(Forbidden):
            check_allowed(action, settings)


def test_what_acts() -> None:
    place = {"path": "a", "line": 1}
    acting: list[i.IdeAction] = [
        i.Open(path="a"),
        i.Rename(path="a", line=1, new_name="b"),
        i.CodeActions(path="a", line=1),  # shows the file, under a person's hands
        i.CodeActions(path="a", line=1, apply="Fix"),
        i.SetBreakpoints(path="a", breakpoints=[]),
        i.EvaluateInFrame(expression="x"),
        i.RunTests(),
        i.RunInTerminal(command="ls"),
    ]
    reading: list[i.IdeAction] = [
        STATE,
        i.GetDiagnostics(),
        i.GetHover.model_validate(place),
        i.Inspect(do="stack"),
    ]
    assert all(map(is_acting, acting))
    assert not any(map(is_acting, reading))
