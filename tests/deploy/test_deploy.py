"""The manifests fit together, and allow what the backend asks and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections import Counter

import pytest

from controller.settings import Settings
from tests.deploy.manifests import DEPLOY, Spec, documents, pods, rules
from workspace import settings
from workspace.backends import manifests, seccomp
from workspace.backends.kube import rights
from workspace.backends.kube.options import Options, Place

VARIANTS = ["kuberay", "daemonset"]
VERSIONS = {
    "Namespace": "v1",
    "ServiceAccount": "v1",
    "ConfigMap": "v1",
    "Service": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Ingress": "networking.k8s.io/v1",
    "Deployment": "apps/v1",
    "DaemonSet": "apps/v1",
    "RayCluster": "ray.io/v1",
}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
SECRETS = {"api-key", "secret", "secrets-key", "database-url", "ray-token"}


@pytest.fixture(params=VARIANTS)
def objects(request: pytest.FixtureRequest) -> list[Spec]:
    return documents(DEPLOY / request.param)


def config(objects: list[Spec]) -> dict[str, str]:
    [found] = [each for each in objects if each["kind"] == "ConfigMap"]
    return dict(found["data"])


def test_the_default_is_kuberay() -> None:
    assert documents(DEPLOY) == documents(DEPLOY / "kuberay")


def test_each_object_is_one_that_there_is(objects: list[Spec]) -> None:
    for each in objects:
        assert each["apiVersion"] == VERSIONS[each["kind"]], each["metadata"]
    keys = Counter(
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects
    )
    assert max(keys.values()) == 1
    spaces = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    for each in objects:
        where = each["metadata"].get("namespace")
        assert (where is None) == (each["kind"] in CLUSTER_WIDE), each["metadata"]
        assert where is None or where in spaces


def test_roles_allow_what_is_asked_and_nothing_else(objects: list[Spec]) -> None:
    desktops = config(objects)["CARREL_KATA_NAMESPACE"]
    given = Counter(
        (rule["namespace"], group, resource, verb)
        for rule in rules(objects, "carrel", "carrel")
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )
    asked = Counter(
        (desktops if right.is_namespaced else "", right.group, right.resource, verb)
        for right in (*rights.RUNNING, *rights.LOOKING)
        for verb in right.verbs
    )
    assert given == asked
    kinds = {each["kind"] for each in objects if "Role" in each["kind"]}
    assert kinds == {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def test_names_that_name_each_other(objects: list[Spec]) -> None:
    """Accounts, maps, keys of the Secret, volumes, ports, services."""
    accounts = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    maps = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    used = set()
    for name, template in pods(objects):
        spec = template["spec"]
        assert spec["serviceAccountName"] in accounts, name
        volumes = {each["name"] for each in spec.get("volumes", ())}
        for container in spec["containers"]:
            assert {each["configMapRef"]["name"] for each in container["envFrom"]} <= maps
            assert {each["name"] for each in container["volumeMounts"]} == volumes, name
            for variable in container["env"]:
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                if source is not None:
                    assert source["name"] == "carrel"
                    used.add(source["key"])
    assert used == SECRETS
    labels = [template["metadata"]["labels"] for _, template in pods(objects)]
    for each in objects:
        if each["kind"] == "Service":
            assert any(each["spec"]["selector"].items() <= known.items() for known in labels)
        if each["kind"] in ("Deployment", "DaemonSet"):
            wanted = each["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    services = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Service"}
    [ingress] = [each for each in objects if each["kind"] == "Ingress"]
    for rule in ingress["spec"]["rules"]:
        [path] = rule["http"]["paths"]
        to = path["backend"]["service"]
        ports = {each["name"] for each in services[to["name"]]["spec"]["ports"]}
        assert to["port"]["name"] in ports
    head = config(objects)["CARREL_RAY_ADDRESS"].partition(".")[0]
    # KubeRay makes a service of that name itself.
    clusters = {f"{e['metadata']['name']}-head-svc" for e in objects if e["kind"] == "RayCluster"}
    assert head in services.keys() | clusters


def test_the_secret_that_the_docs_make() -> None:
    text = (DEPLOY.parent / "docs" / "kubernetes.md").read_text()
    assert set(re.findall(r"--from-literal=([a-z-]+)=", text)) == SECRETS


def test_settings_are_ones_that_there_are(
    objects: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("CARREL_"):
            monkeypatch.delenv(name)
    given = config(objects)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    options = Options.model_validate(settings.kata())
    assert options.image == given["CARREL_KATA_IMAGE"]
    own = {name.removeprefix("CARREL_").lower() for name in given if name.startswith("CARREL_")}
    fields = {name for name in own if not name.startswith("kata_")}
    assert fields <= set(Settings.model_fields)
    assert Settings().backend == "kata"


def test_workers_say_where_they_are(objects: list[Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        name: template["spec"]["containers"][0]
        for name, template in pods(objects)
        if template["metadata"]["labels"].get("carrel.dev/runs-desktops") == "true"
    }
    assert len(found) == 1
    for container in found.values():
        paths = {
            each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"]
            for each in container["env"]
            if "fieldRef" in each.get("valueFrom", {})
        }
        told = {
            "spec.nodeName": "node-a",
            "metadata.name": "worker-1",
            "metadata.uid": "1-2",
            "status.podIP": "10.0.0.7",
            "metadata.namespace": "carrel",
        }
        for name, path in paths.items():
            monkeypatch.setenv(name, told[path])
        place = Place.model_validate(settings.kata_place())
        assert place == Place(
            node="node-a", pod="worker-1", pod_uid="1-2", pod_ip="10.0.0.7", namespace="carrel"
        )


def test_who_reaches_whom(objects: list[Spec]) -> None:
    """The labels that desktops' policies go by are those of controllers and Ray, and of no more."""
    given = config(objects)
    reaching = {
        name: template["metadata"]["labels"].get(manifests.REACHES)
        for name, template in pods(objects)
    }
    assert set(reaching.values()) == {"true"}
    policies = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"]
        for each in objects
        if each["kind"] == "NetworkPolicy"
    }
    closed = policies[given["CARREL_KATA_NAMESPACE"], "closed"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    [rule] = policies["carrel", "ways-out"]["ingress"]
    [ports] = rule["ports"]
    assert f"{ports['port']}-{ports['endPort']}" == given["CARREL_KATA_PROXY_PORTS"]
    [source] = rule["from"]
    assert source["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": given["CARREL_KATA_NAMESPACE"]
    }


def test_no_pod_has_more_than_it_needs(objects: list[Spec]) -> None:
    for name, template in pods(objects):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert all("hostPath" not in each for each in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_every_setting_is_in_the_table() -> None:
    text = (DEPLOY.parent / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", text, re.MULTILINE)
    named = {name.lower() for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    assert named == set(Options.model_fields)


def test_the_seccomp_profile_is_the_filter_of_desktops() -> None:
    """What a kubelet reads where a desktop is no virtual machine."""
    given = json.loads((DEPLOY / "seccomp" / "carrel-desktop.json").read_text())
    assert given == seccomp.profile()
    for call in given["syscalls"]:
        # runc takes several conditions on one argument for alternatives.
        indices = [condition["index"] for condition in call["args"]]
        assert len(indices) == len(set(indices))
