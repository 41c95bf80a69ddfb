"""Artifacts of a real desktop: frames of its actions, its recording, its files, by each way."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.e2e.conftest import Service
from workspace import SyncCarrel
from workspace.actions import Type


def test_what_a_desktop_did_is_there_when_it_has_ended(service: Service, tmp_path: Path) -> None:
    with SyncCarrel(service.url, service.key) as carrel:
        with carrel.claim("light", keep_frames="changed") as desktop:
            desktop.launch("xterm")
            desktop.start_recording(max_seconds=60)
            desktop.act(Type(text="echo on record\n"))  # at rest when it is answered
            desktop.write_file("report.txt", b"all is well")
            done = desktop.stop_recording(keep=True)
            assert desktop.stop_recording(keep=True).artifact == done.artifact  # the same again
            saved = service.carrel("artifacts", "save", desktop.id, "report.txt", "--name", "r.txt")
            assert saved.returncode == 0, saved.stderr
            workspace_id, report = desktop.id, saved.stdout.strip()
        kept = {each.id: each for each in carrel.artifacts(workspace_id)}
        film = kept[str(done.artifact)]
        assert (film.kind, film.size, film.media_type) == ("recording", done.size, "video/mp4")
        carrel.save_artifact(film.id, tmp_path / "film.mp4")
        assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"
        (typed,) = [
            event.data["frames"]
            for event in carrel.events(workspace_id).events
            if event.kind == "act"
        ]
        assert isinstance(typed, dict), "it tells of both"
        assert set(typed) == {"before", "after"}
        assert typed["before"] != typed["after"]
        shown = httpx.get(
            f"{service.url}/v1/artifacts/{typed['after']['artifact']}",  # type: ignore[index,call-overload]
            headers={"Authorization": f"Bearer {service.key}"},
        )
        assert shown.headers["content-type"] == "image/jpeg"
        assert len([each for each in kept.values() if each.kind == "frame"]) == 2
    listed = json.loads(service.carrel("artifacts", "ls", workspace_id, "--json").stdout)
    assert [each["id"] for each in listed] == list(kept)
    got = service.carrel("artifacts", "get", report, str(tmp_path / "r.txt"))
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "r.txt").read_bytes() == b"all is well"
    assert service.carrel("artifacts", "rm", *kept).returncode == 0
    assert service.carrel("artifacts", "ls", workspace_id).stdout == ""
    again = service.carrel("artifacts", "get", report, "--json")
    assert json.loads(again.stdout)["code"] == "artifact_not_found"
    left = service.home / "artifacts"
    assert [path for path in left.rglob("*") if path.is_file()] == []
