"""Where things lie, and what can be set."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from controller.settings import Settings
from workspace.errors import Conflict, Unavailable
from workspace.folders import only_one, private_file, private_folder


def test_defaults_lie_in_the_home_and_sockets_in_a_short_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("CARREL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings()
    assert settings.home == tmp_path / ".local/state/carrel"
    assert settings.url == "http://127.0.0.1:8700" == settings.public_origin
    assert settings.database == f"sqlite+aiosqlite:///{settings.home}/carrel.db"

    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert settings.sockets == Path("/run/carrel") / settings.name
    assert settings.disks == Path("/var/lib/carrel") / f"desktops-{settings.name}"
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert settings.sockets == Path(f"/tmp/carrel-1234-{settings.name}")
    assert settings.disks == settings.home / "desktops"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert settings.sockets == tmp_path / f"carrel-{settings.name}"
    # What is there is swept, so no two homes share it, and nothing else lies in it.
    given = Settings(disk_dir=Path("/mnt/fast"))
    assert given.disks == Path("/mnt/fast") / f"desktops-{given.name}"


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARREL_HOME", str(tmp_path))
    monkeypatch.setenv("CARREL_PORT", "9000")
    monkeypatch.setenv("CARREL_HOST", "0.0.0.0")
    monkeypatch.setenv("CARREL_API_KEY", "a-key")
    monkeypatch.setenv("CARREL_PUBLIC_URL", "https://Desks.example.org/")
    settings = Settings()
    assert settings.url == "http://127.0.0.1:9000"
    assert settings.public_origin == "https://Desks.example.org"
    assert "a-key" not in repr(settings)
    assert settings.name != Settings(home=tmp_path / "other").name


@pytest.mark.parametrize(
    "given",
    [{"port": 70_000}, {"public_url": "ftp://x"}, {"public_url": "https://x/y"}, {"desktops": 0}],
)
def test_a_wrong_setting_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(given)


def test_one_controller_for_a_home(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "controller.lock"
    with only_one(lock):
        assert lock.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        with pytest.raises(Conflict, match=f"process {os.getpid()}"), only_one(lock):
            pass
        assert lock.exists()
    assert not lock.exists()
    with only_one(lock):
        pass


def test_folders_and_files_are_private(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o755)
    assert stat.S_IMODE(private_folder(loose).stat().st_mode) == 0o700
    link = tmp_path / "link"
    link.symlink_to(loose)
    with pytest.raises(Unavailable):
        private_folder(link)
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        private_folder(tmp_path / "file")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(Unavailable):
        private_folder(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    text = private_file(loose / "secret")
    assert private_file(loose / "secret") == text
    assert [path.name for path in loose.iterdir()] == ["secret"]
    (loose / "empty").touch()
    with pytest.raises(Unavailable, match="empty"):
        private_file(loose / "empty")


def test_traces_go_where_opentelemetrys_own_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARREL_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert Settings().otlp_endpoint == ""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert Settings().otlp_endpoint == "http://collector:4318"
    monkeypatch.setenv("CARREL_OTLP_ENDPOINT", "http://other:4318")
    assert Settings().otlp_endpoint == "http://other:4318"
    monkeypatch.setenv("CARREL_LOG_FORMAT", "xml")
    with pytest.raises(ValidationError, match="log_format"):
        Settings()
