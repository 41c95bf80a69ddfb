"""How many desktops a node carries, and what each takes."""

from __future__ import annotations

import pytest

from ray_cluster import capacity
from ray_cluster.capacity import MEMORY, PLACES, PROCESSORS
from ray_cluster.node import Machine, machine
from workspace.backends import footprint
from workspace.models import Template

LAPTOP = Machine(cpus=8, total_mib=16384, memory_mib=16384, memory_free_mib=9000)
# A pod of 6 GiB on a node of 256.
WORKER = Machine(cpus=64, total_mib=262144, memory_mib=6144, memory_free_mib=5000)
KATA = {"options": {"image": "x"}}


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (capacity.of(LAPTOP), {PLACES: 20, MEMORY: 15360}),
        (capacity.of(LAPTOP, overcommit=3), {PLACES: 60, MEMORY: 46080}),
        (capacity.of(LAPTOP, desktops=5), {PLACES: 5, MEMORY: 15360}),
        (capacity.of(LAPTOP, memory_mib=4000), {PLACES: 5, MEMORY: 4000}),
        (capacity.of(LAPTOP, desktops=0), {}),
        # As many as there is room for actors in the worker's own pod.
        (
            capacity.of(WORKER, for_pods=True),
            {PLACES: 69, MEMORY: 249036, PROCESSORS: 63500},
        ),
        (capacity.of(WORKER), {PLACES: 6, MEMORY: 5120}),
    ],
)
def test_what_a_node_offers(offered: dict[str, float], expected: dict[str, float]) -> None:
    assert offered == expected


@pytest.mark.parametrize(
    ("backend", "settings", "expected"),
    [
        ("fake", {}, {PLACES: 1}),
        ("bubblewrap", {}, {PLACES: 1, MEMORY: 2048 + 60}),
        ("kata", KATA, {PLACES: 1, MEMORY: 2048 + 130, PROCESSORS: 2 * 250 + 250}),
        (
            "kata",
            {"options": {"image": "x", "runtime_class": "kata-qemu"}},
            {PLACES: 1, MEMORY: 2048 + 320, PROCESSORS: 750},
        ),
    ],
)
def test_what_a_desktop_takes(
    backend: str, settings: dict[str, object], expected: dict[str, float]
) -> None:
    template = Template(name="t", backend=backend, memory_mib=2048, cpus=2)
    assert capacity.needed(footprint.of(template, settings)) == expected


def test_what_a_node_does_not_tell_of_is_not_counted_there() -> None:
    needs = {PLACES: 1, MEMORY: 4000}
    assert capacity.asked_of({PLACES: 3}, needs) == {PLACES: 1}
    assert capacity.has_room({PLACES: 3}, {PLACES: 2}, needs)
    assert not capacity.has_room({PLACES: 3}, {PLACES: 3}, needs)
    assert not capacity.has_room({MEMORY: 9000}, {}, needs)


def test_this_machine_offers_something() -> None:
    own = machine()
    assert own["total_mib"] >= own["memory_mib"] > 0
    assert capacity.of(own)[PLACES] >= 1
