"""The documents are true: what they tell a reader to type works exactly as it is printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from agent_bridge.tools import TOOLS
from controller.settings import Settings
from tests.e2e.conftest import Service, environment
from workspace.models import Template

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: str, language: str) -> list[str]:
    found = BLOCK.finditer((ROOT / path).read_text(encoding="utf-8"))
    return [block["text"] for block in found if block["language"] == language]


def first_column(text: str, head: str) -> set[str]:
    """The names in code in the column ``head``, the first of a document's table."""
    (table,) = re.findall(rf"^\| {head} \|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def tour() -> list[str]:
    (text,) = (text for text in blocks("README.md", "") if "carrel new" in text)
    return text.splitlines()


def python_blocks() -> list[tuple[str, str]]:
    return [
        (path, text) for path in ("README.md", "docs/sdk.md") for text in blocks(path, "python")
    ]


@pytest.fixture
def home(service: Service, tmp_path: Path) -> dict[str, str]:
    """The environment of a reader whose browser opens nothing; ``tmp_path`` is their checkout."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return environment(service.home) | {"BROWSER": "true %s"}


def test_the_tour_works_line_by_line(
    service: Service, home: dict[str, str], tmp_path: Path
) -> None:
    lines = tour()
    mark = "-- the end of line"
    script = "".join(f'{line}\necho "{mark} $?"\n' for line in lines)
    typed = subprocess.run(
        ["bash", "-s"],
        input=script,
        env=home,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    said = re.findall(rf"(.*?){mark} (\d+)\n", typed.stdout, re.DOTALL)
    assert len(said) == len(lines), typed.stdout + typed.stderr
    printed = {}
    for line, (out, code) in zip(lines, said, strict=True):
        assert code == "0", f"{line}\n{typed.stdout}{typed.stderr}"
        printed[line.partition("#")[0].strip()] = out
    assert printed["carrel exec $ID -- 'echo $HOSTNAME; whoami'"] == "desktop\nuser\n"
    assert printed["carrel cp $ID:note.txt -"] == "hello\n"
    assert " act " in printed["carrel logs $ID"]
    assert (tmp_path / "desktop.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(service.carrel("ls", "--json").stdout) == []


@pytest.mark.parametrize(("path", "text"), python_blocks())
def test_a_python_example_runs(
    service: Service, home: dict[str, str], tmp_path: Path, path: str, text: str
) -> None:
    script = tmp_path / "example.py"
    script.write_text(text, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=home,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, f"{path}: {ran.stderr}"
    assert ran.stdout
    assert service.desktops() == []


def test_the_rest_examples_are_answered(service: Service) -> None:
    (text,) = (text for text in blocks("docs/sdk.md", "") if "POST" in text)
    workspace_id = window = ""
    with httpx.Client(
        base_url=service.url, headers={"Authorization": f"Bearer {service.key}"}, timeout=60
    ) as http:
        for line in text.splitlines():
            method, path, *body = line.split(maxsplit=2)
            path = path.format(id=workspace_id, window=window)
            if "/files" in path:  # a file must be there to be read
                http.put(path, content=b"hello").raise_for_status()
            answer = http.request(method, path, json=json.loads(body[0]) if body else None)
            assert answer.is_success, f"{line}: {answer.text}"
            workspace_id = workspace_id or answer.json()["id"]
            if "/windows/wait" in path:
                window = answer.json()["id"]


def test_the_template_example_is_one() -> None:
    (text,) = blocks("docs/sdk.md", "json")
    assert Template.model_validate_json(text).name in (ROOT / "docs/sdk.md").read_text()


def test_every_setting_is_in_the_operators_table() -> None:
    text = (ROOT / "docs/operators.md").read_text(encoding="utf-8")
    assert first_column(text, "variable") == {
        f"CARREL_{name.upper()}" for name in Settings.model_fields
    }


def test_every_tool_is_in_the_agents_table() -> None:
    text = (ROOT / "docs/agents.md").read_text(encoding="utf-8")
    assert first_column(text, "tool") == {tool.name for tool in TOOLS}
    for example in blocks("docs/agents.md", "json"):
        json.loads(example)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [
        link for link in links if "://" not in link and not (document.parent / link).exists()
    ]
    assert missing == []
