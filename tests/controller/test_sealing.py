"""Secrets at rest: what opens them, what does not, and where the key lies."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controller.sealing import MAX_SECRET_BYTES, Sealer, by_settings
from controller.settings import Settings
from workspace.errors import InvalidRequest, TooLarge, Unavailable

OLD, NEW = "o" * 16, "n" * 40
SECRET = "Bearer hunter2 \N{SNOWMAN}"


def test_what_is_sealed_is_opened_and_shows_nothing() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(SECRET, of="tool a/b")
    assert "hunter2" not in sealed
    assert sealed != sealer.seal(SECRET, of="tool a/b")  # never twice the same
    assert sealer.open(sealed, of="tool a/b") == SECRET


def test_it_is_bound_to_what_it_is_of() -> None:
    sealer = Sealer([OLD])
    with pytest.raises(Unavailable, match="not what was sealed"):
        sealer.open(sealer.seal(SECRET, of="tool a/b"), of="tool a/c")


def test_a_key_is_changed_by_putting_a_new_one_first() -> None:
    before = Sealer([OLD]).seal(SECRET, of="it")
    both = Sealer([NEW, OLD])
    assert both.open(before, of="it") == SECRET
    after = both.seal(SECRET, of="it")
    assert Sealer([NEW]).open(after, of="it") == SECRET
    with pytest.raises(Unavailable, match="does not have"):
        Sealer([NEW]).open(before, of="it")


@pytest.mark.parametrize("sealed", ["", "v1", "v1..", "v2.00000000.AAAA", "v1.\0.x", "x" * 200_000])
def test_what_was_never_sealed_is_an_error_of_ours(sealed: str) -> None:
    with pytest.raises(Unavailable):
        Sealer([OLD]).open(sealed, of="it")


@pytest.mark.parametrize("at", [12, 13, 30, -1])
def test_a_changed_one_is_found(at: int) -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(SECRET, of="it")
    changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at:][1:]
    for wrong in (changed, sealed[:at], sealed[:20]):
        with pytest.raises(Unavailable):
            sealer.open(wrong, of="it")


def test_a_secret_is_of_bounded_length() -> None:
    with pytest.raises(TooLarge):
        Sealer([OLD]).seal("x" * (MAX_SECRET_BYTES + 1), of="it")
    longest = "x" * MAX_SECRET_BYTES
    sealer = Sealer([OLD])
    assert sealer.open(sealer.seal(longest, of="it"), of="it") == longest


def test_without_a_setting_the_key_is_a_private_file_of_the_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    sealed = by_settings(settings).seal(SECRET, of="it")
    assert stat.S_IMODE(settings.secrets_key_file.stat().st_mode) == 0o600
    assert by_settings(settings).open(sealed, of="it") == SECRET


def test_controllers_that_share_a_database_need_a_key_that_they_share(tmp_path: Path) -> None:
    shared = {"ray_address": "ray:6379", "database_url": "postgresql://db/carrel"}
    alone = by_settings(Settings(home=tmp_path, **shared))
    with pytest.raises(InvalidRequest) as raised:
        alone.seal(SECRET, of="it")
    assert "CARREL_SECRETS_KEY" in raised.value.hint
    assert not (tmp_path / "secrets-key").exists()
    given = by_settings(Settings(home=tmp_path, secrets_key=f"{NEW},{OLD}", **shared))
    assert given.open(Sealer([OLD]).seal(SECRET, of="it"), of="it") == SECRET
