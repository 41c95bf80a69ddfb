"""Recipes built in and in a folder."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from controller.templates import Templates
from workspace.errors import InvalidRequest, TemplateExists, TemplateNotFound
from workspace.models import Screen, Template, WorkspaceRequest

BUILT_IN = ["browser", "code", "desktop", "jetbrains", "light"]


def test_built_in_and_added_ones(tmp_path: Path) -> None:
    templates = Templates(tmp_path / "templates")
    assert [each.name for each in templates.all()] == BUILT_IN
    small = Template(name="small", screen=Screen(width=640, height=480))
    templates.add(small)
    assert Templates(tmp_path / "templates").get("small") == small
    assert [each.name for each in templates.all()] == [*BUILT_IN, "small"]
    path = tmp_path / "templates" / "small.json"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["small.json"]
    for name in ("small", "desktop"):
        with pytest.raises(TemplateExists):
            templates.add(Template(name=name))


def test_an_edited_file_counts_at_once(tmp_path: Path) -> None:
    templates = Templates(tmp_path)
    (tmp_path / "mine.json").write_text('{"name": "mine", "cpus": 1}')
    assert templates.get("mine").cpus == 1
    (tmp_path / "mine.json").write_text('{"name": "mine", "cpus": 4}')
    assert templates.get("mine").cpus == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "bad.json"),
        ('{"name": "bad", "cpus": "many"}', "cpus"),
        ('{"name": "other"}', "'other'"),
        ('{"name": "bad", "colour": "red"}', "colour"),
    ],
)
def test_a_wrong_file_is_named_and_hides_no_other(
    tmp_path: Path, text: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    templates = Templates(tmp_path)
    (tmp_path / "bad.json").write_text(text)
    (tmp_path / "good.json").write_text('{"name": "good"}')
    with pytest.raises(InvalidRequest, match=says):
        templates.get("bad")
    with caplog.at_level(logging.WARNING):
        assert [each.name for each in templates.all()] == [*BUILT_IN, "good"]
    assert says in caplog.text


@pytest.mark.parametrize("name", ["nope", "../secret", "", "a/b"])
def test_a_name_is_looked_up_and_never_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.json").write_text('{"name": "secret"}')
    folder = tmp_path / "templates"
    folder.mkdir()
    with pytest.raises(TemplateNotFound) as caught:
        Templates(folder).get(name)
    assert "desktop" in caught.value.hint


def test_the_built_in_one_wins_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "desktop.json").write_text('{"name": "desktop", "cpus": 64}')
    assert Templates(tmp_path).get("desktop").cpus != 64


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [
        (["browser"], "browser"),
        (["browser", "files"], "desktop"),
        (["ide"], "code"),
        (["vscode", "browser"], "code"),
        (["jetbrains"], "jetbrains"),
    ],
)
def test_the_smallest_with_all_capabilities_is_chosen(
    tmp_path: Path, capabilities: list[str], name: str
) -> None:
    request = WorkspaceRequest(capabilities=capabilities, ttl_seconds=5)
    chosen = Templates(tmp_path).chosen(request)
    assert (chosen.template, chosen.capabilities, chosen.ttl_seconds) == (name, [], 5)


def test_added_templates_are_chosen_too(tmp_path: Path) -> None:
    templates = Templates(tmp_path)
    tiny = Template(name="tiny", memory_mib=512, capabilities=["browser", "office"])
    templates.add(tiny)
    templates.add(Template(name="tall", memory_mib=512, cpus=4, capabilities=["browser"]))
    assert templates.fitting(["browser"]) == tiny
    assert templates.fitting(["office"]) == tiny
    with pytest.raises(TemplateNotFound, match="office, vscode") as caught:
        templates.fitting(["office", "vscode"])
    assert "tiny (browser, office)" in caught.value.hint


def test_a_request_names_a_template_or_capabilities() -> None:
    assert WorkspaceRequest().template == "desktop"
    for wrong in (
        {"template": "desktop", "capabilities": ["ide"]},
        {"capabilities": ["No Word"]},
        {"capabilities": "ide"},
        {"capabilities": ["x"] * 51},
    ):
        with pytest.raises(ValueError, match="capabilities"):
            WorkspaceRequest.model_validate(wrong)
