"""What a desktop is in Kubernetes: its objects as plain dicts, and nothing that talks to a cluster.

Four objects make a desktop. The NetworkPolicy comes first and owns the others, so that removing it
removes all of them; it says who reaches the desktop (controllers and nodes of Ray) and what the
desktop reaches (its own proxy, which its actor holds). The Secret has desktopd's configuration with
its token. The Pod runs the image. A PersistentVolumeClaim, if it has a volume, is nobody's: it
stays.

The Secret's configuration is mounted in a first container alone, which puts a copy where desktopd
removes it once it is read: no program of the desktop ever sees the token, though its user is
desktopd's.

Kata makes the virtual machine of a pod from its limits, once (a pod without limits has one CPU and
2 GiB), so there are always limits. It has no subPath mounts: whole folders are mounted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from workspace.backends.kube.options import Options, Place
from workspace.models import Template

Spec = dict[str, Any]  # Any: JSON values

DOMAIN = "carrel.dev"
SANDBOX, CLUSTER, NODE = f"{DOMAIN}/sandbox", f"{DOMAIN}/cluster", f"{DOMAIN}/node"
TEMPLATE, VOLUME = f"{DOMAIN}/template", f"{DOMAIN}/volume"
START = f"{DOMAIN}/start"  # which start made an object: an annotation
REACHES = f"{DOMAIN}/reaches-desktops"  # of pods that may connect to desktops: "true"
CONTAINER = "desktop"
UID = 1000  # the user's, in every desktop

CONFIG_FILE, READY_PATH = "config.json", "/ready"
_GIVEN = "/carrel/given"  # the Secret, in the first container
_HANDED = "/run/carrel"  # where desktopd reads it, and removes it
TRUST = "/etc/carrel/trust"  # certificates of the way out
AUTHORITY, BUNDLE, POLICY_FILE = "authority.pem", "bundle.pem", "carrel.json"
POLICY_FOLDERS = ("/etc/chromium/policies/managed", "/etc/opt/chrome/policies/managed")
_RUN_MIB, _FIRST_MIB = 64, 64
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


DELETE_OPTIONS = {
    "apiVersion": "v1",
    "kind": "DeleteOptions",
    "gracePeriodSeconds": 1,
    "propagationPolicy": "Background",
}


class Sandbox(NamedTuple):
    """One desktop that is to be made."""

    id: str
    template: Template
    cluster: str  # whose it is, where several controllers share a namespace
    start: str  # a word of its own for this start
    volume: str | None = None  # the id of its home


class WayOut(NamedTuple):
    """Where a desktop's proxy listens, and what programs are to go by and to trust."""

    port: int = 0  # 0: there is no way out
    policy: Mapping[str, object] = MappingProxyType({})  # the browser's
    authority: str = ""  # PEM; empty: none
    bundle: str = ""


# Names.


def name_of(workspace_id: str) -> str:
    """Of its NetworkPolicy and its Pod."""
    return f"desktop-{workspace_id}"


def secret_name(sandbox: Sandbox) -> str:
    """Each start's own: what a start before left behind is never taken for it."""
    return f"{name_of(sandbox.id)}-{sandbox.start}"


def claim_name(volume: str) -> str:
    return f"volume-{volume}"


def label(text: str) -> str:
    """``text`` as a label's value: itself where it is one, else its digest."""
    is_label = not text or _LABEL.fullmatch(text)
    return text if is_label else hashlib.sha256(text.encode()).hexdigest()[:40]


def selector(cluster: str, node: str | None = None, sandbox: str | None = None) -> str:
    """A label selector for the desktops of a cluster, of one node of it, or for one of them."""
    wanted = {CLUSTER: label(cluster)}
    if node:
        wanted[NODE] = label(node)
    if sandbox is not None:
        wanted[SANDBOX] = sandbox
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def labelled(labels: Mapping[str, str]) -> Spec:
    """What is to be merged into an object for it to have these labels of ours."""
    given = {f"{DOMAIN}/{name}": label(value) for name, value in labels.items()}
    return {"metadata": {"labels": given}}


# Objects.


def network_policy(sandbox: Sandbox, options: Options, place: Place, way_out: WayOut) -> Spec:
    """The object that owns the others. Where Ray's pod is in the same namespace, that owns it: an
    owner in another namespace would count as one that is gone.
    """
    callers = {
        "namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": options.control_namespace}
        },
        "podSelector": {"matchLabels": {REACHES: "true"}},
    }
    egress: list[Spec] = []
    if way_out.port:
        egress.append({"to": [_proxy(place)], "ports": [_tcp(way_out.port)]})
    metadata = _metadata(sandbox, options, place)
    if place.pod_uid and place.namespace == options.namespace:
        metadata["ownerReferences"] = [owner("v1", "Pod", place.pod, place.pod_uid)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": {SANDBOX: sandbox.id}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [callers], "ports": [_tcp(options.port)]}],
            "egress": egress,
        },
    }


