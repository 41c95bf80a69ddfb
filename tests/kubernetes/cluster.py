"""A whole cluster of this machine: a control plane, a node, and Carrel's manifests applied."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.manifests import DEPLOY, documents
from tests.kubernetes.control import URL, ControlPlane
from tests.kubernetes.images import pause_archive
from tests.kubernetes.node import HANDLER, KATA, Node
from tests.waiting import until

Spec = dict[str, Any]
DESKTOPS = "carrel-desktops"
# Of the manifests: what desktops need, and not Carrel's own pods.
_NEEDED = {
    "Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding",
    "NetworkPolicy",
}  # fmt: skip
_PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "RuntimeClass": "runtimeclasses",
    "Ingress": "ingresses",
}


class Cluster:
    """``admin`` may do all in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = ControlPlane(folder)
        self.node = Node(self.control, folder, DEPLOY / "seccomp")
        self.admin = self.control.admin()

    def apply(self, spec: Spec) -> httpx.Response:
        """Server-side apply, as `kubectl apply --server-side` does it."""
        metadata = spec["metadata"]
        return self.admin.patch(
            path(spec["apiVersion"], spec["kind"], metadata.get("namespace", ""), metadata["name"]),
            params={"fieldManager": "tests", "force": "true"},
            json=spec,
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def get(self, kind: str, name: str, namespace: str = DESKTOPS, api: str = "v1") -> Spec:
        answer = self.admin.get(path(api, kind, namespace, name))
        return dict(answer.raise_for_status().json())

    def objects(self, kind: str, namespace: str = DESKTOPS, api: str = "v1") -> list[Spec]:
        answer = self.admin.get(path(api, kind, namespace))
        return list(answer.raise_for_status().json()["items"])

    def names(self, kind: str, namespace: str = DESKTOPS, api: str = "v1") -> list[str]:
        return sorted(each["metadata"]["name"] for each in self.objects(kind, namespace, api))

    def token(self, account: str, namespace: str, seconds: int = 3600) -> str:
        """What a pod of that service account would be given."""
        spec = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {"expirationSeconds": seconds}}  # fmt: skip
        where = f"{path('v1', 'ServiceAccount', namespace, account)}/token"
        answer = self.admin.post(where, json=spec)
        return str(answer.raise_for_status().json()["status"]["token"])

    def kubeconfig(self, name: str, *, url: str = URL) -> str:
        """Who has exactly the rights of the manifests."""
        token = self.token("carrel", "carrel")
        return str(self.control.kubeconfig(name, token=token, url=url))

    def runtime_class(self, name: str, handler: str) -> None:
        """As kata-deploy makes it."""
        spec = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": name},
            "handler": handler,
            "overhead": {"podFixed": {"memory": "130Mi", "cpu": "250m"}},
            "scheduling": {"nodeSelector": KATA},
        }
        self.apply(spec).raise_for_status()

    def start(self) -> None:
        self.control.start()
        self.node.start()
        self.node.import_image(pause_archive(self.folder))
        for each in documents(DEPLOY / "base"):
            # Of network policies what matters here: one names a field that this version has not.
            is_for_desktops = each["metadata"].get("namespace") != "carrel"
            if each["kind"] in _NEEDED and (each["kind"] != "NetworkPolicy" or is_for_desktops):
                self.apply(each).raise_for_status()
        self.runtime_class(HANDLER, HANDLER)
        self.node.join()
        until(lambda: self.names("ServiceAccount").count("default") == 1, 20)

    def stop(self) -> None:
        self.admin.close()
        self.node.stop()
        self.control.stop()


def path(api: str, kind: str, namespace: str = "", name: str = "") -> str:
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    root = f"/apis/{api}" if "/" in api else f"/api/{api}"
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{where}/{plural}" + (f"/{name}" if name else "")


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster in the network of who asks; its folder is kept when it does not start."""
    folder = Path(tempfile.mkdtemp(prefix="carrel-kube-"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    shutil.rmtree(folder)
