from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from workspace.backends import runtime, seccomp
from workspace.errors import BackendUnavailable


def test_source_is_made_once_and_anew_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "checkout" / "workspace"
    shutil.copytree(runtime._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(runtime, "_PACKAGE", package)
    folder = tmp_path / "runtime"
    first = runtime.ensure_source(folder)
    made = first.stat().st_mtime_ns
    assert runtime.ensure_source(folder) == first
    assert first.stat().st_mtime_ns == made
    with (package / "desktopd" / "__init__.py").open("a") as file:
        file.write("# edited\n")
    second = runtime.ensure_source(folder)
    assert second != first
    assert {path.name for path in folder.iterdir()} == {first.name, second.name}


def test_anybody_can_read_and_import_it_and_it_holds_nothing_more(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        source = runtime.ensure_source(tmp_path / "runtime")
    finally:
        os.umask(before)
    for path in (source, *source.rglob("*")):
        assert path.stat().st_mode & (0o005 if path.is_dir() else 0o004), path
    assert not (source / "workspace" / "backends").exists()
    assert not (source / "workspace" / "desktop.py").exists()
    assert list((source / "workspace" / "__pycache__").glob("models.*.pyc"))
    assert (source / runtime.FILTER).stat().st_size % 8 == 0  # struct sock_filter


def test_it_runs_by_the_systems_python_alone(runtime_dir: Path) -> None:
    source, dependencies = runtime.ensure_source(runtime_dir), runtime.dependencies(runtime_dir)
    code = f"import sys; sys.path[:0] = [{str(source)!r}, {str(dependencies)!r}]\n"
    code += "import workspace.actions, workspace.desktopd.config, starlette, uvicorn, xcffib, PIL\n"
    code += "assert 'pycparser' not in sys.modules, 'C is parsed at every start'"
    subprocess.run([runtime.PYTHON, "-I", "-S", "-c", code], check=True, cwd="/")


def test_building_again_does_nothing(runtime_dir: Path) -> None:
    made = runtime.dependencies(runtime_dir).stat().st_mtime_ns
    assert not runtime.build(runtime_dir)
    assert runtime.dependencies(runtime_dir).stat().st_mtime_ns == made


def test_what_is_not_built_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        runtime.dependencies(tmp_path)
    assert "setup" in caught.value.hint


def test_requirements_are_those_of_the_desktopd_extra() -> None:
    names = {re.split("[<>=]", requirement)[0] for requirement in runtime.requirements()}
    assert {"pydantic", "starlette", "uvicorn", "xcffib", "pillow"} <= names
    assert not {"ray", "httpx", "fastapi"} & names


def test_the_filter_names_no_call_twice_and_compiles() -> None:
    assert len(set(seccomp.REFUSED)) == len(seccomp.REFUSED)
    assert len(seccomp.program()) > 100
