"""Locks: one holder, gone with it, and a removed file is nobody's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from workspace import locks


def test_one_holds_it_until_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = locks.take(path)
    assert held is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert locks.take(path) is None
    os.close(held)
    again = locks.take(path)
    assert again is not None
    os.close(again)


def test_a_lock_whose_file_is_removed_is_not_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = locks.take(path)
    assert held is not None
    path.unlink()
    other = locks.take(path)
    assert other is not None
    for descriptor in (held, other):
        os.close(descriptor)


def test_a_link_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        locks.take(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        locks.take(tmp_path / "missing" / "lock")
