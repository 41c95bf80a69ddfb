"""Who has control, with a clock of the test's own."""

from __future__ import annotations

import itertools
import random
from datetime import datetime, timedelta, timezone

import pytest

from workspace.control import Park, Take
from workspace.desktopd.control import GRACE_SECONDS, Control
from workspace.errors import Conflict, ControlTaken, HumanInControl

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
TICKET = "a1b2c3d4"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        counter = itertools.count()
        self.control = Control(
            lambda: self.now,
            lambda: START + timedelta(seconds=self.now - 100),
            lambda: f"t{next(counter)}",
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(clock: Clock, holder: str, **options: object) -> str:
    clock.control.take(Take.model_validate({"holder": holder, **options}))
    grant = clock.control.told().grant
    assert grant is not None
    return grant


def test_it_is_the_agents_at_first(clock: Clock) -> None:
    clock.control.check()
    told = clock.control.told()
    assert (told.holder, told.parked, told.returned) == (None, None, None)
    assert clock.control.due_seconds() is None
    assert clock.control.hand_back("ada") is None


def test_a_person_has_it_until_they_hand_it_back(clock: Clock) -> None:
    grant = take(clock, "ada", reason="a captcha", display_name="Ada L.")
    clock.now += 10
    with pytest.raises(HumanInControl) as caught:
        clock.control.check()
    assert "Ada L." in caught.value.message
    assert caught.value.details == {
        "who": "Ada L.",
        "since": START.isoformat(),
        "until": (START + timedelta(seconds=300)).isoformat(),
        "reason": "a captcha",
    }
    assert clock.control.holds(grant)
    with pytest.raises(ControlTaken) as refused:
        clock.control.hand_back("bob")
    assert refused.value.details == {"who": "Ada L.", "since": START.isoformat()}
    returned = clock.control.hand_back("ada")
    assert returned is not None
    assert (returned.why, returned.holder) == ("handed_back", "ada")
    assert returned.ended_at == START + timedelta(seconds=10)
    clock.control.check()
    assert not clock.control.holds(grant)


def test_another_person_is_told_who_has_it_unless_they_force_it(clock: Clock) -> None:
    first = take(clock, "ada")
    with pytest.raises(ControlTaken):
        take(clock, "bob")
    assert clock.control.holds(first)
    second = take(clock, "bob", force=True)
    assert (clock.control.holds(first), clock.control.holds(second)) == (False, True)
    returned = clock.control.told().returned
    assert returned is not None
    assert (returned.holder, returned.why) == ("ada", "taken_over")


def test_the_same_person_elsewhere_moves_it_there(clock: Clock) -> None:
    first = take(clock, "ada")
    taking = clock.control.taking
    clock.now += 5
    second = take(clock, "ada", seconds=60)
    told = clock.control.told()
    assert (clock.control.holds(first), clock.control.holds(second)) == (False, True)
    assert (told.taking, told.since) == (taking, START)
    assert told.until == START + timedelta(seconds=65)
    with pytest.raises(Conflict):
        clock.control.admit("ada", first)
    clock.control.admit("ada", second)
    with pytest.raises(ControlTaken):
        clock.control.admit("bob", second)


def test_without_input_it_goes_back_to_the_agent(clock: Clock) -> None:
    grant = take(clock, "ada", seconds=60)
    clock.now += 59
    assert clock.control.used() is not None
    clock.now += 59
    assert clock.control.holds(grant)
    assert clock.control.due_seconds() == pytest.approx(1)
    clock.now += 1
    assert not clock.control.holds(grant)
    clock.control.check()
    returned = clock.control.told().returned
    assert returned is not None
    assert returned.why == "timed_out"


def test_a_reconnect_within_the_grace_keeps_it(clock: Clock) -> None:
    grant = take(clock, "ada")
    clock.now += GRACE_SECONDS * 2  # who has not connected yet has not left
    clock.control.opened(grant)
    clock.control.closed(grant)
    clock.now += GRACE_SECONDS - 0.1
    assert clock.control.holds(grant)
    clock.control.opened(grant)
    clock.now += GRACE_SECONDS
    assert clock.control.holds(grant)
    clock.control.opened(grant)
    clock.control.closed(grant)
    clock.now += GRACE_SECONDS
    assert clock.control.holds(grant), "another connection is left"
    clock.control.closed(grant)
    clock.now += GRACE_SECONDS
    assert not clock.control.holds(grant)
    returned = clock.control.told().returned
    assert returned is not None
    assert returned.why == "disconnected"


def test_who_has_asked_for_a_person_waits(clock: Clock) -> None:
    clock.control.park(Park(ticket=TICKET, reason="log in", seconds=100))
    with pytest.raises(HumanInControl) as caught:
        clock.control.check()
    assert caught.value.details["ticket"] == TICKET
    assert caught.value.details["who"] is None
    with pytest.raises(Conflict) as refused:
        clock.control.park(Park(ticket="another1", seconds=5))
    assert refused.value.details == {"ticket": TICKET}
    take(clock, "ada")
    clock.control.hand_back("ada")
    with pytest.raises(HumanInControl):
        clock.control.check()
    clock.control.unpark("another1")
    with pytest.raises(HumanInControl):
        clock.control.check()
    clock.control.unpark(TICKET)
    clock.control.check()


def test_an_open_request_expires(clock: Clock) -> None:
    clock.control.park(Park(ticket=TICKET, seconds=100))
    clock.now += 99
    with pytest.raises(HumanInControl):
        clock.control.check()
    clock.now += 1
    clock.control.check()
    assert clock.control.told().parked is None


def test_what_is_over_is_collected_once(clock: Clock) -> None:
    take(clock, "ada")
    taking = clock.control.taking
    assert taking is not None
    assert clock.control.collect(taking) is None
    clock.control.hand_back("ada")
    assert clock.control.uncollected() == [taking]
    returned = clock.control.collect(taking)
    assert returned is not None
    assert returned.taking == taking
    assert clock.control.collect(taking) is None
    for _ in range(100):
        take(clock, "ada")
        clock.control.hand_back("ada")
    assert len(clock.control.uncollected()) <= 16


@pytest.mark.parametrize("seed", range(20))
def test_there_are_never_two_holders(clock: Clock, seed: int) -> None:
    """Whatever happens in whatever order: at most one grant holds, and never beside the agent."""
    chance = random.Random(seed)
    grants: list[str] = []
    for _ in range(400):
        who = chance.choice(("ada", "bob", "eve"))
        match chance.randrange(7):
            case 0 | 1:
                try:
                    grants.append(
                        take(clock, who, seconds=chance.randint(5, 20), force=chance.random() < 0.2)
                    )
                except ControlTaken:
                    assert clock.control.told().holder not in (None, who)
            case 2:
                try:
                    clock.control.hand_back(who)
                except ControlTaken:
                    pass
            case 3:
                clock.now += chance.choice((0.5, GRACE_SECONDS, 20))
            case 4 if grants:
                clock.control.opened(chance.choice(grants[-4:]))
            case 5 if grants:
                clock.control.closed(chance.choice(grants[-4:]))
            case 6 if grants and clock.control.holds(grants[-1]):
                clock.control.used()
        holding = [grant for grant in grants if clock.control.holds(grant)]
        assert len(holding) <= 1
        assert len(holding) == (clock.control.told().holder is not None)
        if holding:
            assert holding == [grants[-1]]
            with pytest.raises(HumanInControl):
                clock.control.check()
        else:
            clock.control.check()
