"""When a tool server's tools are offered, and when they are not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from controller.tools.checking import Offer
from controller.tools.health import Health
from workspace.tools import ToolInfo

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
ONE, TWO = (Offer([ToolInfo(name=name)], []) for name in ("one", "two"))


def test_one_miss_is_nothing_two_are_down_and_one_success_is_up() -> None:
    health = Health()
    assert (health.state, health.offered) == ("new", [])
    assert health.succeeded(ONE, NOW)
    assert not health.succeeded(ONE, NOW)
    assert not health.failed("a", NOW)
    assert health.offered == ONE.tools
    assert health.failed("b\x1b", NOW + timedelta(seconds=15))
    assert (health.state, health.offered) == ("down", [])
    assert (health.since, health.reason) == (NOW + timedelta(seconds=15), "b ")
    assert health.last_seen == NOW
    assert not health.failed("c", NOW + timedelta(seconds=30))
    assert health.since == NOW + timedelta(seconds=15)
    assert health.succeeded(ONE, NOW + timedelta(seconds=45))
    assert (health.state, health.reason) == ("up", "")


def test_misses_are_counted_one_after_the_other() -> None:
    health = Health()
    health.succeeded(ONE, NOW)
    for _ in range(5):
        assert not health.failed("a", NOW)
        assert not health.succeeded(ONE, NOW)
    assert health.state == "up"


def test_one_that_never_answered_is_down_at_once() -> None:
    health = Health()
    assert not health.failed("nobody", NOW)  # nothing of it was offered
    assert (health.state, health.since) == ("down", NOW)


def test_other_tools_are_a_change() -> None:
    health = Health()
    health.succeeded(ONE, NOW)
    assert health.succeeded(TWO, NOW)
    assert health.offered == TWO.tools


def test_one_whose_process_ended_is_down_at_once() -> None:
    health = Health()
    health.succeeded(ONE, NOW)
    assert health.failed("exit code 1", NOW, is_final=True)
    assert health.state == "down"
