"""Connections are told to the controllers: in few lines, again if nobody heard, and at the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any  # JSON values

import pytest

from ray_cluster import reports
from ray_cluster.reports import Reports
from tests.waiting import eventually
from workspace.proxy.tally import MAX_LINES, Tally

pytestmark = pytest.mark.anyio


class Controllers:
    def __init__(self) -> None:
        self.heard: list[list[dict[str, Any]]] = []
        self.asked = 0
        self.is_there = True

    async def tell(self, body: bytes) -> bool:
        self.asked += 1
        if self.is_there:
            self.heard.append(json.loads(body)["connections"])
        return self.is_there


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "TOGETHER_SECONDS", 0.02)
    monkeypatch.setattr(reports, "AGAIN_SECONDS", 0.02)


async def test_they_are_told_together_and_once() -> None:
    tally, controllers = Tally(), Controllers()
    telling = asyncio.ensure_future(Reports(tally, controllers.tell).run())
    for _ in range(1000):
        tally.note("a.org", 443, "refused", "no", up=1)
    tally.note("b.org", 443, "allowed", down=5, secret="api")
    await eventually(lambda: controllers.heard)
    await asyncio.sleep(0.1)
    telling.cancel()
    ((a, b),) = controllers.heard
    assert (a["host"], a["count"], a["bytes_up"]) == ("a.org", 1000, 1000)
    assert (b["host"], b["bytes_down"], b["secret"]) == ("b.org", 5, "api")


async def test_a_storm_is_told_slowly_and_nothing_of_it_is_lost_at_the_end() -> None:
    tally, controllers = Tally(), Controllers()
    made = Reports(tally, controllers.tell)
    telling = asyncio.ensure_future(made.run())
    for index in range(60):
        tally.note(f"n{index}.org", 443, "refused", "no")
    await eventually(lambda: controllers.heard)
    await asyncio.sleep(0.2)
    assert [len(lines) for lines in controllers.heard] == [MAX_LINES]
    telling.cancel()
    await made.finish()
    assert sum(len(lines) for lines in controllers.heard) == 60


async def test_what_nobody_heard_is_told_again() -> None:
    tally, controllers = Tally(), Controllers()
    controllers.is_there = False
    telling = asyncio.ensure_future(Reports(tally, controllers.tell).run())
    tally.note("a.org", 443, "allowed")
    await eventually(lambda: controllers.asked >= 2)
    tally.note("a.org", 443, "allowed")
    controllers.is_there = True
    await eventually(lambda: controllers.heard)
    telling.cancel()
    assert sum(line["count"] for lines in controllers.heard for line in lines) == 2


async def test_an_end_does_not_wait_for_controllers_that_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reports, "LAST_SECONDS", 0.05)
    tally = Tally()

    async def hang(body: bytes) -> bool:
        await asyncio.sleep(60)
        return True

    tally.note("a.org", 443, "allowed")
    await asyncio.wait_for(Reports(tally, hang).finish(), 5)
    assert tally.take()
