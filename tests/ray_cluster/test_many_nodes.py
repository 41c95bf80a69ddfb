"""Four nodes, each a host of its own: even, packed, by labels; killed, stopped and cut off.

What happens there is in ``many_nodes``; it runs once for all of these.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ray_cluster.many_nodes import SLOTS
from tests.ray_cluster.test_nodes import run

NAMES = {"n1", "n2", "n3", "n4"}
Facts = dict[str, Any]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def told() -> dict[str, Facts]:
    lines, errors = run("many_nodes", seconds=500)
    print(errors)
    found = {}
    for line in lines:
        facts = json.loads(line)
        name = facts.pop("name")
        print(name, facts)
        found[name] = facts
    return found


def test_they_are_spread_evenly_and_no_place_is_given_twice(told: dict[str, Facts]) -> None:
    facts = told["even"]
    assert facts["where"] == dict.fromkeys(NAMES, SLOTS)
    assert len(facts["late"]) == 2
    assert all("All 24 places" in each for each in facts["late"])
    assert facts["places"] == dict.fromkeys(NAMES, SLOTS)
    assert facts["labels"]["n1"] == {"zone": "a"}
    assert facts["memory"] is True


def test_of_two_controllers_none_gets_the_place_of_the_other(told: dict[str, Facts]) -> None:
    assert told["two controllers"]["where"] == dict.fromkeys(NAMES, SLOTS) | {"NoCapacity": 2}


def test_packed_they_fill_a_node_before_the_next(told: dict[str, Facts]) -> None:
    assert told["packed"] == {"each": [2, SLOTS]}


def test_they_are_where_their_labels_say_or_nowhere_at_once(told: dict[str, Facts]) -> None:
    facts = told["labelled"]
    assert facts["where"] == {"n2": 2, "n4": 2}
    assert facts["impossible"] == ["BackendUnavailable"]
    assert facts["at once"] is True
    assert facts["beside drained"] == {"n2": 1, "n4": 1}


def test_what_fails_for_a_nodes_own_reason_is_started_elsewhere(told: dict[str, Facts]) -> None:
    facts = told["suspects"]
    assert sum(facts["first"].values()) == 4
    assert set(facts["first"]) <= NAMES - {"n1"}
    assert facts["told"] == {"n1": "no bwrap here"}
    assert sum(facts["second"].values()) == 4
    assert set(facts["second"]) <= NAMES - {"n1"}, "it is avoided for a while"
    assert set(facts["full"]) <= NAMES - {"n2"}, "its own scheduler knew of no room"
    # What is a template's fault is told, and no node is blamed.
    assert facts["bad"] == {"StartFailed": 1}
    assert set(facts["suspects"]) <= {"n1"}
    [everywhere] = facts["everywhere"]
    assert everywhere.startswith("no bwrap at all")
    assert facts["left"] == {}


@pytest.mark.parametrize(("how", "left"), [("kill", 3), ("stop", 2), ("cut", 1)])
def test_a_node_that_is_lost_takes_its_desktops_and_no_others(
    told: dict[str, Facts], how: str, left: int
) -> None:
    facts = told[how]
    assert facts["code"] == "node_lost"
    # What was placed there before anybody knew came up elsewhere, once.
    assert sum(facts["meanwhile"].values()) == 4
    assert len(facts["meanwhile"]) <= left
    assert set(facts["meanwhile"]) <= NAMES
    assert facts["names"] == 4
    # Its desktops answer until they are given up: nothing of them goes through Ray.
    assert facts["answers"] is (True if how == "stop" else None)


def test_nothing_is_left_of_any(told: dict[str, Facts]) -> None:
    assert told["left"] == {"folders": []}
