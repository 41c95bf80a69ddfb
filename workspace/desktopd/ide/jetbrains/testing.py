"""Which tests there are to run, and what came of them, read from what the runner printed.

Pure but for looking whether files are there. Three runners' words are known: the service messages
that the IDEs' own runners print (``##teamcity[testFailed ...]``), pytest's and unittest's. What is
read may be any program's words, and many: no pattern takes more time than in proportion to them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from itertools import islice
from typing import Any

from workspace import ide as i
from workspace.desktopd.ide.jetbrains import places

_MAX_FAILURES = 200
_MAX_MESSAGE = 4000
_TESTS = re.compile(r"\b(py)?tests?\b|unittest|junit|jest|vitest|mocha", re.IGNORECASE)
_MESSAGE = re.compile(r"##teamcity\[(\w+)((?:\s+\w+='(?:\|.|[^|'])*')*)\s*\]")
_ATTRIBUTE = re.compile(r"(\w+)='((?:\|.|[^|'])*)'")
_PYTEST = re.compile(r"^=* ?(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s", re.MULTILINE)
_PYTEST_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?)(?: - (.*))?$", re.MULTILINE)
_UNITTEST = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
_RAISED = re.compile(r"^[A-Za-z_][\w.]*(?::.*)?$", re.MULTILINE)
_UNITTEST_FAILED = re.compile(r"^(?:FAIL|ERROR): (\S+)(?: \(([\w.]+)\))?", re.MULTILINE)
_IN_FILE = re.compile(
    r"^[ \t]*(?:E[ \t]+)?File \"([^\"\n]+)\", line (\d+)|^([^\s:]+\.py):(\d+): ", re.MULTILINE
)
_ESCAPES = {"n": "\n", "r": "\r", "|": "|", "'": "'", "[": "[", "]": "]"}


def of_tests(configurations: Sequence[dict[str, Any]]) -> str | None:
    """The name of the first run configuration that is of tests, by its type or else its name."""
    for key in ("description", "name"):
        for each in configurations:
            if _TESTS.search(str(each.get(key) or "")):
                return str(each["name"])
    return None


def runner(folder: str, path: str | None, pattern: str | None) -> str | None:
    """The command that runs the project's tests in its folder; None if none is known."""
    package = os.path.join(folder, "package.json")
    wants_python = path is None or path.endswith(".py") or _has_python(os.path.join(folder, path))
    if wants_python and _has_python(folder):
        python = next(
            (
                name
                for name in (".venv/bin/python", "venv/bin/python")
                if os.access(os.path.join(folder, name), os.X_OK)
            ),
            "python3",
        )
        chosen = [path] if path else []
        if pattern:
            chosen += ["-k", pattern]
        modules = f"{python} -c 'import pytest' 2>/dev/null"
        with_pytest = shlex.join([python, "-m", "pytest", "-q", "-rfE", *chosen])
        plain = [python, "-m", "unittest", "-v"]
        if path and path.endswith(".py"):
            plain += [path]
        else:
            plain[3:3] = ["discover"]
            plain += ["-s", path] if path else []
        plain += ["-k", pattern] if pattern else []
        script = f"if {modules}; then exec {with_pytest}; else exec {shlex.join(plain)}; fi"
        return f"/bin/bash -c {shlex.quote(script)}"
    try:
        with open(package, "rb") as file:
            scripts = json.loads(file.read(1 << 20)).get("scripts", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(scripts, dict) or "test" not in scripts:
        return None
    chosen = [path] if path else []
    chosen += ["-t", pattern] if pattern else []
    return shlex.join(["npm", "test", "--silent", *(["--", *chosen] if chosen else [])])


def _has_python(folder: str) -> bool:
    if any(os.path.exists(os.path.join(folder, name)) for name in ("pytest.ini", "tox.ini")):
        return True
    looked = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "node_modules"))]
        if any(re.fullmatch(r"test_\w+\.py|\w+_test\.py|tests?\.py", name) for name in names):
            return True
        looked += len(names)
        if looked > places.MAX_FILES:
            return False
    return False


