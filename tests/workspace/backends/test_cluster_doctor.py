"""`carrel doctor --cluster` against an API in memory: each check says what is there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, documents, rules
from tests.kubernetes_api import NODE, KubernetesApi, Spec, waiting
from workspace.backends.doctor import Check
from workspace.backends.kube import checks
from workspace.backends.kube.options import Options, Place
from workspace.errors import BackendUnavailable

pytestmark = pytest.mark.anyio


async def probing(api: KubernetesApi, pod: Spec) -> None:
    """A kubelet whose pods end at once, in a virtual machine, in a closed network."""
    pod = api.put("pods", pod | {"log": "kernel=6.12.0-guest\napi=closed\n"}, "carrel-desktops")
    pod["spec"]["nodeName"] = NODE
    api.status(pod, phase="Succeeded")


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApi]:
    api = KubernetesApi(probing)
    deploy = documents(DEPLOY)
    api.rules = rules(deploy, "carrel", "carrel")
    for each in deploy:
        if each["kind"] == "NetworkPolicy":
            api.put("networkpolicies", each, each["metadata"]["namespace"])
    api.remove("runtimeclasses", "", "kata-clh")
    scheduling = {"nodeSelector": {"katacontainers.io/kata-runtime": "true"}}
    for name in ("kata-clh", "kata-qemu"):
        api.put(
            "runtimeclasses",
            {"metadata": {"name": name}, "handler": name, "scheduling": scheduling},
        )
    await api.start()
    try:
        yield api
    finally:
        await api.stop()
    assert api.names("pods") == []


async def look(api: KubernetesApi, folder: Path, **options: object) -> dict[str, Check]:
    given = {"image": "x", "kubeconfig": api.kubeconfig(folder)} | options
    found = await asyncio.to_thread(
        lambda: list(checks.checks(Options.model_validate(given), Place(node=NODE)))
    )
    for each in found:
        assert each.detail
        assert each.is_ok or each.mend, each
    return {each.name: each for each in found}


async def test_a_cluster_that_has_all(api: KubernetesApi, tmp_path: Path) -> None:
    """With exactly the rights of the manifests."""
    found = await look(api, tmp_path)
    assert list(found) == [
        "Kubernetes API", "namespace", "rights", "RuntimeClass", "nodes", "NetworkPolicy",
        "/dev/shm", "probe pod", "own kernel", "shut in",
    ]  # fmt: skip
    assert all(each.is_ok for each in found.values()), found
    assert "6.12.0-guest" in found["own kernel"].detail
    assert NODE in found["probe pod"].detail


async def test_the_command(api: KubernetesApi, tmp_path: Path) -> None:
    variables = {
        "PATH": os.environ["PATH"],
        "CARREL_HOME": str(tmp_path / "home"),
        "CARREL_KATA_IMAGE": "x",
        "CARREL_KATA_KUBECONFIG": api.kubeconfig(tmp_path),
        "CARREL_RAY_ADDRESS": "127.0.0.1:1",
    }
    code, out = await doctor(variables)
    assert code == 1
    found = {each["name"]: each for each in json.loads(out)}
    assert [name for name, each in found.items() if not each["ok"]] == ["Ray"]
    assert "127.0.0.1:1 does not answer" in found["Ray"]["detail"]
    del variables["CARREL_KATA_IMAGE"]
    code, out = await doctor(variables)
    assert code != 0
    assert "CARREL_KATA_IMAGE" in out


async def doctor(variables: dict[str, str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller.cli", "doctor", "--cluster", "--json",
        env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


async def test_no_api(api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SECONDS", 0.5)
    await api.go_away()
    found = await look(api, tmp_path)
    assert list(found) == ["Kubernetes API"]
    assert not found["Kubernetes API"].is_ok
    await api.start()


async def test_rights_that_are_missing(api: KubernetesApi, tmp_path: Path) -> None:
    assert api.rules is not None
    api.rules = [rule for rule in api.rules if rule["resources"] not in (["secrets"], ["nodes"])]
    found = await look(api, tmp_path)
    assert not found["rights"].is_ok
    assert "create secrets" in found["rights"].detail
    assert found["nodes"].is_ok
    assert "Not known" in found["nodes"].detail


async def test_a_class_that_is_missing(api: KubernetesApi, tmp_path: Path) -> None:
    found = await look(api, tmp_path, runtime_class="kata")
    assert not found["RuntimeClass"].is_ok
    assert "kata-clh, kata-qemu" in found["RuntimeClass"].mend
    assert not found["probe pod"].is_ok
    options = {"image": "x", "kubeconfig": api.kubeconfig(tmp_path), "runtime_class": "kata"}
    with pytest.raises(BackendUnavailable, match="no RuntimeClass 'kata'"):
        await asyncio.to_thread(checks.check_class, Options.model_validate(options))


async def test_nodes_without_kata(api: KubernetesApi, tmp_path: Path) -> None:
    node = api.get("nodes", NODE, "")
    handlers = [{"name": "runc"}]
    api.put("nodes", node | {"status": node["status"] | {"runtimeHandlers": handlers}})
    assert "Without the handler kata-clh: node-a" in (await look(api, tmp_path))["nodes"].detail
    api.put("nodes", node | {"metadata": {"name": NODE, "labels": {}}})
    assert "No node has the labels" in (await look(api, tmp_path))["nodes"].detail


async def test_a_network_that_enforces_nothing(api: KubernetesApi, tmp_path: Path) -> None:
    async def open_(api: KubernetesApi, pod: Spec) -> None:
        log = (
            f"kernel={api.get('nodes', NODE, '')['status']['nodeInfo']['kernelVersion']}\napi=open"
        )
        pod = api.put("pods", pod | {"log": log}, "carrel-desktops")
        pod["spec"]["nodeName"] = NODE
        api.status(pod, phase="Succeeded")

    api.kubelet = open_
    api.remove("networkpolicies", "carrel-desktops", "closed")
    found = await look(api, tmp_path)
    assert not found["NetworkPolicy"].is_ok
    assert not found["shut in"].is_ok
    assert not found["own kernel"].is_ok  # and it is not Kata either


async def test_an_image_that_cannot_be_had(api: KubernetesApi, tmp_path: Path) -> None:
    api.kubelet = waiting("ImagePullBackOff", "no such image")
    found = await look(api, tmp_path)
    assert "no such image" in found["probe pod"].detail
    assert "own kernel" not in found


async def test_what_is_refused_is_said_and_leaves_no_pod(
    api: KubernetesApi, tmp_path: Path
) -> None:
    api.fail("create", "selfsubjectaccessreviews", 403)
    api.fail("create", "pods", 500, does=True)  # it is made, and that is not known
    api.fail("get", "pods", 404, message="it was deleted")
    found = await look(api, tmp_path)
    assert not found["rights"].is_ok
    assert "it was deleted" in found["probe pod"].detail


async def test_memory_of_guests_on_qemu(api: KubernetesApi, tmp_path: Path) -> None:
    found = await look(api, tmp_path, runtime_class="kata-qemu")
    assert "4096 MiB" in found["/dev/shm"].detail
