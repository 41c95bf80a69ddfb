"""What an IDE finds when it starts, and what is started."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from pathlib import Path

import pytest

from workspace.desktopd.children import Children
from workspace.desktopd.ide import launching
from workspace.desktopd.ide.launching import Place
from workspace.desktopd.programs import Programs
from workspace.errors import Unavailable
from workspace.ide import IdeSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Carrel brings."""
    folder = tmp_path / "brought"
    folder.mkdir()
    monkeypatch.setattr(launching, "FOLDER", str(folder))
    (folder / "settings.json").write_text('{"update.mode": "none", "editor.fontSize": 14}')
    pack(folder, "1.0.0")
    return folder


def pack(folder: Path, version: str, name: str = "extension/dist/main.js") -> None:
    manifest = {"publisher": "Carrel", "name": "bridge", "version": version}
    with zipfile.ZipFile(folder / "carrel-bridge.vsix", "w") as archive:
        archive.writestr("extension.vsixmanifest", "<xml/>")
        archive.writestr("extension/package.json", json.dumps(manifest))
        archive.writestr(name, f"// {version}")


def prepare(home: Path) -> Place:
    place = Place.of(str(home))
    launching._prepare(place, str(home / "own"), str(home / "project"))
    return place


def test_folders_settings_and_the_bridge_are_there(tmp_path: Path, brought: Path) -> None:
    place = prepare(tmp_path)
    assert (tmp_path / "project").is_dir()
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    settings = Path(place.data, "User", "settings.json")
    assert json.loads(settings.read_text())["update.mode"] == "none"
    listed = json.loads(Path(place.extensions, "extensions.json").read_text())
    assert [each["identifier"]["id"] for each in listed] == ["carrel.bridge"]
    assert Path(listed[0]["location"]["path"], "dist", "main.js").read_text() == "// 1.0.0"


def test_what_is_there_of_the_users_stays(tmp_path: Path, brought: Path) -> None:
    place = prepare(tmp_path)
    settings = Path(place.data, "User", "settings.json")
    settings.write_text('{"update.mode": "manual", "mine": 1}')
    extensions = Path(place.extensions, "extensions.json")
    theirs = {"identifier": {"id": "some.body"}, "version": "3"}
    extensions.write_text(json.dumps([theirs, *json.loads(extensions.read_text())]))
    pack(brought, "1.1.0")
    prepare(tmp_path)
    told = json.loads(settings.read_text())
    assert (told["update.mode"], told["mine"], told["editor.fontSize"]) == ("manual", 1, 14)
    listed = json.loads(extensions.read_text())
    assert [each["version"] for each in listed] == ["3", "1.1.0"]
    folders = sorted(path.name for path in Path(place.extensions).iterdir() if path.is_dir())
    assert folders == ["carrel.bridge-1.1.0"]


@pytest.mark.parametrize("text", ["// a comment\n{}", "[]", "\0", ""])
def test_settings_that_are_none_are_left_alone(tmp_path: Path, brought: Path, text: str) -> None:
    settings = Path(Place.of(str(tmp_path)).data, "User", "settings.json")
    settings.parent.mkdir(parents=True)
    settings.write_text(text)
    prepare(tmp_path)
    assert settings.read_text() == text


@pytest.mark.parametrize("text", ["{}", "no json", '[1, {"identifier": 5}]'])
def test_a_list_of_extensions_that_is_none_is_made_anew(
    tmp_path: Path, brought: Path, text: str
) -> None:
    place = Place.of(str(tmp_path))
    Path(place.extensions).mkdir(parents=True)
    Path(place.extensions, "extensions.json").write_text(text)
    prepare(tmp_path)
    listed = json.loads(Path(place.extensions, "extensions.json").read_text())
    assert listed[-1]["identifier"] == {"id": "carrel.bridge"}


@pytest.mark.parametrize("name", ["extension/../../../evil", "extension/../x"])
def test_a_bridge_that_would_leave_its_folder(tmp_path: Path, brought: Path, name: str) -> None:
    pack(brought, "1.0.0", name)
    with pytest.raises(Unavailable, match="has the name"):
        prepare(tmp_path)
    assert not (tmp_path / "evil").exists()


def test_a_bridge_that_is_damaged(tmp_path: Path, brought: Path) -> None:
    (brought / "carrel-bridge.vsix").write_bytes(b"no zip")
    with pytest.raises(Unavailable, match="folders cannot be made"):
        prepare(tmp_path)


def program(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)


async def test_which_program_it_is(tmp_path: Path, brought: Path) -> None:
    children = Children(adopts=False)
    environment = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}
    programs = Programs(children, environment, oom_score_adj=0)
    try:
        with pytest.raises(Unavailable, match="no VS Code"):
            launching._program(programs, None)
        program(brought, launching._ENTRY)
        assert launching._program(programs, None) == "code-server"
        # A command that only asks the program to start stands for the program.
        program(tmp_path / "share" / "codium", "codium", "bin/codium")
        (tmp_path / "bin").mkdir()
        os.symlink(tmp_path / "share" / "codium" / "bin" / "codium", tmp_path / "bin" / "codium")
        found = launching._program(programs, None)
        assert found == str(tmp_path / "share" / "codium" / "codium")
        program(tmp_path / "bin", "cursor")
        assert launching._program(programs, "cursor") == str(tmp_path / "bin" / "cursor")
        assert launching._program(programs, "code-server") == "code-server"
        with pytest.raises(Unavailable, match="no windsurf"):
            launching._program(programs, "windsurf")
    finally:
        await children.end_all()


async def test_a_server_that_ends_or_says_nothing(
    tmp_path: Path, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = Children(adopts=False)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    programs = Programs(children, environment, oom_score_adj=0)
    program(brought, launching._ENTRY)
    node = brought / "node" / "bin" / "node"
    program(brought, "node/bin/node")

    async def shown() -> None:
        raise AssertionError("nothing is to be shown")

    async def refused() -> str:
        with pytest.raises(Unavailable) as caught:
            await launching.launch(programs, IdeSettings(folder="~/p"), str(tmp_path), shown)
        assert not list(children._known.values())  # it has ended
        return caught.value.message

    try:
        node.write_text("#!/bin/sh\necho 'no such module'; exit 3\n")
        assert "ended with 3. It said: no such module" in await refused()
        node.write_text("#!/bin/sh\nexec sleep 300\n")
        monkeypatch.setattr(launching, "_SERVE_SECONDS", 0.2)
        assert "does not serve" in await refused()
        node.write_text("#!/bin/sh\nyes | head -c 1000000; exec sleep 300\n")
        assert "does not serve" in await asyncio.wait_for(refused(), 20)
    finally:
        await children.end_all()
