"""VS Code in a sandbox, as the template ``code`` has it: code-server, its window and our bridge.

One desktop for all of it, from its start to its end; the tests go on from one another. What an IDE
does for an agent is tested through MCP, and each of its faults by a double of its bridge; here is
what only the real one shows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.workspace.backends.conftest import Live, Place, left_of, new_id
from workspace import ide as i
from workspace.backends import ides
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.desktop import connect
from workspace.errors import (
    BackendUnavailable,
    FileMissing,
    IdeFailed,
    IdeNotReady,
    NoIde,
)
from workspace.models import Template

pytestmark = pytest.mark.anyio
# The brackets keep a command from being what it looks for.
HOSTS = "pgrep -f [t]ype=extensionHost"
START_SECONDS = 90


def template() -> Template:
    file = resources.files("controller").joinpath("templates", "code.json")
    return Template.model_validate_json(file.read_bytes())


@pytest.fixture(scope="module")
async def code(runtime_dir: Path) -> AsyncIterator[Live]:
    run_dir = Path(tempfile.mkdtemp(prefix="cb-"))
    disk_dir = Path(tempfile.mkdtemp(prefix="carrel-disk-", dir="/var/tmp"))
    os.chmod(disk_dir, 0o711)
    place, id_ = Place(run_dir, disk_dir, runtime_dir), new_id()
    backend = BubblewrapBackend(run_dir, disk_dir, runtime_dir)
    desktop = connect(await backend.start(id_, template()))
    try:
        live = Live(id_, desktop, place.state(id_))
        yield live
        await desktop.aclose()
        await backend.stop(id_)
        assert left_of(place, id_, live.state) == []
    finally:
        await backend.stop(id_)
        for folder in (run_dir, disk_dir):
            shutil.rmtree(folder)


async def until_ready(code: Live) -> i.IdeHealth:
    async def is_ready() -> bool:
        return (await code.desktop.ide_health()).phase == "ready"

    await eventually(is_ready, START_SECONDS)
    return await code.desktop.ide_health()


async def test_the_desktop_does_not_wait_for_its_ide(code: Live) -> None:
    told = await code.desktop.ide_health()
    assert (told.phase, told.ide, told.restarts) == ("starting", "vscode", 0)
    with pytest.raises(IdeNotReady, match=r"not ready after 0\.1 s: starting"):
        await code.desktop.ide(i.GetState(seconds=0.1))
    assert await code.says("echo usable") == "usable"
    # What is asked meanwhile waits for it.
    state = await code.desktop.ide(i.GetState(seconds=START_SECONDS))
    assert isinstance(state, i.IdeState)
    assert state.folder == "/home/user/project"
    told = await code.desktop.ide_health()
    assert told.phase == "ready"
    assert {"open", "rename", "debug", "run_tests"} <= set(told.can)


async def test_it_shows_a_file_and_nothing_else(code: Live) -> None:
    await code.desktop.write_file("project/hello.txt", b"hello\nworld\n")
    opened = await code.desktop.ide(i.Open(path="hello.txt", line=2))
    assert isinstance(opened, i.Opened)
    assert (opened.path, opened.line) == ("/home/user/project/hello.txt", 2)
    shown = [w for w in await code.desktop.windows() if w.kind in ("normal", "dialog")]
    assert len(shown) == 1
    screen = template().screen
    assert shown[0].width == screen.width
    assert shown[0].height > screen.height * 0.9
    with pytest.raises(FileMissing):
        await code.desktop.ide(i.Open(path="nothing.txt"))


async def test_what_is_its_own_stays_its_own(code: Live) -> None:
    """Carrel's files cannot be changed, and tasks are not told the bridge's token."""
    assert await code.refuses("touch /opt/carrel/ide/x")
    assert await code.says("stat -c %a $XDG_RUNTIME_DIR/carrel/ide") == "700"
    ran = await code.desktop.ide(i.RunTask(command="env"))
    assert isinstance(ran, i.Ran)
    token = await code.says(
        r"tr '\0' '\n' </proc/$(pgrep -o -f [o]ut/node/entry)/environ | grep ^CARREL_IDE_TOKEN= |"
        " cut -d= -f2"
    )
    assert len(token) > 20
    assert token not in ran.output


async def test_another_folder_is_another_extension_host(code: Live) -> None:
    await code.says("mkdir -p other && echo x > other/a.txt")
    hosts = await code.says(HOSTS)
    opened = await code.desktop.ide(i.OpenFolder(path="~/other"))
    assert opened == i.FolderOpened(path="/home/user/other")
    state = await code.desktop.ide(i.GetState())
    assert isinstance(state, i.IdeState)
    assert state.folder == "/home/user/other"
    assert isinstance(await code.desktop.ide(i.Open(path="a.txt")), i.Opened)

    async def is_gone() -> bool:
        return hosts not in await code.says(HOSTS)

    await eventually(is_gone, 30)
    with pytest.raises(FileMissing):
        await code.desktop.ide(i.OpenFolder(path="~/nowhere"))


async def test_an_extension_host_that_hangs_hangs_nothing_else(code: Live) -> None:
    await code.says(f"kill -STOP $({HOSTS})")
    with pytest.raises(IdeFailed, match="hangs"):
        await code.desktop.ide(i.GetState(seconds=0.5))
    assert (await code.desktop.ide_health()).phase == "not_answering"
    assert await code.says("echo usable") == "usable"
    assert (await code.desktop.screenshot()).startswith(b"\xff\xd8")
    await code.says(f"kill -CONT $({HOSTS})")
    assert isinstance(await code.desktop.ide(i.GetState()), i.IdeState)


async def test_an_extension_host_that_is_killed_comes_again(code: Live) -> None:
    hosts = await code.says(HOSTS)
    await code.says(f"kill -9 $({HOSTS})")

    async def is_another() -> bool:
        found = await code.run(HOSTS)
        return found.exit_code == 0 and found.stdout.strip() != hosts

    await eventually(is_another, 60)
    told = await until_ready(code)
    assert (told.folder, told.restarts) == ("/home/user/other", 0)  # VS Code itself saw to it


async def close(code: Live) -> None:
    window = next(w for w in await code.desktop.windows() if w.kind == "normal")
    await code.desktop.close_window(window.id)


async def test_one_that_is_closed_is_started_anew_once(code: Live) -> None:
    await close(code)

    async def is_restarted() -> bool:
        told = await code.desktop.ide_health()
        return told.restarts == 1 and told.phase == "ready"

    await eventually(is_restarted, START_SECONDS)
    state = await code.desktop.ide(i.GetState())
    assert isinstance(state, i.IdeState)
    assert "was closed" in state.notes[0]
    assert state.folder == "/home/user/project"  # the template's
    await close(code)

    async def has_ended() -> bool:
        return (await code.desktop.ide_health()).phase == "not_started"

    await eventually(has_ended, 30)
    with pytest.raises(IdeFailed, match="ended again"):
        await code.desktop.ide(i.GetState())
    for name in ("extensionHost", "out/node/entry", "basedpyright", "tsserver"):
        assert await code.says(f"pgrep -f '[c]ode-server.*{name}' || true") == ""
    assert await code.says("echo usable") == "usable"


async def test_a_template_without_one(place: Place) -> None:
    backend = BubblewrapBackend(place.run_dir, place.disk_dir, place.runtime_dir)
    id_ = new_id()
    desktop = connect(await backend.start(id_, Template(name="t", session="openbox")))
    try:
        with pytest.raises(NoIde):
            await desktop.ide_health()
        with pytest.raises(NoIde):
            await desktop.ide(i.GetState())
    finally:
        await desktop.aclose()
        await backend.stop(id_)


async def test_a_node_that_has_not_built_it(place: Place, tmp_path: Path) -> None:
    runtime_dir = tmp_path / "runtime"
    shutil.copytree(place.runtime_dir, runtime_dir, symlinks=True)
    backend = BubblewrapBackend(place.run_dir, place.disk_dir, runtime_dir)
    for _ in range(2):
        with pytest.raises(BackendUnavailable) as caught:
            await backend.start(new_id(), template())
        assert "make setup-ide" in caught.value.hint
        assert not list(place.run_dir.iterdir())
        half = tmp_path / "ide" / "half"
        half.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ide" / "current").unlink(missing_ok=True)
        (tmp_path / "ide" / "current").symlink_to("half")


def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "ide").mkdir()
    (tmp_path / "ide" / "current").symlink_to("/etc")
    with pytest.raises(BackendUnavailable, match="not built"):
        ides.built(tmp_path / "runtime")
