from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from workspace.backends import cgroups, doctor

USERNS = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


def host(files: dict[str, str]) -> Callable[[str], str | None]:
    return files.get


@pytest.mark.parametrize(
    ("files", "detail", "mend"),
    [
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "switched off", "clone=1"),
        ({"/proc/sys/user/max_user_namespaces": "0\n"}, "None are allowed", "max_user_namespaces="),
        ({USERNS: "1\n"}, "AppArmor", "apparmor_parser -r"),
        ({"/run/.containerenv": "engine"}, "container", "Run Carrel outside"),
        ({"/proc/1/cgroup": "0::/docker/12ab"}, "docker", "Run Carrel outside"),
        ({"/.dockerenv": ""}, "docker", "Run Carrel outside"),
        ({}, "bwrap: No permissions", "message"),
    ],
)
def test_why_user_namespaces_fail(files: dict[str, str], detail: str, mend: str) -> None:
    check = doctor.explain_user_namespaces("bwrap: No permissions", host(files))
    assert not check.is_ok
    assert detail in check.detail
    assert mend in check.mend


def test_control_groups() -> None:
    v1: cgroups.Group = {"kind": "v1", "folders": {"memory": "/sys/fs/cgroup/memory/x"}}
    assert "/sys/fs/cgroup/memory/x" in doctor.check_control_groups(v1, True).detail
    none = doctor.check_control_groups(cgroups.NONE, False)
    assert not none.is_ok
    assert "no limit" in none.detail
    assert none.mend


def test_memory() -> None:
    assert doctor.check_memory("MemAvailable:    8000000 kB\n").is_ok
    assert not doctor.check_memory("MemAvailable:    80000 kB\n").is_ok
    assert not doctor.check_memory("").is_ok


def test_this_machine(runtime_dir: Path) -> None:
    found = {check.name: check for check in doctor.checks(runtime_dir)}
    for name in ("bubblewrap", "user namespaces", "X server", "window manager", "runtime"):
        assert found[name].is_ok, found[name]
    assert all(check.mend for check in found.values() if not check.is_ok)
    assert doctor.reason() is None


def test_a_runtime_that_is_not_built(tmp_path: Path) -> None:
    check = next(c for c in doctor.checks(tmp_path / "none") if c.name == "runtime")
    assert not check.is_ok
    assert check.mend == "scripts/build-runtime"


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    missing = doctor.reason()
    assert missing is not None
    assert "Xtigervnc" in missing.detail
    assert "apt-get install tigervnc" in missing.mend


def test_picture_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._pictures().is_ok
    monkeypatch.setattr(doctor, "_PICTURE_LIBRARIES", ("libc.so.6", "libpictures-of-nobody.so"))
    check = doctor._pictures()
    assert not check.is_ok
    assert check.detail.startswith("libpictures-of-nobody.so missing")
    assert "libzimg2" in check.mend
