"""The archives that peers come in; what cannot be had is said, not raised through."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from benchmarks import packages


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packages, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Something that pip installs without the network, but for what builds it."""
    info = tmp_path / "peer-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Peer\nVersion: 1.2\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "RECORD").write_text("")
    wheel = tmp_path / "peer-1.2-py3-none-any.whl"
    (tmp_path / "peer.py").write_text("")
    subprocess.run(
        ["/usr/bin/python3", "-m", "zipfile", "-c", wheel, tmp_path / "peer.py", info], check=True
    )
    return wheel


def test_an_archive_is_made_once(cache: Path, project: Path) -> None:
    made = packages._bundle("peer", [str(project)], packages.SYSTEM_PYTHON)
    assert made.version == "1.2"
    assert made.python.startswith("/usr/bin/python3")
    with tarfile.open(made.archive) as archive:
        assert "site/peer.py" in archive.getnames()
    project.unlink()
    assert packages._bundle("peer", [str(project)], packages.SYSTEM_PYTHON) == made
    assert list(cache.iterdir()) == [made.archive]


def test_what_pip_cannot_install_is_missing(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(packages.Missing, match=r"(?i)valid wheel"):
        packages._bundle("peer", [str(tmp_path / "nothing.whl")], packages.SYSTEM_PYTHON)
    assert list(cache.iterdir()) == []


def test_a_python_that_does_not_run_is_missing() -> None:
    with pytest.raises(packages.Missing, match="does not run"):
        packages._bundle("peer", ["peer"], "/bin/false")
