"""What the roles of the manifests allow on a real API server, and what they do not.

The other tests of this folder run with them, so they are enough; here is that they are no more.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.kubernetes.cluster import DESKTOPS, Cluster, path
from tests.kubernetes.control import URL
from workspace.backends.kube import rights

RBAC = "rbac.authorization.k8s.io/v1"
# What every service account of any cluster may: ask what it may.
OF_EVERYBODY = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
}


@pytest.fixture(scope="module")
def account(cluster: Cluster) -> Iterator[httpx.Client]:
    """The service account of controllers and of Ray's workers."""
    context = ssl.create_default_context(cafile=str(cluster.control.authority.certificate))
    headers = {"Authorization": f"Bearer {cluster.token('carrel', 'carrel')}"}
    with httpx.Client(
        base_url=URL, verify=context, headers=headers, trust_env=False, timeout=20
    ) as client:
        yield client


def allowed(account: httpx.Client, namespace: str) -> set[tuple[str, str, str]]:
    """Group, resource and verb of all that it may in a namespace, in the API server's own words."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = account.post(path("authorization.k8s.io/v1", "SelfSubjectRulesReview"), json=review)
    told = answer.raise_for_status().json()["status"]
    assert told["incomplete"] is False
    return {
        (group, resource, verb)
        for rule in told["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    } - OF_EVERYBODY


def wanted(*, is_in_namespace: bool) -> set[tuple[str, str, str]]:
    return {
        (right.group, right.resource, verb)
        for right in (*rights.RUNNING, *rights.LOOKING)
        for verb in right.verbs
        if is_in_namespace or not right.is_namespaced
    }


def test_the_roles_are_what_is_asked_and_nothing_else(account: httpx.Client) -> None:
    assert allowed(account, DESKTOPS) == wanted(is_in_namespace=True)
    for namespace in ("carrel", "default", "kube-system"):
        assert allowed(account, namespace) == wanted(is_in_namespace=False)


A_POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "mine"},
    "spec": {"containers": [{"name": "x", "image": "x"}]},
}
A_BINDING: dict[str, Any] = {
    "apiVersion": RBAC,
    "kind": "RoleBinding",
    "metadata": {"name": "mine"},
    "roleRef": {"apiGroup": RBAC.partition("/")[0], "kind": "ClusterRole", "name": "admin"},
    "subjects": [{"kind": "ServiceAccount", "name": "carrel", "namespace": "carrel"}],
}
MERGE = "application/merge-patch+json"


@pytest.mark.parametrize(
    ("method", "where", "body"),
    [
        ("GET", path("v1", "Secret", DESKTOPS), None),
        ("GET", path("v1", "Secret", DESKTOPS, "desktop-x"), None),
        ("DELETE", path("v1", "Secret", DESKTOPS, "desktop-x"), None),
        ("GET", path("v1", "Secret", "carrel"), None),
        ("GET", path("v1", "ConfigMap", "carrel"), None),
        ("GET", path("v1", "Secret"), None),
        ("GET", path("v1", "Pod"), None),
        ("POST", path("v1", "Pod", "carrel"), A_POD),
        ("POST", path("v1", "Pod", "kube-system"), A_POD),
        ("PUT", path("v1", "Pod", DESKTOPS, "desktop-x"), A_POD),
        ("DELETE", path("v1", "Pod", DESKTOPS), None),
        ("POST", path("v1", "Pod", DESKTOPS, "desktop-x") + "/exec?command=id", None),
        ("POST", path("v1", "Pod", DESKTOPS, "desktop-x") + "/portforward?ports=7000", None),
        ("PATCH", path("networking.k8s.io/v1", "NetworkPolicy", DESKTOPS, "closed"), {}),
        ("POST", path(RBAC, "RoleBinding", DESKTOPS), A_BINDING),
        ("POST", path("v1", "ServiceAccount", "carrel", "carrel") + "/token", {}),
        ("PATCH", path("v1", "Node", "", "node1"), {"spec": {"unschedulable": True}}),
        ("DELETE", path("v1", "Node", "", "node1"), None),
        ("DELETE", path("v1", "Namespace", "", DESKTOPS), None),
        ("GET", path("v1", "PersistentVolume"), None),
        ("GET", path("v1", "PersistentVolumeClaim", DESKTOPS), None),
        ("DELETE", path("node.k8s.io/v1", "RuntimeClass", "", "kata-clh"), None),
    ],
)
def test_what_is_refused(account: httpx.Client, method: str, where: str, body: Any) -> None:
    kind = MERGE if method == "PATCH" else "application/json"
    answer = account.request(method, where, json=body, headers={"Content-Type": kind})
    assert answer.status_code == 403, answer.text
    assert "system:serviceaccount:carrel:carrel" in answer.json()["message"]


def test_the_account_of_desktops_may_nothing(cluster: Cluster) -> None:
    """It is in no pod either: no token is mounted."""
    context = ssl.create_default_context(cafile=str(cluster.control.authority.certificate))
    headers = {"Authorization": f"Bearer {cluster.token('default', DESKTOPS)}"}
    with httpx.Client(base_url=URL, verify=context, headers=headers, trust_env=False) as client:
        for namespace in (DESKTOPS, "carrel", "default"):
            assert allowed(client, namespace) == set()


def test_a_token_that_is_none(cluster: Cluster) -> None:
    context = ssl.create_default_context(cafile=str(cluster.control.authority.certificate))
    with httpx.Client(base_url=URL, verify=context, trust_env=False) as client:
        client.headers["Authorization"] = "Bearer x"
        assert client.get(path("v1", "Pod", DESKTOPS)).status_code == 401
        del client.headers["Authorization"]
        assert client.get(path("v1", "Pod", DESKTOPS)).status_code == 403