def result(
    output: str,
    *,
    ran: str,
    exit_code: int | None,
    is_cut: bool,
    elapsed_seconds: float,
    folder: str,
) -> i.Tested:
    """What came of the tests, as far as the output tells."""
    told = _services(output, folder) or _pytest(output, folder) or _unittest(output, folder)
    passed, failed, skipped, failures = told or (None, None, None, [])
    return i.Tested(
        passed=passed,
        failed=failed,
        skipped=skipped,
        failures=failures[:_MAX_FAILURES],
        ran=ran,
        exit_code=exit_code,
        output=output,
        is_cut=is_cut,
        elapsed_seconds=elapsed_seconds,
    )


_Told = tuple[int, int, int, list[i.FailedTest]]


def _services(output: str, folder: str) -> _Told | None:
    ended: set[str] = set()
    failures: dict[str, i.FailedTest] = {}
    skipped: set[str] = set()
    for found in _MESSAGE.finditer(output):
        kind = found.group(1)
        told = {name: _unescaped(value) for name, value in _ATTRIBUTE.findall(found.group(2))}
        name = told.get("name", "")[:1000]
        if kind == "testFinished":
            ended.add(name)
        elif kind == "testIgnored":
            skipped.add(name)
        elif kind == "testFailed":
            words = "\n".join(filter(None, (told.get("message"), told.get("details"))))
            failures[name] = _failure(name, words, folder)
    if not ended and not failures and not skipped:
        return None
    passed = ended - set(failures) - skipped
    return len(passed), len(failures), len(skipped), list(failures.values())


def _pytest(output: str, folder: str) -> _Told | None:
    summaries = list(_PYTEST.finditer(output))
    if not summaries:
        return None
    counts: dict[str, int] = {}
    for number, word in re.findall(r"(\d+) (\w+)", summaries[-1].group(1)):
        counts[word.rstrip("s")] = counts.get(word.rstrip("s"), 0) + int(number)
    failures = []
    for name, words in _PYTEST_FAILED.findall(output)[:_MAX_FAILURES]:
        test = name.rpartition("::")[2].partition("[")[0]
        section = _section(output, rf"^_+ (?:\S+\.)?{re.escape(test)}\b.*_$")
        told = "\n".join(re.findall(r"^E  +(.*)$", section, re.MULTILINE))
        failures.append(_failure(name, told or words or section, folder, section))
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return counts.get("passed", 0), failed, counts.get("skipped", 0), failures


def _unittest(output: str, folder: str) -> _Told | None:
    ran = _UNITTEST.findall(output)
    if not ran:
        return None
    counts = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", output[-500:])}
    failed, skipped = counts.get("failures", 0) + counts.get("errors", 0), counts.get("skipped", 0)
    failures = []
    for found in islice(_UNITTEST_FAILED.finditer(output), _MAX_FAILURES):
        name = found.group(2) or found.group(1)
        section = output[found.end() :].partition("\n======")[0]
        words = section.partition("\nRan ")[0].strip("-\n ")
        # What was raised, and what stands below it: the differences of what was compared.
        raised = [each.start() for each in _RAISED.finditer(words)]
        told = words[raised[-1] :] if raised else words.rpartition("\n")[2]
        failures.append(_failure(name, told or words, folder, words))
    return int(ran[-1]) - failed - skipped, failed, skipped, failures


def _failure(name: str, words: str, folder: str, section: str = "") -> i.FailedTest:
    """A failure, and the last place in the folder that its text names."""
    path, line = "", None
    for found in _IN_FILE.finditer(section or words):
        where = places.absolute(found.group(1) or found.group(3), folder)
        if where.startswith(folder + "/"):
            path, line = where, int(found.group(2) or found.group(4))
    if not path and "::" in name:
        path = places.absolute(name.partition("::")[0], folder)
    return i.FailedTest(name=name, message=words.strip()[:_MAX_MESSAGE], path=path, line=line)


def _section(output: str, title: str) -> str:
    found = re.search(title, output, re.MULTILINE)
    if found is None:
        return ""
    rest = output[found.end() :]
    end = re.search(r"^(?:_{3,}|={3,}) ", rest, re.MULTILINE)
    return rest[: end.start() if end else None][:20_000]


def _unescaped(value: str) -> str:
    def one(found: re.Match[str]) -> str:
        mark = found.group(1)
        return chr(int(mark[3:], 16)) if mark.startswith("0x") else _ESCAPES.get(mark, mark)

    return re.sub(r"\|(0x[0-9a-fA-F]{4}|.)", one, value)
