"""What is applied and what the backend makes, against the schemas that Kubernetes publishes: of the
oldest version that the docs name, and of the newest that there is. Unknown fields are refused.
"""

from __future__ import annotations

import kubernetes_validate
import pytest

from tests.deploy.manifests import DEPLOY, Spec, documents, pods
from workspace.backends import manifests
from workspace.backends.kube.options import Options, Place
from workspace.models import Template

VERSIONS = ["1.25", kubernetes_validate.latest_version()]
# KubeRay's own, for which there is no schema to be had: its pods are checked all the same.
ELSEWHERE = {"RayCluster"}
DEPLOYED = {
    f"{each['kind']}/{each['metadata']['name']}": each
    for variant in ("kuberay", "daemonset")
    for each in documents(DEPLOY / variant)
}
OPTIONS = Options(
    image="x", pull_secret="registry", storage_class="fast", seccomp="Localhost:carrel-desktop.json"
)
PLACE = Place(node="node-a", pod="worker", pod_uid="1", pod_ip="10.0.0.1", namespace="carrel")
OUT = manifests.WayOut(port=21000, authority="PEM", bundle="PEM")
SANDBOX = manifests.Sandbox("a1b2c3d4e5", Template(name="tests"), "carrel", "s", volume="v1")
OWNER = manifests.owner("v1", "Pod", "x", "1")
MADE = {
    "policy": manifests.network_policy(SANDBOX, OPTIONS, PLACE, OUT),
    "policy without a pod": manifests.network_policy(
        SANDBOX, OPTIONS, Place(pod_ip="10.0.0.1"), OUT
    ),
    "secret": manifests.secret(SANDBOX, OPTIONS, PLACE, "{}", OUT, OWNER),
    "claim": manifests.claim(SANDBOX, OPTIONS),
    "pod": manifests.pod(SANDBOX, OPTIONS, PLACE, OUT, OWNER),
    "probe": manifests.probe_pod("probe", OPTIONS, PLACE, "true"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "name", [name for name, it in DEPLOYED.items() if it["kind"] not in ELSEWHERE]
)
def test_what_is_deployed(name: str, version: str) -> None:
    kubernetes_validate.validate(DEPLOYED[name], version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MADE)
def test_what_the_backend_makes(name: str, version: str) -> None:
    kubernetes_validate.validate(MADE[name], version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_of_what_has_no_schema(version: str) -> None:
    templates = [
        template
        for each in DEPLOYED.values()
        if each["kind"] in ELSEWHERE
        for _, template in pods([each])
    ]
    assert len(templates) == 2
    for template in templates:
        kubernetes_validate.validate(as_pod(template), version, strict=True)


def as_pod(template: Spec) -> Spec:
    metadata = {"name": "x"} | template["metadata"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_a_field_that_there_is_not_is_refused() -> None:
    wrong = MADE["pod"] | {"spec": MADE["pod"]["spec"] | {"runtimeClass": "kata-clh"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="runtimeClass"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)
