from __future__ import annotations

import os
from pathlib import Path

import pytest

from workspace.backends import disk, trees


def nest(top: Path, depth: int) -> None:
    """Deeper than any path can name."""
    fd = os.open(top, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("n", dir_fd=fd)
        below = os.open("n", os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_measures_what_is_there_and_not_what_is_linked(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(os.urandom(1 << 20))
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "folder" / "file").write_bytes(os.urandom(64 << 10))
    os.link(home / "folder" / "file", home / "second-name")
    (home / "to-file").symlink_to(outside / "large")
    (home / "to-folder").symlink_to(outside)
    (home / "round").symlink_to(home)
    os.mkfifo(home / "pipe")
    for index in range(1000):
        (home / f"{index}").touch()
    total = sum(trees.measure(str(home)))
    assert 64 << 10 <= total < (64 << 10) + 1000 * 512 + (200 << 10)


def test_measuring_comes_in_pieces(tmp_path: Path) -> None:
    for index in range(2000):
        (tmp_path / f"{index}").touch()
    assert len(list(trees.measure(str(tmp_path)))) > 5


def test_a_tree_too_deep_is_said_to_be_so_and_removed_all_the_same(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    nest(home, 3000)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(trees.TooDeep):
        list(trees.measure(str(home)))
    trees.remove(str(home))
    assert not home.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_removes_links_and_never_what_they_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    home = tmp_path / "home"
    (home / "closed").mkdir(parents=True)
    (home / "closed" / "file").touch()
    (home / "closed").chmod(0)
    (home / "link").symlink_to(outside)
    for index in range(600):
        (home / f"{index}\n").touch()
    trees.remove(str(home))
    assert not home.exists()
    assert (outside / "precious").exists()
    trees.remove(str(home))  # again


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="link"):
        trees.remove(str(tmp_path / "link"))
    with pytest.raises(OSError, match="link"):
        list(trees.measure(str(tmp_path / "link")))
    assert (tmp_path / "real").is_dir()


@pytest.mark.parametrize(
    ("measured", "verdicts"),
    [
        ([10, 90, 100], ["fine"] * 3),
        ([101, 101, 101], ["kill", "fine", "fine"]),  # it stays over, but stands still
        ([101, 102, 103, 104], ["kill", "kill", "kill", "end"]),
        ([101, 102, 50, 103, 103], ["kill", "kill", "fine", "kill", "fine"]),
        ([None, None, None, None], ["kill", "kill", "kill", "end"]),  # too deep to tell
    ],
)
def test_who_is_over_the_limit(
    tmp_path: Path, measured: list[int | None], verdicts: list[disk.Verdict]
) -> None:
    check = disk.Check(str(tmp_path), 100)
    assert [check.judge(used) for used in measured] == verdicts
