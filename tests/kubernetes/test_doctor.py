"""`carrel doctor --cluster` says honestly what this cluster is: one without virtual machines, whose
network enforces no policy.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.cluster import DESKTOPS, Cluster, path
from tests.kubernetes.conftest import GONE_SECONDS, IMAGE
from tests.kubernetes.namespaces import ADDRESS
from tests.kubernetes.node import NODE
from tests.waiting import until

RBAC = "rbac.authorization.k8s.io/v1"


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster: Cluster) -> Iterator[None]:
    yield
    until(lambda: cluster.names("Pod") == [], GONE_SECONDS)


def doctor(cluster: Cluster, home: Path, **settings: str) -> tuple[int, dict[str, dict[str, str]]]:
    given = {
        "PATH": os.environ["PATH"],
        "CARREL_HOME": str(home),
        "CARREL_KATA_IMAGE": IMAGE,
        "CARREL_KATA_PULL_POLICY": "Never",
        "CARREL_KATA_KUBECONFIG": cluster.kubeconfig("doctor"),
        "CARREL_KATA_NODE": NODE,
        "CARREL_KATA_POD_IP": ADDRESS,
    }
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", "doctor", "--cluster", "--json"],
        env=given | settings,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.stdout, done.stderr
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)}


def failing(found: dict[str, dict[str, str]]) -> list[str]:
    return [name for name, each in found.items() if not each["ok"]]


def test_what_passes_and_what_does_not(cluster: Cluster, tmp_path: Path) -> None:
    code, found = doctor(cluster, tmp_path)
    assert code == 1
    assert list(found) == [
        "Kubernetes API", "namespace", "rights", "RuntimeClass", "nodes", "NetworkPolicy",
        "/dev/shm", "probe pod", "own kernel", "shut in",
    ]  # fmt: skip
    assert "v1.20.2" in found["Kubernetes API"]["detail"]
    assert "kata-clh" in found["RuntimeClass"]["detail"]
    assert found["nodes"]["detail"].startswith("1 can run desktops.")
    assert f"runs on node {NODE}" in found["probe pod"]["detail"]
    # What it cannot have: a kernel of its own, and a network that is closed.
    assert failing(found) == ["own kernel", "shut in"]
    assert platform.release() in found["own kernel"]["detail"]
    assert "not Kata" in found["own kernel"]["mend"]
    assert "enforces no NetworkPolicy" in found["shut in"]["detail"]
    assert all(found[name]["mend"] for name in failing(found))


def test_what_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    """A role, the closed namespace, the handler on the node."""
    where = path(RBAC, "RoleBinding", DESKTOPS, "carrel-desktops")
    binding = cluster.get("RoleBinding", "carrel-desktops", DESKTOPS, RBAC)
    closed = cluster.get("NetworkPolicy", "closed", DESKTOPS, "networking.k8s.io/v1")
    cluster.runtime_class("kata-nowhere", "nowhere")
    cluster.admin.delete(where).raise_for_status()
    try:
        _, found = doctor(cluster, tmp_path)
        assert "lacks the right to list pods" in found["namespace"]["detail"]
        assert "create pods" in found["rights"]["detail"]
        assert "lacks the right to create pods" in found["probe pod"]["detail"]
        assert "kubectl apply -k deploy/" in found["rights"]["mend"]
    finally:
        cluster.apply(bare(binding)).raise_for_status()
    cluster.admin.delete(path("networking.k8s.io/v1", "NetworkPolicy", DESKTOPS, "closed"))
    try:
        _, found = doctor(cluster, tmp_path, CARREL_KATA_RUNTIME_CLASS="kata-nowhere")
        assert failing(found) == ["NetworkPolicy", "probe pod"]
        assert "no handler for the RuntimeClass 'kata-nowhere'" in found["probe pod"]["detail"]
    finally:
        cluster.apply(bare(closed)).raise_for_status()
        cluster.admin.delete(path("node.k8s.io/v1", "RuntimeClass", "", "kata-nowhere"))


def bare(spec: dict[str, object]) -> dict[str, object]:
    """As it was applied."""
    metadata = spec["metadata"]
    assert isinstance(metadata, dict)
    kept = {key: metadata[key] for key in ("name", "namespace")}
    return {key: value for key, value in spec.items() if key != "status"} | {"metadata": kept}


def test_an_image_that_is_not_there(cluster: Cluster, tmp_path: Path) -> None:
    code, found = doctor(cluster, tmp_path, CARREL_KATA_IMAGE="localhost/nothing:1")
    assert code == 1
    assert failing(found) == ["probe pod"]
    assert "localhost/nothing:1 cannot be used" in found["probe pod"]["detail"]


def test_an_api_that_is_not_there(cluster: Cluster, tmp_path: Path) -> None:
    nowhere = str(cluster.control.kubeconfig("nowhere", token="x", url="https://127.0.0.1:1"))
    code, found = doctor(cluster, tmp_path, CARREL_KATA_KUBECONFIG=nowhere)
    assert code == 1
    assert list(found) == ["Kubernetes API"]
    assert "cannot be reached" in found["Kubernetes API"]["detail"]
