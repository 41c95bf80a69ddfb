from __future__ import annotations

import os
from pathlib import Path

import pytest

from workspace.backends import uids


@pytest.mark.parametrize(
    ("uid_map", "expected"),
    [
        ("         0          0 4294967295\n", 2_000_000),
        ("0 1000 1\n1 100000 65536\n", 40_000),
        ("0 100000 65536\n", 40_000),
    ],
)
def test_the_first_uid_lies_in_the_map(uid_map: str, expected: int) -> None:
    assert uids.base(uid_map) == expected


def test_a_map_of_one_uid_is_too_small() -> None:
    with pytest.raises(uids.NoUid):
        uids.base("0 1000 1\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives uids out")
def test_no_two_hold_the_same_and_what_is_released_is_free(tmp_path: Path) -> None:
    folder = str(tmp_path / "uids")
    with uids.claim(folder) as one, uids.claim(folder) as other:
        assert one != other
        assert set(os.listdir(folder)) == {str(one), str(other)}
    assert os.listdir(folder) == []
    with uids.claim(folder) as again:
        assert again == one


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives uids out")
def test_a_lock_that_was_left_is_taken_and_one_without_an_owner_is_free(tmp_path: Path) -> None:
    with uids.claim(str(tmp_path)) as first:
        pass
    (tmp_path / str(first)).touch()  # its holder was killed
    with uids.claim(str(tmp_path)) as again:
        assert again == first
        assert os.listdir(tmp_path) == [str(first)]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives uids out")
def test_what_the_killed_left_goes_with_the_next_claim_and_with_a_sweep(tmp_path: Path) -> None:
    folder = str(tmp_path / "uids")
    uids.sweep(folder)  # where none was ever claimed there is nothing to do
    with uids.claim(folder) as first:
        left = tmp_path / "uids" / str(first + 7)
        left.touch()  # its holder was killed while many lived
        with uids.claim(folder) as other:
            assert set(os.listdir(folder)) == {str(first), str(other)}
        left.touch()
        uids.sweep(folder)
        assert os.listdir(folder) == [str(first)]  # which is held
        with uids.claim(folder) as other:
            assert other != first


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives uids out")
def test_a_uid_under_which_something_still_runs_is_passed_over(tmp_path: Path) -> None:
    with uids.claim(str(tmp_path)) as uid:
        pass
    stray = os.fork()
    if stray == 0:
        os.setresuid(uid, uid, uid)
        os.execvp("sleep", ["sleep", "60"])
    try:
        while (
            os.stat(f"/proc/{stray}").st_uid != uid
            or b"sleep" not in Path(f"/proc/{stray}/cmdline").read_bytes()
        ):
            pass
        with uids.claim(str(tmp_path)) as other:
            assert other != uid
    finally:
        os.kill(stray, 9)
        os.waitpid(stray, 0)
