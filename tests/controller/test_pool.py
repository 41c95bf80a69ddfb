"""The plan of the pools: each rule as a table, then hours of churn that must break none of them."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest

from benchmarks.churn import MEMORY_MIB, Fleet, Rates, fleet
from controller.pool import Member, MemberState, Plan, Wanted, back_off_seconds, plan
from controller.room import Room
from workspace.models import Pool

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=timezone.utc)
HOUR = 3600.0


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def wanted(
    template: str = "t", *, pool: Pool | None = None, claimed: float | None = None, **of: object
) -> Wanted:
    """``claimed`` and ``failed`` are seconds ago."""
    failed = of.pop("failed", None)
    assert failed is None or isinstance(failed, float)
    return Wanted(
        template,
        pool or Pool(warm=2),
        shape="s",
        memory_mib=1000,
        claimed_at=None if claimed is None else ago(claimed),
        failed_at=None if failed is None else ago(failed),
        **of,  # type: ignore[arg-type]  # the tests name what there is
    )


def some(
    count: int,
    state: MemberState = "warm",
    *,
    template: str = "t",
    node: str | None = "n1",
    age: float = 60.0,
    shape: str = "s",
) -> list[Member]:
    """Members whose names tell what they are; each is a second older than the one before."""
    return [
        Member(
            f"{template}-{state}-{shape}-{index}", template, shape, state, node, ago(age + index)
        )
        for index in range(count)
    ]


def room(slots: int = 10, *, node: str = "n1", taken: int = 0, **of: object) -> Room:
    return Room(node, slots, taken, **of)  # type: ignore[arg-type]  # as above


def counted(found: Plan) -> dict[str, int]:
    return dict(Counter(start.template for start in found.starts))


def stopped(found: Plan) -> set[str]:
    return {stop.id for stop in found.stops}


# How many.


@pytest.mark.parametrize(
    ("pool", "claimed", "target", "state"),
    [
        (Pool(), None, 0, "idle"),
        (Pool(warm=2), None, 2, "filling"),  # always
        (Pool(warm=2, idle_seconds=60), None, 0, "idle"),
        (Pool(warm=2, idle_seconds=60), 59.0, 2, "filling"),
        (Pool(warm=2, idle_seconds=60), 61.0, 0, "idle"),
        (Pool(warm=3, floor=1, idle_seconds=60), 61.0, 1, "filling"),
        (Pool(floor=2), None, 2, "filling"),  # more than warm
    ],
)
def test_what_is_kept_follows_the_claims(
    pool: Pool, claimed: float | None, target: int, state: str
) -> None:
    found = plan([wanted(pool=pool, claimed=claimed)], [], [room()], NOW)
    assert found.states["t"].target == target
    assert found.states["t"].state == state
    assert len(found.starts) == min(target, pool.surge)


def test_a_filled_pool_is_left_alone() -> None:
    found = plan([wanted()], some(2), [room(taken=2)], NOW)
    assert not found.starts
    assert not found.stops
    assert found.states["t"].state == "filled"
    assert found.states["t"].warm == 2


def test_what_is_idle_is_scaled_to_zero_and_what_is_still_starting_first() -> None:
    pool = Pool(warm=4, floor=1, idle_seconds=60)
    members = [*some(2, age=100), *some(2, "warming", age=5)]
    found = plan([wanted(pool=pool, claimed=61.0)], members, [room()], NOW)
    assert stopped(found) == {"t-warming-s-0", "t-warming-s-1", "t-warm-s-1"}  # and the oldest


def test_no_more_start_at_a_time_than_the_surge() -> None:
    pool = Pool(warm=10, surge=3)
    assert counted(plan([wanted(pool=pool)], [], [room(20)], NOW)) == {"t": 3}
    assert counted(plan([wanted(pool=pool)], some(2, "warming"), [room(20)], NOW)) == {"t": 1}
    assert not plan([wanted(pool=pool)], some(3, "warming"), [room(20)], NOW).starts


def test_max_counts_the_claimed_ones_and_those_on_their_way_out() -> None:
    pool = Pool(warm=4, surge=9, max=5)
    assert counted(plan([wanted(pool=pool)], some(3, "live"), [room()], NOW)) == {"t": 2}
    leaving = [*some(3, "live"), *some(1, "stopping")]
    assert counted(plan([wanted(pool=pool)], leaving, [room()], NOW)) == {"t": 1}
    full = plan([wanted(pool=pool)], some(5, "live"), [room()], NOW)
    assert not full.starts
    assert full.states["t"].state == "full"
    assert "5 of them" in full.states["t"].reason


def test_a_lowered_max_takes_warm_ones_and_leaves_claimed_ones() -> None:
    pool = Pool(warm=4, max=3)
    found = plan([wanted(pool=pool)], [*some(4), *some(2, "live")], [room()], NOW)
    assert stopped(found) == {"t-warm-s-1", "t-warm-s-2", "t-warm-s-3"}
    assert not plan([wanted(pool=pool)], some(7, "live"), [room()], NOW).stops


def test_what_no_template_wants_is_stopped_unless_claimed() -> None:
    members = [*some(1), *some(1, "warming"), *some(1, "live")]
    assert stopped(plan([], members, [room()], NOW)) == {"t-warm-s-0", "t-warming-s-0"}


# Where.


@pytest.mark.parametrize(
    ("rooms", "starts", "reason"),
    [
        ([], 0, "No node takes"),
        ([room(10, draining=True)], 0, "No node takes"),
        ([room(3, taken=3)], 0, "All 3 places"),
        ([room(3, taken=2)], 1, "All 3 places"),
        ([room(9, free_mib=2500)], 2, "1000 MiB"),
        ([room(9, free_mib=999)], 0, "1000 MiB"),
        ([room(1, free_mib=9000), room(9, node="n2", free_mib=1500)], 2, "1000 MiB"),
    ],
)
def test_nodes_bound_what_is_started(rooms: Sequence[Room], starts: int, reason: str) -> None:
    found = plan([wanted(pool=Pool(warm=5, surge=5))], [], rooms, NOW)
    assert len(found.starts) == starts
    assert found.states["t"].state == "full"
    assert reason in found.states["t"].reason


def test_the_emptiest_node_is_filled_first() -> None:
    rooms = [room(4, node="n1", taken=2), room(4, node="n2"), room(9, node="n3", draining=True)]
    found = plan([wanted(pool=Pool(warm=4, surge=4))], [], rooms, NOW)
    assert Counter(start.node for start in found.starts) == {"n2": 3, "n1": 1}


def test_what_a_node_does_not_tell_of_yet_counts_as_taken() -> None:
    pool = Pool(warm=9, surge=9)
    assert len(plan([wanted(pool=pool)], some(3, "live"), [room(5)], NOW).starts) == 2
    homeless = some(3, "live", node=None)
    assert len(plan([wanted(pool=pool)], homeless, [room(5)], NOW).starts) == 2
    placed_by_now = plan([wanted(pool=pool)], homeless, [room(5, taken=3)], NOW)
    assert len(placed_by_now.starts) == 2
    on_a_lost_node = some(3, "live", node="gone")
    assert len(plan([wanted(pool=pool)], on_a_lost_node, [room(5)], NOW).starts) == 5


def test_one_is_warmed_where_its_labels_say_and_others_have_the_rest() -> None:
    rooms = [room(2, node="n1", labels={"zone": "a"}), room(9, node="n2")]
    both = [
        wanted("a", pool=Pool(warm=3, surge=9), labels={"zone": "a"}),
        wanted("b", pool=Pool(warm=9, surge=9)),
    ]
    found = plan(both, [], rooms, NOW)
    assert counted(found) == {"a": 2, "b": 9}
    assert {start.node for start in found.starts if start.template == "a"} == {"n1"}
    assert "zone=a" in found.states["a"].reason
    # Claims that wait for such a node have no others give up what is theirs.
    waiting = [wanted("a", pool=Pool(), waiting=1, labels={"zone": "x"}), both[1]]
    found = plan(waiting, some(5, template="b", node="n2"), rooms, NOW)
    assert stopped(found) == set()
    assert counted(found) == {"b": 4}


def test_a_draining_node_loses_its_warm_ones_only() -> None:
    members = [*some(2), *some(1, "live"), *some(1, "warming")]
    found = plan([wanted()], members, [room(draining=True), room(node="n2")], NOW)
    assert stopped(found) == {"t-warm-s-0", "t-warm-s-1", "t-warming-s-0"}
    assert [start.node for start in found.starts] == ["n2"]  # one is still starting: surge 2


# What is too old, or of another shape.


def test_another_shape_is_replaced() -> None:
    found = plan([wanted()], [*some(2, shape="old"), *some(1, "live", shape="old")], [room()], NOW)
    assert stopped(found) == {"t-warm-old-0", "t-warm-old-1"}
    assert counted(found) == {"t": 2}


def test_the_old_ones_go_once_they_are_replaced() -> None:
    pool = Pool(warm=3, surge=2, max_age_seconds=HOUR)
    old = some(3, age=0.99 * HOUR)
    first = plan([wanted(pool=pool)], old, [room()], NOW)
    assert not first.stops
    assert len(first.starts) == 2
    young = [*old, *some(2, age=5, node="n2")]
    assert len(plan([wanted(pool=pool)], young, [room()], NOW).stops) == 2


def test_where_there_is_no_room_old_ones_make_it_a_few_at_a_time() -> None:
    pool = Pool(warm=6, surge=2, max_age_seconds=HOUR)
    found = plan([wanted(pool=pool)], some(6, age=0.999 * HOUR), [room(6, taken=6)], NOW)
    assert stopped(found) == {"t-warm-s-5", "t-warm-s-4"}
    at_max = Pool(warm=6, surge=2, max=6, max_age_seconds=HOUR)
    assert len(plan([wanted(pool=at_max)], some(6, age=0.999 * HOUR), [room()], NOW).stops) == 2


def test_those_of_one_birthday_do_not_go_on_one_day() -> None:
    pool = Pool(warm=100, surge=100, max_age_seconds=HOUR)
    one_age = [Member(f"m{n}", "t", "s", "warm", "n1", NOW) for n in range(100)]
    due = [
        len(plan([wanted(pool=pool)], one_age, [room(200)], NOW + timedelta(seconds=age)).starts)
        for age in (0.79 * HOUR, 0.85 * HOUR, 0.9 * HOUR, 0.95 * HOUR, HOUR)
    ]
    assert due[0] == 0
    assert due[-1] == 100
    assert all(10 <= later - sooner <= 45 for sooner, later in pairwise(due))


def test_an_old_one_goes_even_if_it_cannot_be_replaced() -> None:
    pool = Pool(warm=3, surge=2, max_age_seconds=HOUR)
    broken = wanted(pool=pool, failures=5, failed=1.0)
    assert len(plan([broken], some(3, age=HOUR), [room()], NOW).stops) == 2
    assert not plan([broken], some(3, age=0.7 * HOUR), [room()], NOW).stops


# Failures.


def test_failures_back_off_and_one_is_tried_before_more() -> None:
    pool = Pool(warm=5, surge=5)
    early = plan([wanted(pool=pool, failures=3, failed=3.9, reason="No X.")], [], [room()], NOW)
    assert not early.starts
    assert (early.states["t"].state, early.states["t"].reason) == ("backing_off", "No X.")
    later = plan([wanted(pool=pool, failures=3, failed=4.1)], [], [room()], NOW)
    assert len(later.starts) == 1
    assert len(plan([wanted(pool=pool)], [], [room()], NOW).starts) == 5
    seconds = [back_off_seconds(failures) for failures in (0, 1, 2, 3, 9, 10, 5000)]
    assert seconds == [0, 1, 2, 4, 256, 300, 300]


def test_a_template_that_fails_again_and_again_is_quarantined() -> None:
    found = plan([wanted(failures=5, failed=1e6, reason="No X.")], some(1), [room()], NOW)
    assert not found.starts
    assert not found.stops  # what it still has is good
    assert found.states["t"].state == "quarantined"
    assert "No X." in found.states["t"].reason


# Claims that wait.


def test_room_is_kept_for_claims_that_wait() -> None:
    queue = wanted("b", pool=Pool(), waiting=2)
    found = plan([wanted("a", pool=Pool(warm=4, surge=4)), queue], [], [room(5)], NOW)
    assert counted(found) == {"a": 3}
    nothing = plan([wanted("a"), queue], [], [room(2)], NOW)
    assert not nothing.starts
    assert nothing.states["a"].state == "full"


def test_the_least_recently_claimed_give_up_their_place() -> None:
    pools = [
        wanted("a", claimed=10.0),
        wanted("b", claimed=500.0),
        wanted("c", pool=Pool(), waiting=1),
    ]
    members = [*some(2, template="a"), *some(2, template="b")]
    found = plan(pools, members, [room(4, taken=4)], NOW)
    assert stopped(found) == {"b-warm-s-1"}
    assert not found.starts
    many = [pools[0], pools[1], wanted("c", pool=Pool(), waiting=3)]
    assert len(plan(many, members, [room(4, taken=4)], NOW).stops) == 3
    more = [pools[0], pools[1], wanted("c", pool=Pool(), waiting=30)]
    assert len(plan(more, members, [room(4, taken=4)], NOW).stops) == 4


def test_a_place_that_is_being_left_is_enough_for_a_claim() -> None:
    pools = [wanted("a"), wanted("c", pool=Pool(), waiting=1)]
    members = [*some(1, "stopping", template="a"), *some(1, template="a")]
    found = plan(pools, members, [room(2, taken=2)], NOW)
    assert not found.stops
    assert not found.starts  # nor does it go to the pool again


def test_a_floor_is_given_up_last() -> None:
    pools = [
        wanted("a", pool=Pool(floor=2), claimed=900.0),
        wanted("b", pool=Pool(warm=1), claimed=1.0),
        wanted("c", pool=Pool(), waiting=1),
    ]
    members = [*some(2, template="a"), *some(1, template="b")]
    assert stopped(plan(pools, members, [room(3, taken=3)], NOW)) == {"b-warm-s-0"}
    rest = [member for member in members if member.template == "a"]
    assert stopped(plan(pools, rest, [room(2, taken=2)], NOW)) == {"a-warm-s-1"}


def test_a_claim_that_no_warm_one_fits_takes_the_place_of_its_own_kind() -> None:
    misfit = wanted(waiting=1, misfits=1)
    assert len(plan([misfit], some(2), [room(2, taken=2)], NOW).stops) == 1
    at_max = wanted(pool=Pool(warm=2, max=2), waiting=1, misfits=1)
    assert len(plan([at_max], some(2), [room(9, taken=2)], NOW).stops) == 1
    leaving = [*some(1), *some(1, "stopping")]
    assert not plan([at_max], leaving, [room(9, taken=2)], NOW).stops
    fitting = wanted(waiting=1)  # it takes a warm one in a moment
    assert not plan([fitting], some(2), [room(2, taken=2)], NOW).stops


def test_what_is_starting_is_for_those_who_wait() -> None:
    pools = [wanted("a"), wanted("c", pool=Pool(warm=1), waiting=1)]
    members = [*some(1, template="a"), *some(1, "warming", template="c")]
    assert not plan(pools, members, [room(2, taken=2)], NOW).stops


def test_nothing_is_given_up_for_a_claim_that_could_not_have_it() -> None:
    big = Wanted("c", Pool(), "s", 50_000, waiting=1)
    found = plan([wanted("a"), big], some(2, template="a"), [room(2, taken=2, free_mib=9000)], NOW)
    assert not found.stops
    at_max = wanted("c", pool=Pool(max=1), waiting=1)
    members = [*some(2, template="a"), *some(1, "live", template="c")]
    assert not plan([wanted("a"), at_max], members, [room(3, taken=3)], NOW).stops


def test_refills_go_to_those_with_claims_first_and_evenly_among_them() -> None:
    pool = Pool(warm=4, surge=4)
    pools = [
        wanted("a", pool=pool),
        wanted("b", pool=pool, claimed=5.0),
        wanted("c", pool=pool, claimed=300.0),
    ]
    assert counted(plan(pools, [], [room(6)], NOW)) == {"b": 3, "c": 3}
    assert counted(plan(pools, [], [room(9)], NOW)) == {"a": 1, "b": 4, "c": 4}
    emptier_first = plan(pools, some(2, template="b", node="n9"), [room(3)], NOW)
    assert counted(emptier_first) == {"b": 1, "c": 2} or counted(emptier_first) == {"c": 3}


# An hour of everything at once.


@pytest.mark.parametrize("seed", range(4))
def test_an_hour_of_churn_breaks_no_rule(seed: int) -> None:
    rates = Rates(live_seconds=20, failures=0.1, drains=0.02, changes=0.01)
    memory = None if seed % 2 else MEMORY_MIB * 6.5
    churned = fleet(seed, nodes=8, slots=8, templates=6, warm=6, rates=rates, memory_mib=memory)
    starts = stops = 0
    for step in range(1800):
        claims = (0.3, 1.5, 4.0)[step // 100 % 3]  # from few to more than there is room for
        churned.rates = replace(rates, claims=claims)
        before = dict(churned.members)
        planned = churned.step(2)
        starts, stops = starts + len(planned.starts), stops + len(planned.stops)
        _check(churned, before, planned)
    assert starts > 200
    assert stops > 50
    assert churned.hits > 200
    _check_rest(churned)


def _check(churned: Fleet, before: dict[str, Member], planned: Plan) -> None:
    """``before`` is as it was before the step, the fleet as it is with the plan done."""
    assert len({stop.id for stop in planned.stops}) == len(planned.stops)
    for stop in planned.stops:
        assert churned.members[stop.id].state == "stopping"
        was = before.get(stop.id)
        assert was is None or was.state in ("warm", "warming"), f"{stop} was {was}"
    started = Counter(start.template for start in planned.starts)
    every = Counter(member.template for member in churned.members.values())
    warming = Counter(m.template for m in churned.members.values() if m.state == "warming")
    for name, count in started.items():
        one = churned.wanted[name]
        assert one.failures < 5
        assert one.pool.max is None or every[name] <= one.pool.max
        assert warming[name] <= one.pool.surge
        assert planned.states[name].target > 0
        assert count <= planned.states[name].target
    on = Counter(member.node for member in churned.members.values())
    for node in {start.node for start in planned.starts}:
        (where,) = (room for room in churned.rooms if room.id == node)
        assert not where.draining
        assert on[node] <= where.slots
        assert where.free_mib is None or on[node] * MEMORY_MIB <= where.free_mib


def _check_rest(churned: Fleet) -> None:
    """Once nothing happens any more, the plans come to an end, with every pool at its best."""
    churned.be_quiet()
    churned.rooms = [Room(one.id, one.slots, free_mib=one.free_mib) for one in churned.rooms]
    for one in list(churned.wanted.values()):
        ageless = one.pool.model_copy(update={"max_age_seconds": 100 * HOUR})
        churned.wanted[one.template] = replace(one, failures=0, pool=ageless)
    for _ in range(200):  # longer than any of them stays busy
        planned = churned.step(1)
    assert not planned.starts
    assert not planned.stops
    assert {status.state for status in planned.states.values()} <= {"filled", "idle", "full"}
    assert churned.look() == planned


def test_memory_is_flat_over_an_hour() -> None:
    churned = fleet(7, nodes=20, slots=8, templates=6, warm=8)
    tracemalloc.start()
    try:
        held = []
        for _ in range(4):
            for _ in range(450):
                churned.step(2)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(held[1:]) < held[0] * 1.3 + 100_000, held
