from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

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
    names = 1000 + 6
    assert names * 4096 + (56 << 10) <= total < names * 4096 + (200 << 10)


def test_names_without_end_count_however_little_is_behind_them(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"x")
    for index in range(1, 1000):
        os.link(tmp_path / "0", tmp_path / f"{index}")
    assert sum(trees.measure(str(tmp_path))) >= 1000 * 4096


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody whom permissions bind")
@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_a_closed_folder_hides_nothing(mode: int) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        closed = Path(home, "closed")
        closed.mkdir()
        (closed / "file").write_bytes(os.urandom(1 << 20))
        for path in (home, closed, closed / "file"):
            os.chown(path, 65534, 65534)
        closed.chmod(mode)
        child = os.fork()
        if child == 0:  # in a process of its own: there is no way back to root
            os.setresuid(65534, 65534, 65534)
            os._exit(0 if sum(trees.measure(home)) >= 1 << 20 else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_removed_file_counts_as_long_as_it_is_held(tmp_path: Path) -> None:
    def measured() -> int:
        return sum(trees.measure_unnamed(str(tmp_path), [os.getpid(), 1 << 22]))

    def held() -> int:
        return measured() - others

    others = measured()  # what pytest itself holds
    (tmp_path / "named").write_bytes(os.urandom(1 << 20))
    with open(tmp_path / "named", "rb"), open(tmp_path / "gone", "w+b") as gone:
        gone.write(os.urandom(1 << 20))
        gone.flush()
        assert held() == 0
        os.unlink(tmp_path / "gone")
        again = os.dup(gone.fileno())
        assert 1 << 20 <= held() < (1 << 20) + (64 << 10)  # once
        os.close(again)
        mapping = mmap.mmap(gone.fileno(), 4096)
    with mapping:  # mmap keeps a descriptor of its own, as C programs need not
        assert held() >= 1 << 20
    assert held() == 0


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


@pytest.mark.parametrize(
    ("measured", "verdicts"),
    [
        ((150, 150, 90, 150), ("fine", "fine", "fine", "kill")),
        ((150, 151, 151, 152), ("fine", "kill", "fine", "kill")),
        ((50, 150), ("fine", "kill")),
        ((None,), ("kill",)),
    ],
)
def test_what_was_too_large_before_may_not_grow(
    tmp_path: Path, measured: tuple[int | None, ...], verdicts: tuple[str, ...]
) -> None:
    check = disk.Check(str(tmp_path), 100, is_used=True)
    assert tuple(check.judge(used) for used in measured) == verdicts


def test_a_home_that_rests_is_measured_soon_once_it_may_be_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = disk.Check(str(tmp_path), 1 << 30)
    now, free = 1000.0, 100 << 30
    monkeypatch.setattr(disk.time, "monotonic", lambda: now)
    monkeypatch.setattr(disk.os, "statvfs", lambda _: SimpleNamespace(f_bfree=free, f_frsize=1))
    assert check.step() == "fine"
    monkeypatch.setattr(check, "_spent", 10.0)  # it was large
    now, free = now + 30, free - (500 << 20)
    assert check.step() is None
    free -= 600 << 20
    assert check.step() == "fine"
    assert check.step() is None