def _proxy(place: Place) -> Spec:
    """Its actor's pod. By labels: some networks know pods by nothing else. Each has a port of its
    own, and a proxy listens to nobody but its desktop.
    """
    if place.pod:
        return {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.namespace}},
            "podSelector": {"matchLabels": {REACHES: "true"}},
        }
    bits = 128 if ":" in place.pod_ip else 32
    return {"ipBlock": {"cidr": f"{place.pod_ip}/{bits}"}}


def _tcp(port: int) -> Spec:
    return {"protocol": "TCP", "port": port}


def secret(
    sandbox: Sandbox,
    options: Options,
    place: Place,
    config: str,
    way_out: WayOut,
    owned_by: Spec,
) -> Spec:
    """desktopd's configuration with its token, and what programs are to trust."""
    files = {CONFIG_FILE: config, POLICY_FILE: json.dumps(dict(way_out.policy))}
    if way_out.authority:
        files |= {AUTHORITY: way_out.authority, BUNDLE: way_out.bundle}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": _metadata(sandbox, options, place)
        | {"name": secret_name(sandbox), "ownerReferences": [owned_by]},
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in files.items()},
    }


def claim(sandbox: Sandbox, options: Options) -> Spec:
    """The PersistentVolumeClaim of its home. Nobody owns it: it stays."""
    assert sandbox.volume is not None, "it has one"
    spec: Spec = {
        "accessModes": [options.volume_access],
        "resources": {"requests": {"storage": f"{sandbox.template.disk_mib}Mi"}},
    }
    if options.storage_class:
        spec["storageClassName"] = options.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(sandbox.volume),
            "namespace": options.namespace,
            "labels": _common() | {CLUSTER: label(sandbox.cluster), VOLUME: sandbox.volume},
            "annotations": {START: sandbox.start},
        },
        "spec": spec,
    }


def pod(sandbox: Sandbox, options: Options, place: Place, way_out: WayOut, owned_by: Spec) -> Spec:
    """The desktop itself."""
    spec: Spec = {
        "runtimeClassName": options.runtime_class,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": options.most_seconds,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Names are resolved by the proxy; without it, by nobody.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": seccomp(options.seccomp),
        },
        "initContainers": [_first(options)],
        "containers": [_desktop(sandbox, options, way_out)],
        "volumes": _volumes(sandbox, options, way_out),
    }
    if place.node:
        spec["affinity"] = on_node(place.node)
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    metadata = _metadata(sandbox, options, place) | {"ownerReferences": [owned_by]}
    if sandbox.volume is not None:
        metadata["labels"] |= {VOLUME: sandbox.volume}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def probe_pod(name: str, options: Options, place: Place, script: str) -> Spec:
    """A pod that runs a shell script in the desktop's image, as a desktop would run, and ends."""
    spec: Spec = {
        "runtimeClassName": options.runtime_class,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 120,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "seccompProfile": seccomp(options.seccomp),
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": options.image,
                "imagePullPolicy": options.pull_policy,
                "command": ["/bin/bash", "-c", script],
                "resources": _resources("1", "0.1", 256),
                "securityContext": _CONFINED,
            }
        ],
    }
    if place.node:
        spec["affinity"] = on_node(place.node)
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    labels = _common() | {f"{DOMAIN}/probe": name}
    metadata = {"name": name, "namespace": options.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def owner(api_version: str, kind: str, name: str, uid: str) -> Spec:
    """A reference to what an object goes with."""
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}


def on_node(node: str) -> Spec:
    """Required affinity to one node, by its name: what the scheduler may not change."""
    here = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [here]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def seccomp(setting: str) -> Spec:
    kind, _, path = setting.partition(":")
    return {"type": kind, "localhostProfile": path} if path else {"type": kind}


def arguments(options: Options) -> list[str]:
    """What the image's entry point passes on to desktopd."""
    given = ["--config", f"{_HANDED}/{CONFIG_FILE}", "--remove-config"]
    return [*given, "--listen", f"0.0.0.0:{options.port}"]


