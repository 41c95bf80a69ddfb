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
STOPS = ("-x", "--exitfirst", "--maxfail")  # with one of these not all tests have run
PYTEST = [sys.executable, "-m", "pytest"]


def told(name: str) -> list[str]:
    """Which tests of this run failed, and how, is in files of its own; none of a run before."""
    (ROOT / CACHE / f"{name}.xml").unlink(missing_ok=True)
    return ["-o", f"cache_dir={CACHE}/{name}", f"--junitxml={CACHE}/{name}.xml"]


def counts(code: int, command: Sequence[str], name: str) -> int:
    """The exit code of a run by ``command``, which ended with ``code``, after a second one."""
    stops = any(word.startswith(STOPS) for word in command)
    if code != 1 or not (ROOT / CACHE / f"{name}.xml").exists() or stops:
        return abs(code)  # of one that a signal ended it is negative
    first = _counted(name)
    if first["errors"] or not 0 < first["failures"] <= MOST:
        return code
    print("\nThose that failed, alone:", flush=True)
    alone = [*command, *told(name), "--last-failed", "--last-failed-no-failures=none"]
    code = abs(subprocess.run(alone, cwd=ROOT, check=False).returncode)
    passed = {"tests": first["failures"], "errors": 0, "failures": 0, "skipped": 0}
    return code or int(_counted(name) != passed)


def _counted(name: str) -> dict[str, int]:
    """How many tests a run had, and of them those that were not passed."""
    suites = list(ElementTree.parse(ROOT / CACHE / f"{name}.xml").getroot().iter("testsuite"))
    kinds = ("tests", "errors", "failures", "skipped")
    return {kind: sum(int(suite.get(kind, 0)) for suite in suites) for kind in kinds}


def main() -> int:
    command = [*PYTEST, *told("again"), *sys.argv[1:]]
    return counts(subprocess.run(command, cwd=ROOT, check=False).returncode, command, "again")


if __name__ == "__main__":
    sys.exit(main())
