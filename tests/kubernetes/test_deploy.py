"""The manifests applied to a real API server, which says what it does not know of them.

It is an old one, so all that it refuses is listed here; what is newer is checked against the
schemas that Kubernetes publishes (``tests/deploy/test_schemas.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.manifests import DEPLOY, documents
from tests.kubernetes.cluster import Cluster, path
from tests.kubernetes.node import KATA, NODE
from tests.waiting import until

OBJECTS = {
    f"{each['kind']}/{each['metadata'].get('namespace', '')}/{each['metadata']['name']}": each
    for variant in ("kuberay", "daemonset")
    for each in documents(DEPLOY / variant)
}
# KubeRay's own: the cluster has not its definition.
UNKNOWN = {"RayCluster/carrel/carrel"}
# What Kubernetes 1.20 has not yet: where, and its name.
NEWER = {"NetworkPolicy/carrel/ways-out": ("spec.ingress.0.ports.0", "endPort")}


@pytest.mark.parametrize("name", [name for name in OBJECTS if name not in UNKNOWN])
def test_an_object_is_applied(cluster: Cluster, name: str) -> None:
    """By server-side apply, twice: the second changes nothing."""
    wanted = copy.deepcopy(OBJECTS[name])
    if name in NEWER:
        where, field = NEWER[name]
        refused = cluster.apply(wanted)
        assert refused.status_code == 500
        assert f"{field}: field not declared in schema" in refused.json()["message"]
        inside = wanted
        for step in where.split("."):
            inside = inside[int(step) if step.isdecimal() else step]
        del inside[field]
    first = cluster.apply(wanted)
    assert first.status_code in (200, 201), first.text
    made = first.json()
    assert list(lost(wanted, made)) == []
    second = cluster.apply(wanted).json()["metadata"]
    assert (
        second["generation" if "generation" in second else "uid"]
        == made["metadata"]["generation" if "generation" in second else "uid"]
    )


def lost(wanted: Any, made: Any, where: str = "") -> Iterator[str]:
    """What was applied and is not there, or is otherwise."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            inside = f"{where}.{key}".lstrip(".")
            if not isinstance(made, dict) or key not in made:
                if value not in ({}, []):
                    yield inside
                continue
            yield from lost(value, made[key], inside)
    elif isinstance(wanted, list):
        for index, each in enumerate(wanted):
            there = made[index] if isinstance(made, list) and index < len(made) else None
            yield from lost(each, there, f"{where}.{index}")
    elif wanted != made and quantity(wanted) != quantity(made):
        yield where


def quantity(text: Any) -> float | None:
    """``500m`` and ``0.5`` are one amount."""
    units = {"m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}
    for unit, factor in units.items():
        if str(text).endswith(unit):
            return float(str(text)[: -len(unit)]) * factor
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def test_what_is_not_known(cluster: Cluster) -> None:
    for name in UNKNOWN:
        assert cluster.apply(OBJECTS[name]).status_code == 404


def test_workers_go_to_the_nodes_that_run_desktops(cluster: Cluster) -> None:
    """A DaemonSet makes one on each; here its image is not there, so it comes no further."""
    assert cluster.get("Node", NODE, "")["metadata"]["labels"].items() >= KATA.items()
    cluster.apply(OBJECTS["DaemonSet/carrel/carrel-nodes"]).raise_for_status()

    def placed() -> bool:
        pods = cluster.objects("Pod", "carrel")
        return [
            each["spec"].get("nodeName")
            for each in pods
            if each["metadata"]["labels"].get("carrel.dev/runs-desktops") == "true"
        ] == [NODE]

    until(placed, 20)


@pytest.fixture(scope="module", autouse=True)
def _clean(cluster: Cluster) -> Iterator[None]:
    yield
    for name, each in OBJECTS.items():
        if each["kind"] in ("Deployment", "DaemonSet", "Service", "Ingress"):
            where = path(each["apiVersion"], each["kind"], "carrel", each["metadata"]["name"])
            cluster.admin.delete(where, params={"propagationPolicy": "Background"})
            assert name
    until(lambda: cluster.names("Pod", "carrel") == [], 60)
