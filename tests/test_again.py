from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.again import MOST, ROOT

ONCE = """
import pathlib
def test_once():
    seen = pathlib.Path(__file__).with_suffix(".seen")
    was_there = seen.exists()
    seen.touch()
    assert was_there
"""
ALWAYS = "def test_always():\n    assert False\n"
SKIPPED = """
import pathlib, pytest
def test_skipped():
    seen = pathlib.Path(__file__).with_suffix(".seen")
    if seen.exists():
        pytest.skip("not this time")
    seen.touch()
    assert False
"""
LEAVES = """
import pytest
@pytest.fixture
def leaving():
    yield
    assert False, "left behind"
"""
LEFT = f"{LEAVES}\ndef test_left(leaving): pass\n{ONCE}"
MANY = (
    "import pytest\n@pytest.mark.parametrize('n', range({}))\ndef test_many(n):\n    assert False\n"
)


@pytest.mark.parametrize(
    ("tests", "code", "runs"),
    [
        ("def test_good(): pass\n", 0, 1),
        (f"def test_good(): pass\n{ONCE}", 0, 2),
        (ALWAYS + ONCE, 1, 2),
        (LEFT, 1, 1),
        (MANY.format(MOST + 1), 1, 1),
        ("this is no Python", 2, 1),
        (SKIPPED, 1, 2),
    ],
)
def test_what_failed_has_to_pass_alone(tmp_path: Path, tests: str, code: int, runs: int) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_some.py").write_text(tests)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.again", "-c", str(tmp_path / "pytest.ini"), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout.count("test session starts")) == (code, runs), ran.stdout
