"""Homes that stay, in the whole service: on the command line, and across a controller's death."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import Service, start, stop
from workspace.errors import DesktopLost, Unavailable, VolumeInUse
from workspace.sync import SyncCarrel


def test_the_command_line_uses_lists_copies_and_removes_them(
    service: Service, tmp_path: Path
) -> None:
    def says(*arguments: str) -> str:
        done = service.carrel(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    first = says("new", "light", "--volume", "e2e-home")
    says("exec", first, "mkdir work; echo kept > work/note; ln -s /etc/shadow work/link")
    refused = [
        service.carrel("new", "light", "--volume", "e2e-home"),
        service.carrel("volumes", "export", "e2e-home", str(tmp_path / "x.tar")),
        service.carrel("volumes", "rm", "e2e-home"),
    ]
    for done in refused:
        assert done.returncode == 1
        assert f"in use by workspace {first}. (volume_in_use)" in done.stderr
    assert first in says("volumes")
    says("rm", first)
    second = says("new", "light", "--volume", "e2e-home")
    assert says("exec", second, "cat work/note; stat -c %U work/note") == "kept\nuser"
    says("rm", second)
    (told,) = json.loads(says("volumes", "ls", "--json"))
    assert (told["name"], told["used_by"]) == ("e2e-home", None)
    assert told["size_bytes"] > 4096
    target = tmp_path / "home.tar"
    assert says("volumes", "export", "e2e-home", str(target)) == str(target)
    assert [path.name for path in tmp_path.iterdir()] == ["home.tar"]
    with tarfile.open(target) as tar:
        note = tar.extractfile("work/note")
        assert note is not None
        assert note.read() == b"kept\n"
        assert tar.getmember("work/link").linkname == "/etc/shadow"
    assert says("volumes", "rm", "e2e-home") == "e2e-home"
    assert json.loads(says("volumes", "--json")) == []
    gone = service.carrel("volumes", "export", "e2e-home", str(tmp_path / "x.tar"))
    assert "(volume_not_found)" in gone.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["home.tar"]


def test_a_killed_controller_neither_loses_nor_gives_away_a_volume(tmp_path: Path) -> None:
    service = start(tmp_path)
    try:
        with SyncCarrel(service.url, service.key) as carrel:
            held = carrel.create("light", volume="v")
            carrel.desktop(held.id).write_file("note", b"before")
            service.process.kill()
            service.process.wait(20)
            with pytest.raises((Unavailable, DesktopLost)):
                carrel.volumes()
        stop(service)
        service = start(tmp_path)
        with SyncCarrel(service.url, service.key) as carrel:
            assert carrel.volume("v").used_by == held.id
            with pytest.raises(VolumeInUse, match=held.id):
                carrel.create("light", volume="v")
            carrel.desktop(held.id).write_file("later", b"after")
            carrel.release(held.id)
            with carrel.claim("light", volume="v") as desktop:
                assert desktop.read_file("note") + desktop.read_file("later") == b"beforeafter"
            assert carrel.volume("v").used_by is None
            with carrel.open_volume("v") as chunks:
                assert b"beforeafter" not in (tar := b"".join(chunks))
            assert tar.count(b"before") == tar.count(b"after") == 1
            carrel.remove_volume("v")
    finally:
        stop(service)
