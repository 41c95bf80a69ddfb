"""Real applications, started by name on a real window manager, and their windows."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Server
from tests.workspace.desktopd.x11.test_windows import start_window_manager
from workspace.desktopd import applications
from workspace.desktopd.children import Children, is_below
from workspace.desktopd.programs import Programs
from workspace.desktopd.screen import Screen
from workspace.desktopd.shell import Shell
from workspace.errors import ApplicationNotFound, FileMissing, Unsupported
from workspace.models import Launch, Launched


class Desk:
    """What starts applications, and what they are started on."""

    def __init__(self, server: Server, screen: Screen) -> None:
        self._screen = screen
        self.children = Children(adopts=False)
        bus = server.folder / "bus"
        environment = server.environment | {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}
        self.programs = Programs(self.children, environment, oom_score_adj=500)
        self.shell = Shell(self.programs)
        self.home = Path(self.programs.home)

    def install(self, name: str, *lines: str) -> None:
        folder = self.home / ".local/share/applications"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.desktop").write_text("\n".join(["[Desktop Entry]", *lines]))

    async def launch(self, name: str, *arguments: str, seconds: float = 30) -> Launched:
        wanted = Launch(name=name, arguments=list(arguments), wait_seconds=seconds)
        return await applications.launch(self.programs, self.shell, self._screen, wanted)


@pytest.fixture
async def desk(server: Server, screen: Screen) -> AsyncIterator[Desk]:
    await start_window_manager(server, screen)
    desk = Desk(server, screen)
    bus = server.folder / "bus"
    config = f"--config-file={server.folder / 'bus.conf'}"
    server.start("dbus-daemon", config, f"--address=unix:path={bus}", "--nofork")
    await eventually(bus.exists)
    yield desk
    await desk.shell.aclose()
    await desk.children.end_all()
    bus.unlink()


async def test_an_editor_and_its_second_window(desk: Desk, screen: Screen) -> None:
    note, other = desk.home / "a note.txt", desk.home / "other.txt"
    for each in (note, other):
        each.write_text("hello")
    first = await desk.launch("mousepad", str(note))
    assert first.window is not None
    assert first.window.window_class == "Mousepad"
    assert first.window.kind == "normal"
    assert first.window.pid is not None
    assert first.job.state == "running"
    assert first.job.command == f"mousepad '{note}'"
    await screen.windows.wait_for("a note", None, 20)

    # The second hands over to the first and ends: its window is another process's.
    second = await desk.launch("org.xfce.mousepad.desktop", "--opening-mode=window", str(other))
    assert second.window is not None
    assert second.window.id != first.window.id
    assert second.window.pid == first.window.pid
    assert await asyncio.wait_for(desk.shell.child(second.job.id).exited.wait(), 10)
    score = f"/proc/{first.window.pid}/oom_score_adj"
    assert await asyncio.to_thread(Path(score).read_text) == "500\n"

    # The third opens a tab in a window that was there.
    began = time.monotonic()
    third = await desk.launch("mousepad", "--opening-mode=tab", str(note))
    assert time.monotonic() - began < 5
    assert third.window is not None
    assert third.window.id in (first.window.id, second.window.id)


async def test_in_a_terminal_and_in_its_folder(desk: Desk, screen: Screen) -> None:
    desk.install(
        "asking", "Name=Asks a question",
        "Exec=sh -c 'pwd >~/told; echo \"$0\" >>~/told; read x' %f",
        "Terminal=true", "Path=/usr/share",
    )  # fmt: skip
    launched = await desk.launch("Asks a Question", "$(touch ~/bad); a b")
    assert launched.window is not None
    told = desk.home / "told"
    await eventually(lambda: told.exists() and told.read_text().count("\n") == 2)
    assert told.read_text() == "/usr/share\n$(touch ~/bad); a b\n"
    assert not (desk.home / "bad").exists()


async def test_a_window_by_its_session_or_its_class_only(desk: Desk, server: Server) -> None:
    desk.install("forks", "Exec=sh -c '(xterm -T forked &); sleep 60'")
    desk.install("says", "Exec=sleep 60", "StartupWMClass=Said")
    desk.install("other", "Exec=xterm -class Other")
    forked = await desk.launch("forks")
    assert forked.window is not None
    assert forked.window.title == "forked"

    saying = asyncio.create_task(desk.launch("says"))
    await eventually(lambda: len(desk.shell.jobs()) == 2)
    other = await desk.launch("other")
    assert other.window is not None
    assert not saying.done(), "a window of another program is not its own"
    server.start("xterm", "-class", "said")
    launched = await saying
    assert launched.window is not None
    assert launched.window.window_class == "said"


async def test_no_window(desk: Desk, screen: Screen) -> None:
    desk.install("fails", "Exec=sh -c 'echo why >&2; exit 3'")
    desk.install("silent", "Exec=sleep 60")
    desk.install("absent", "Exec=/no/such/program")
    desk.install("lost", "Exec=sleep 60", "Path=/no/such/folder")
    desk.install("unreadable", 'Exec=sleep "60')
    desk.install("long", "Exec=sleep" + " 60" * 2000)
    for name, code in (("fails", 3), ("absent", 127)):
        began = time.monotonic()
        launched = await desk.launch(name)
        assert time.monotonic() - began < 5
        assert launched.window is None
        assert launched.job.state == "exited"
        assert launched.job.exit_code == code
        assert ("why" if code == 3 else "not found") in launched.job.stderr
    for seconds in (0, 0.2):
        launched = await desk.launch("silent", seconds=seconds)
        assert (launched.window, launched.job.state) == (None, "running")
    with pytest.raises(ApplicationNotFound, match="'silence' is installed") as caught:
        await desk.launch("silence")
    assert "silent" in caught.value.hint
    with pytest.raises(FileMissing):
        await desk.launch("lost")
    for name in ("unreadable", "long"):
        with pytest.raises(Unsupported):
            await desk.launch(name)
    assert len(desk.shell.jobs()) == 4


async def test_the_list_in_pages(desk: Desk) -> None:
    desk.install("a-first", "Name=The first", "Exec=true", "Categories=Game;")
    desk.install("hidden", "Exec=true", "NoDisplay=true")
    whole = await applications.listed(desk.programs, limit=500, after=None)
    names = [each.name for each in whole.applications]
    assert names == sorted(names)
    assert "org.xfce.mousepad" in names
    assert "hidden" not in names
    assert whole.after is None
    first = whole.applications[0]
    assert (first.name, first.title, first.categories) == ("a-first", "The first", ["Game"])
    paged: list[str] = []
    after = None
    while True:
        page = await applications.listed(desk.programs, limit=3, after=after)
        paged += [each.name for each in page.applications]
        after = page.after
        if after is None:
            break
    assert paged == names


def test_whose_process_it_is() -> None:
    assert is_below(os.getpid(), os.getpid())
    assert is_below(os.getpid(), os.getppid())
    assert not is_below(os.getppid(), os.getpid())
    assert not is_below(1 << 40, os.getpid())
    assert not is_below(0x7FFFFFFF, os.getpid())
