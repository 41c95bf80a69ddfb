"""`carrel bench`: its rows, its table and its plot; never how fast it was."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Service


def test_a_short_run(service: Service, tmp_path: Path) -> None:
    tasks = ["--only", "screenshot", "--only", "click", "--only", "type", "--peer", "e2b"]
    plot = tmp_path / "plot.png"
    done = service.carrel("bench", "--json", "--samples=1", *tasks, f"--plot={plot}", timeout=150)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert all(set(row) == {"name", "unit", "p50", "p95", "n"} for row in rows)
    assert all(row["unit"] == "ms" and 0 < row["p50"] <= row["p95"] for row in rows), rows
    names = {row["name"] for row in rows}
    assert {
        "screenshot, JPEG, changed: Carrel, in desktopd",
        "screenshot, PNG, changed: Carrel, through REST",
        "screenshot, PNG, changed: E2B",
        "click: E2B",
        "type 50 Unicode characters: Carrel, through REST (exact)",
    } <= names, names
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(service.carrel("ls", "--json").stdout) == []


def test_the_table_of_the_readme(service: Service) -> None:
    only = ["--only", "click", "--peer", "anthropic", "--samples", "1"]
    done = service.carrel("bench", "--markdown", *only)
    assert done.returncode == 0, done.stderr
    head, _, click = done.stdout.splitlines()
    assert head == "| | in desktopd | through REST | Anthropic's demo |"
    assert click.startswith("| click |")


def test_a_task_that_there_is_not(service: Service) -> None:
    done = service.carrel("bench", "--only", "juggle")
    assert done.returncode == 1
    assert "no task 'juggle'" in done.stderr
