"""What Carrel asks of the Kubernetes API, and so what its service account must be allowed.

One table for all: requests are made from its paths, ``carrel doctor --cluster`` asks whether each
right is there, and the tests compare it with the roles in ``deploy/``.
"""

from __future__ import annotations

from typing import NamedTuple


class Right(NamedTuple):
    """May use these verbs on a resource; in the desktops' namespace, or of the whole cluster."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    is_namespaced: bool = True
    is_needed: bool = True  # else something is told less well, or not at all


RUNNING = (
    Right("", "pods", ("create", "delete", "get", "list", "patch", "watch")),
    Right("", "pods/log", ("get",), is_needed=False),
    Right("", "secrets", ("create",)),
    Right("", "persistentvolumeclaims", ("create", "delete", "get")),
    Right("", "events", ("list",)),
    Right("networking.k8s.io", "networkpolicies", ("create", "delete", "get", "list")),
    Right("metrics.k8s.io", "pods", ("get",), is_needed=False),
    Right("node.k8s.io", "runtimeclasses", ("get", "list"), is_namespaced=False),
)
# What only `carrel doctor --cluster` asks.
LOOKING = (Right("", "nodes", ("list",), is_namespaced=False, is_needed=False),)


def path(right_group: str, resource: str, *, namespace: str = "", name: str = "") -> str:
    """The path of a resource, or of one object, in the versions that Carrel speaks."""
    version = {"metrics.k8s.io": "v1beta1"}.get(right_group, "v1")
    root = f"/apis/{right_group}/{version}" if right_group else f"/api/{version}"
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{where}/{resource}" + (f"/{name}" if name else "")