_CONFINED: Spec = {
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _first(options: Options) -> Spec:
    """The container that hands the configuration over, and makes the user's runtime folder."""
    script = (
        f"umask 077 && mkdir -p {_HANDED} /run/user/{UID} && "
        f"cp {_GIVEN}/{CONFIG_FILE} {_HANDED}/{CONFIG_FILE}"
    )
    return {
        "name": "config",
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        "command": ["/bin/sh", "-c", script],
        "resources": _resources("1", "0.05", _FIRST_MIB),
        "securityContext": _CONFINED,
        "volumeMounts": [
            {"name": "given", "mountPath": _GIVEN, "readOnly": True},
            {"name": "run", "mountPath": "/run"},
        ],
    }


def _desktop(sandbox: Sandbox, options: Options, way_out: WayOut) -> Spec:
    template = sandbox.template
    mounts: list[Spec] = [
        {"name": "home", "mountPath": "/home/user"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "run", "mountPath": "/run"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    mounts += [{"name": "policy", "mountPath": path, "readOnly": True} for path in POLICY_FOLDERS]
    if way_out.authority:
        mounts.append({"name": "trust", "mountPath": TRUST, "readOnly": True})
    ready = {"httpGet": {"path": READY_PATH, "port": options.port}, "timeoutSeconds": 2}
    return {
        "name": CONTAINER,
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        "args": arguments(options),
        "env": [
            {"name": "HOME", "value": "/home/user"},
            {"name": "XDG_RUNTIME_DIR", "value": f"/run/user/{UID}"},
        ],
        "ports": [{"name": "desktopd", "containerPort": options.port, "protocol": "TCP"}],
        "resources": _resources(
            _cpus(template.cpus), _cpus(template.cpus * options.cpu_request), template.memory_mib
        ),
        "securityContext": _CONFINED,
        "startupProbe": ready
        | {"periodSeconds": 1, "failureThreshold": max(1, int(options.start_seconds))},
        "readinessProbe": ready | {"periodSeconds": 10, "failureThreshold": 3},
        "volumeMounts": mounts,
    }


def _volumes(sandbox: Sandbox, options: Options, way_out: WayOut) -> list[Spec]:
    home: Spec = {"emptyDir": {"sizeLimit": f"{sandbox.template.disk_mib}Mi"}}
    if sandbox.volume is not None:
        home = {"persistentVolumeClaim": {"claimName": claim_name(sandbox.volume)}}
    secret = secret_name(sandbox)
    volumes: list[Spec] = [
        {"name": "home", **home},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{options.tmp_mib}Mi"}},
        {"name": "run", "emptyDir": _memory(_RUN_MIB)},
        # A container's own has 64 MiB and runs nothing: too little for Chromium.
        {"name": "shm", "emptyDir": _memory(options.shm_mib)},
        {"name": "given", "secret": _files(secret, CONFIG_FILE, mode=0o440)},
        {"name": "policy", "secret": _files(secret, POLICY_FILE)},
    ]
    if way_out.authority:
        volumes.append({"name": "trust", "secret": _files(secret, AUTHORITY, BUNDLE)})
    return volumes


def _files(secret: str, *names: str, mode: int = 0o444) -> Spec:
    items = [{"key": name, "path": name} for name in names]
    return {"secretName": secret, "defaultMode": mode, "items": items}


def _memory(mib: int) -> Spec:
    """A file system in memory; what is in it counts to the pod's limit."""
    return {"medium": "Memory", "sizeLimit": f"{mib}Mi"}


def _resources(cpus: str, promised: str, memory_mib: int) -> Spec:
    """Limits; all of the memory is promised too, and some of the processors."""
    memory = f"{memory_mib}Mi"
    return {
        "limits": {"cpu": cpus, "memory": memory},
        "requests": {"cpu": promised, "memory": memory},
    }


def _cpus(cpus: float) -> str:
    return f"{max(1, round(cpus * 1000))}m"


def _metadata(sandbox: Sandbox, options: Options, place: Place) -> Spec:
    labels = _common() | {
        SANDBOX: sandbox.id,
        CLUSTER: label(sandbox.cluster),
        NODE: label(place.node),
        TEMPLATE: label(sandbox.template.name),
    }
    return {
        "name": name_of(sandbox.id),
        "namespace": options.namespace,
        "labels": labels,
        "annotations": {START: sandbox.start},
    }


def _common() -> Spec:
    return {
        "app.kubernetes.io/name": "carrel-desktop",
        "app.kubernetes.io/part-of": "carrel",
        "app.kubernetes.io/managed-by": "carrel",
    }
