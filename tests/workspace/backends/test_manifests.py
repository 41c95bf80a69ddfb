"""What a desktop is in Kubernetes, and what a pod's status means: as tables."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from workspace import settings
from workspace.backends import manifests as m
from workspace.backends.kube import pods
from workspace.backends.kube.faults import Answer, is_soon, refused
from workspace.backends.kube.options import Options, Place
from workspace.desktopd.__main__ import _parse
from workspace.errors import BackendUnavailable, CarrelError, NoCapacity, StartFailed
from workspace.models import Template

OPTIONS = Options(image="registry.example/desktop:1")
PLACE = Place(node="node-a", pod="worker-1", pod_uid="u-1", pod_ip="10.0.0.7", namespace="carrel")
TEMPLATE = Template(name="small", cpus=1.5, memory_mib=1024, disk_mib=2048)
SANDBOX = m.Sandbox("abcdefgh1234", TEMPLATE, "prod", start="0a1b2c3d")
OUT = m.WayOut(port=21005, policy={"ProxyMode": "x"}, authority="PEM", bundle="ALL PEM")
OWNER = m.owner("networking.k8s.io/v1", "NetworkPolicy", "desktop-abcdefgh1234", "u-9")


def pod(
    sandbox: m.Sandbox = SANDBOX,
    options: Options = OPTIONS,
    place: Place = PLACE,
    out: m.WayOut = OUT,
) -> dict[str, Any]:
    spec = m.pod(sandbox, options, place, out, OWNER)
    json.dumps(spec)
    return spec


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec["spec"]["initContainers"], *spec["spec"]["containers"]]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("runtimeClassName", "kata-clh"),
        ("restartPolicy", "Never"),
        ("activeDeadlineSeconds", 7 * 86400),
        ("automountServiceAccountToken", False),
        ("enableServiceLinks", False),
        ("dnsPolicy", "None"),
        ("securityContext.runAsNonRoot", True),
        ("securityContext.runAsUser", 1000),
        ("securityContext.seccompProfile", {"type": "RuntimeDefault"}),
    ],
)
def test_a_pod(path: str, value: object) -> None:
    found: Any = pod()["spec"]
    for step in path.split("."):
        found = found[step]
    assert found == value


def test_no_container_may_more_than_run() -> None:
    for each in containers(pod()):
        context = each["securityContext"]
        assert context == {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(each["resources"]["limits"]) == {"cpu", "memory"}
    spec = pod()["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(spec)
    assert all("hostPath" not in each for each in spec["volumes"])
    # Kata has no subPath mounts.
    assert all(
        "subPath" not in mount for each in containers(pod()) for mount in each["volumeMounts"]
    )


def test_limits_are_the_templates() -> None:
    [desktop] = pod()["spec"]["containers"]
    assert desktop["resources"] == {
        "limits": {"cpu": "1500m", "memory": "1024Mi"},
        "requests": {"cpu": "375m", "memory": "1024Mi"},
    }
    volumes = {each["name"]: each for each in pod()["spec"]["volumes"]}
    assert volumes["home"]["emptyDir"] == {"sizeLimit": "2048Mi"}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "512Mi"}
    mounts = {each["name"]: each["mountPath"] for each in desktop["volumeMounts"]}
    assert mounts["shm"] == "/dev/shm"
    assert {"/home/user", "/tmp", "/run"} <= set(mounts.values())


def test_the_desktop_never_sees_the_secret() -> None:
    """It is mounted in the first container, and a copy is removed by who reads it."""
    volumes = {each["name"]: each for each in pod()["spec"]["volumes"]}
    with_config = {
        name
        for name, each in volumes.items()
        if any(item["key"] == m.CONFIG_FILE for item in each.get("secret", {}).get("items", ()))
    }
    assert with_config == {"given"}
    [desktop] = pod()["spec"]["containers"]
    assert "given" not in {each["name"] for each in desktop["volumeMounts"]}
    assert "--remove-config" in desktop["args"]
    assert _parse(desktop["args"]).listen == "0.0.0.0:7000"
    assert "secretKeyRef" not in json.dumps(pod())
    assert "token" not in json.dumps(pod()).replace("automountServiceAccountToken", "")


def test_probes_ask_for_what_is_settled() -> None:
    [desktop] = pod()["spec"]["containers"]
    for name in ("startupProbe", "readinessProbe"):
        assert desktop[name]["httpGet"] == {"path": "/ready", "port": 7000}
    assert desktop["startupProbe"]["failureThreshold"] == 100


def test_a_pod_runs_on_its_actors_node() -> None:
    affinity = pod()["spec"]["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {
        "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]
    }
    assert "affinity" not in pod(place=Place())["spec"]


def test_labels() -> None:
    metadata = pod()["metadata"]
    assert metadata["labels"] == {
        "app.kubernetes.io/name": "carrel-desktop",
        "app.kubernetes.io/part-of": "carrel",
        "app.kubernetes.io/managed-by": "carrel",
        "carrel.dev/sandbox": "abcdefgh1234",
        "carrel.dev/cluster": "prod",
        "carrel.dev/node": "node-a",
        "carrel.dev/template": "small",
    }
    assert metadata["ownerReferences"] == [OWNER]
    assert m.selector("prod", "node-a") == "carrel.dev/cluster=prod,carrel.dev/node=node-a"
    long = "ip-10-0-0-1." + "x" * 80
    assert len(m.label(long)) == 40
    assert m.label(long) != m.label(long + "y")
    assert m.label("node_a.example") == "node_a.example"


@pytest.mark.parametrize(
    ("setting", "profile"),
    [
        ("RuntimeDefault", {"type": "RuntimeDefault"}),
        ("Unconfined", {"type": "Unconfined"}),
        (
            "Localhost:profiles/carrel.json",
            {"type": "Localhost", "localhostProfile": "profiles/carrel.json"},
        ),
    ],
)
def test_seccomp(setting: str, profile: dict[str, str]) -> None:
    spec = pod(options=OPTIONS.model_copy(update={"seccomp": setting}))
    assert spec["spec"]["securityContext"]["seccompProfile"] == profile


def test_the_secret() -> None:
    secret = m.secret(SANDBOX, OPTIONS, PLACE, '{"token": "t"}', OUT, OWNER)
    assert secret["metadata"]["name"] == "desktop-abcdefgh1234-0a1b2c3d"
    assert secret["immutable"] is True
    files = {name: base64.b64decode(data) for name, data in secret["data"].items()}
    assert files == {
        "config.json": b'{"token": "t"}',
        "carrel.json": b'{"ProxyMode": "x"}',
        "authority.pem": b"PEM",
        "bundle.pem": b"ALL PEM",
    }
    none = m.secret(SANDBOX, OPTIONS, PLACE, "{}", m.WayOut(), OWNER)
    assert set(none["data"]) == {"config.json", "carrel.json"}


def test_the_policy_lets_in_callers_and_out_to_its_proxy() -> None:
    policy = m.network_policy(SANDBOX, OPTIONS, PLACE, OUT)
    spec = policy["spec"]
    assert spec["podSelector"] == {"matchLabels": {"carrel.dev/sandbox": "abcdefgh1234"}}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    carrel = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "carrel"}}}
    callers = carrel | {"podSelector": {"matchLabels": {"carrel.dev/reaches-desktops": "true"}}}
    assert spec["ingress"] == [{"from": [callers], "ports": [{"protocol": "TCP", "port": 7000}]}]
    assert spec["egress"] == [{"to": [callers], "ports": [{"protocol": "TCP", "port": 21005}]}]
    assert m.network_policy(SANDBOX, OPTIONS, PLACE, m.WayOut())["spec"]["egress"] == []
    outside = m.network_policy(SANDBOX, OPTIONS, Place(pod_ip="fd00::7"), OUT)
    [rule] = outside["spec"]["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": "fd00::7/128"}}]


def test_an_owner_is_in_the_same_namespace_or_none() -> None:
    """One in another counts as gone: the garbage collector would delete what it owns."""
    policy = m.network_policy(SANDBOX, OPTIONS, PLACE, OUT)
    assert "ownerReferences" not in policy["metadata"]
    same = PLACE.model_copy(update={"namespace": OPTIONS.namespace})
    [owner] = m.network_policy(SANDBOX, OPTIONS, same, OUT)["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Pod", "name": "worker-1", "uid": "u-1"}


def test_a_volume() -> None:
    sandbox = SANDBOX._replace(volume="vol12345")
    options = OPTIONS.model_copy(update={"storage_class": "fast"})
    claim = m.claim(sandbox, options)
    assert claim["metadata"]["name"] == "volume-vol12345"
    assert "ownerReferences" not in claim["metadata"]  # it stays
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2048Mi"}},
        "storageClassName": "fast",
    }
    assert pod(sandbox)["metadata"]["labels"]["carrel.dev/volume"] == "vol12345"


# Settings.


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": ""},
        {"image": "a b"},
        {"seccomp": "Localhost:"},
        {"seccomp": "whatever"},
        {"runtime_class": "Kata"},
        {"proxy_ports": "9"},
        {"proxy_ports": "30-20"},
        {"namespace": "Upper"},
        {"port": "80"},
        {"unknown": "1"},
    ],
)
def test_settings_that_are_not_usable(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"image": "x"} | wrong)


def test_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.kata() == {}
    monkeypatch.setenv("CARREL_KATA_PORT", "7001")
    assert settings.kata() == {}  # no image: no pods
    monkeypatch.setenv("CARREL_KATA_IMAGE", "x")
    monkeypatch.setenv("CARREL_KATA_NODE", "node-a")
    monkeypatch.setenv("CARREL_KATA_NAMESPACE", "theirs")
    monkeypatch.setenv("CARREL_KATA_POD_NAMESPACE", "ours")
    options = Options.model_validate(settings.kata())
    assert (options.port, options.namespace) == (7001, "theirs")
    assert Place.model_validate(settings.kata_place()) == Place(node="node-a", namespace="ours")


# What a pod's status means.


def status(**told: Any) -> dict[str, Any]:
    return {"metadata": {"name": "desktop-x"}, "status": told}


def container(**state: Any) -> dict[str, Any]:
    return status(phase="Pending", containerStatuses=[{"name": "desktop", "state": state}])


@pytest.mark.parametrize(
    ("given", "waited", "kind", "says"),
    [
        (container(waiting={"reason": "ContainerCreating"}), 100, None, ""),
        (container(waiting={"reason": "ErrImagePull"}), 1, None, ""),
        (container(waiting={"reason": "ErrImagePull"}), 30, StartFailed, "cannot be pulled"),
        (container(waiting={"reason": "ImagePullBackOff"}), 0, StartFailed, "cannot be pulled"),
        (container(waiting={"reason": "ErrImageNeverPull"}), 0, StartFailed, "may not be pulled"),
        (container(waiting={"reason": "RunContainerError"}), 0, StartFailed, "RunContainerError"),
        (container(terminated={"reason": "OOMKilled"}), 0, StartFailed, "memory was full"),
        (container(terminated={"exitCode": 1}), 0, StartFailed, "exit code 1"),
        (
            status(conditions=[{"type": "PodScheduled", "status": "False",
                                "reason": "Unschedulable", "message": "0/1 nodes"}]),
            20, NoCapacity, "0/1 nodes",
        ),
        (
            status(conditions=[{"type": "PodScheduled", "status": "False",
                                "reason": "Unschedulable", "message": "0/1 nodes"}]),
            1, None, "",
        ),
        ({}, 5, None, ""),
    ],
)  # fmt: skip
def test_why_a_start_fails(
    given: dict[str, Any], waited: float, kind: type[CarrelError] | None, says: str
) -> None:
    error = pods.failure(given, image="x", waited=waited)
    assert (type(error) if error else None) is kind
    assert error is None or says in error.message


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (
            container(waiting={
                "reason": "CreateContainerError",
                "message": 'cannot load seccomp profile "/var/lib/kubelet/seccomp/x.json"',
            }),
            "CARREL_KATA_SECCOMP",
        ),
        (
            container(terminated={
                "reason": "StartError", "exitCode": 128,
                "message": 'exec: "/bin/sh": stat /bin/sh: no such file or directory',
            }),
            "CARREL_KATA_IMAGE",
        ),
        (container(terminated={"exitCode": 1}), "carrel doctor"),
    ],
)  # fmt: skip
def test_what_to_do_about_it(given: dict[str, Any], hint: str) -> None:
    error = pods.failure(given, image="x", waited=0)
    assert error is not None
    assert hint in error.hint


@pytest.mark.parametrize(
    ("message", "is_it"),
    [
        ('no runtime for "kata-clh" is configured', True),
        ("unknown runtime handler kata", True),
        ("failed to set up sandbox: cni not ready", False),
    ],
)
def test_events_that_tell_of_a_handler(message: str, is_it: bool) -> None:
    error = pods.told(
        [{"reason": "FailedCreatePodSandBox", "message": message}], runtime_class="kata-clh"
    )
    assert isinstance(error, BackendUnavailable) is is_it


def test_a_pod_that_is_taken_away() -> None:
    leaving = {
        "metadata": {"deletionTimestamp": "x"},
        "status": {
            "conditions": [
                {"type": "DisruptionTarget", "status": "True", "message": "node is drained"}
            ]
        },
    }
    assert "node is drained" in (pods.ended(leaving) or "")


def test_an_address_counts_once_the_container_runs() -> None:
    running = container(running={}) | {"metadata": {}}
    assert pods.address(running) is None
    running["status"]["podIP"] = "10.1.1.1"
    assert pods.address(running) == "10.1.1.1"
    assert pods.address(status(podIP="10.1.1.1")) is None


# What the API refuses.


@pytest.mark.parametrize(
    ("code", "message", "kind", "says"),
    [
        (401, "Unauthorized", BackendUnavailable, "credentials"),
        (
            403,
            'pods is forbidden: User "system:serviceaccount:a:b" cannot create resource "pods" '
            'in API group "" in the namespace "x"',
            BackendUnavailable,
            "system:serviceaccount:a:b lacks the right to create pods in namespace x",
        ),
        (
            403,
            'nodes is forbidden: User "u" cannot list resource "nodes" in API group "" '
            "at the cluster scope",
            BackendUnavailable,
            "u lacks the right to list nodes of the cluster",
        ),
        (403, "exceeded quota: desktops", NoCapacity, "quota"),
        (403, 'pod rejected: RuntimeClass "k" not found', BackendUnavailable, "RuntimeClass 'k'"),
        (403, "violates PodSecurity", BackendUnavailable, "PodSecurity"),
        (404, 'namespaces "x" not found', BackendUnavailable, "namespaces"),
        (422, "spec.x: invalid", StartFailed, "invalid"),
        (500, "etcd is sad", BackendUnavailable, "etcd is sad"),
    ],
)
def test_refusals(code: int, message: str, kind: type[CarrelError], says: str) -> None:
    error = refused("The pod could not be made", Answer(code, {"message": message}))
    assert type(error) is kind
    assert says in error.message


def test_what_will_soon_do() -> None:
    soon = 'error looking up service account x/default: serviceaccount "default" not found'
    assert is_soon(Answer(403, {"message": soon}))
    assert not is_soon(Answer(403, {"message": "no"}))
