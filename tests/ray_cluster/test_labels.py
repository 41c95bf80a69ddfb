"""What a template wants of the labels of its nodes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ray_cluster.labels import fits
from workspace.models import Template


@pytest.mark.parametrize(
    ("wanted", "labels", "does"),
    [
        ({}, {}, True),
        ({}, {"zone": "a"}, True),
        ({"zone": "a"}, {"zone": "a", "kvm": "yes"}, True),
        ({"zone": "a"}, {"zone": "b"}, False),
        ({"zone": "a"}, {}, False),
        ({"zone": "in(a,b)"}, {"zone": "b"}, True),
        ({"zone": "in(a,b)"}, {"zone": "c"}, False),
        ({"zone": "!a"}, {"zone": "a"}, False),
        ({"zone": "!a"}, {}, True),
        ({"zone": "!in(a,b)"}, {"zone": "b"}, False),
        ({"zone": "!in(a,b)"}, {"zone": "c"}, True),
        ({"zone": "a", "kvm": "yes"}, {"zone": "a"}, False),
        ({"ray.io/accelerator-type": "A100"}, {"ray.io/accelerator-type": "A100"}, True),
    ],
)
def test_which_nodes_do(wanted: dict[str, str], labels: dict[str, str], does: bool) -> None:
    assert Template(name="t", node_labels=wanted).node_labels == wanted
    assert fits(wanted, labels) is does


@pytest.mark.parametrize(
    "wrong",
    [{"": "a"}, {"zone": ""}, {"zone": "a b"}, {"zone": "in()"}, {"zone": "in(a,)"},
     {"zone": "!!a"}, {"zo ne": "a"}, {"zone": "a" * 64}, {"/zone": "a"}, {"zone": "a\n"},
     {f"l{number}": "a" for number in range(17)}],
)  # fmt: skip
def test_what_is_no_wish(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Template(name="t", node_labels=wrong)
