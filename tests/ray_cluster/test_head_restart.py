"""The head of Ray is killed and comes back: desktops live on, and the controller serves."""

from __future__ import annotations

import json

import pytest

from tests.ray_cluster.test_nodes import run


@pytest.mark.parametrize("storage", ["redis", "rocksdb"])
@pytest.mark.timeout(300)
def test_what_the_head_knew_outlives_it(storage: str) -> None:
    lines, errors = run("head_restart", storage, seconds=250)
    assert len(lines) == 1, errors
    facts = json.loads(lines[0])
    took = facts.pop("took")
    print(f"a new desktop {took} s after the head was back")
    assert facts == {
        "seen": [200, 200, 200],  # of a desktop: as it dies, when it is away, once it is back
        "away": "unavailable",  # a claim meanwhile
        "new": 201,
        "same actor": True,
        "same controller": True,
        "lives": "ready",
        "states": ["ready", "ready"],
    }, errors
