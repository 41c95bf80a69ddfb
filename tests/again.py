"""Runs pytest, and the few tests that failed once more: ``python -m tests.again ...``.

Some tests wait for what takes a moment on a processor of their own. The second time is what
counts, as it would without the others. What was left behind, or broke outside of a test, and more
failures than a few count the first time.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
CACHE = ".pytest_cache"
MOST = 20  # of more it is not the others that are to blame
PYTEST = [sys.executable, "-m", "pytest"]


def told(name: str) -> list[str]:
    """Which tests of this run failed, and how, is in files of its own."""
    return ["-o", f"cache_dir={CACHE}/{name}", f"--junitxml={CACHE}/{name}.xml"]


def counts(code: int, command: Sequence[str], name: str) -> int:
    """The exit code of a run by ``command``, which ended with ``code``, after a second one."""
    if code != 1 or not _only_failed(name):
        return abs(code)  # of one that a signal ended it is negative
    print("\nThose that failed, alone:", flush=True)
    alone = [*command, "--last-failed", "--last-failed-no-failures=none"]
    return abs(subprocess.run(alone, cwd=ROOT, check=False).returncode)


def _only_failed(name: str) -> bool:
    """Whether tests failed, a few of them, and nothing else was wrong."""
    report = ElementTree.parse(ROOT / CACHE / f"{name}.xml").getroot()
    suites = list(report.iter("testsuite"))
    errors, failures = (sum(int(s.get(kind, 0)) for s in suites) for kind in ("errors", "failures"))
    return errors == 0 and 0 < failures <= MOST


def main() -> int:
    command = [*PYTEST, *told("again"), *sys.argv[1:]]
    return counts(subprocess.run(command, cwd=ROOT, check=False).returncode, command, "again")


if __name__ == "__main__":
    sys.exit(main())
