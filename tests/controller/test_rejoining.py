"""When a Ray counts as gone; what follows is among the tests of the whole service."""

from __future__ import annotations

import anyio
import pytest

from controller import rejoining
from controller.rejoining import Ray

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("is_own", "looks", "lost_after"),
    [
        (True, "1110", 4),
        (False, "1110010100011101110", 14),  # three misses, and three hits after them
    ],
)
async def test_its_own_is_gone_at_once_and_anothers_once_it_is_back(
    is_own: bool, looks: str, lost_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejoining, "LOOK_SECONDS", 0)
    seen: list[str] = []

    def is_there() -> bool:
        seen.append(looks[len(seen)])
        return seen[-1] == "1"

    with anyio.fail_after(10):
        await Ray(is_there, is_own=is_own).lost()
    assert len(seen) == lost_after


async def test_one_that_is_back_with_all_that_it_knew_is_not_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rejoining, "LOOK_SECONDS", 0)
    looks = iter("000111" * 3)
    same = iter([True, True, False])
    with anyio.fail_after(10):
        await Ray(lambda: next(looks) == "1", is_own=False, is_same=lambda: next(same)).lost()
    assert list(looks) == []
    assert list(same) == []


async def test_one_that_is_away_for_a_moment_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejoining, "LOOK_SECONDS", 0)
    looks = iter("10011001" * 1000)
    with anyio.move_on_after(0.2) as scope:
        await Ray(lambda: next(looks) == "1", is_own=False).lost()
    assert scope.cancelled_caught
