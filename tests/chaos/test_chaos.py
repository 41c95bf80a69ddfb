"""A short piece of ``make chaos``, in every run of the tests."""

from __future__ import annotations

import random

import pytest

from tests.chaos.fleet import fleet
from tests.chaos.storm import SLOTS, Storm

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

CYCLES = 30
SECONDS = 25


async def test_among_kills_nothing_is_lost_shared_or_left() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with fleet(desktops=SLOTS) as running:
        running.start("a", "b")
        books = await Storm(running, seed=seed).run(CYCLES, SECONDS)
    print(books.told())
    assert books.claimed
    assert books.is_balanced, f"seed {seed}\n{books.told()}"
