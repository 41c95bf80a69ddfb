"""What goes wrong on a real cluster, and the error that a person reads of it. Nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest

from tests.kubernetes.cluster import DESKTOPS, Cluster, path
from tests.kubernetes.conftest import (
    IMAGE,
    PLACE,
    Backends,
    a_template,
    eventually_nothing,
    new_id,
    refused,
)
from tests.kubernetes.control import URL
from tests.kubernetes.meddling import Meddling, meddling
from tests.kubernetes.test_pods import closing
from tests.waiting import eventually
from workspace.backends.kata import KataBackend
from workspace.errors import BackendUnavailable, CarrelError, NoCapacity, StartFailed
from workspace.models import Template

pytestmark = pytest.mark.anyio
NETWORKING, RBAC = "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1"
AWAY_SECONDS = 20.0


async def ended(backend: KataBackend, workspace_id: str, seconds: float = 30) -> str:
    return await asyncio.wait_for(backend.wait(workspace_id), seconds)


# Starts that fail.


WRONG: dict[str, tuple[dict[str, object], Template, type[CarrelError], str, str]] = {
    "an image that is not on the node": (
        {"image": "localhost/nothing:1"}, a_template(),
        StartFailed, "localhost/nothing:1 cannot be used: it is not on the node", "_KATA_IMAGE",
    ),
    "an image that cannot be pulled": (
        {"image": "127.0.0.1:1/nothing:1", "pull_policy": "IfNotPresent"}, a_template(),
        StartFailed, "127.0.0.1:1/nothing:1 cannot be used: it cannot be pulled", "_KATA_IMAGE",
    ),
    "an image that has no desktop in it": (
        {"image": "localhost/carrel-tests-pause:1"}, a_template(),
        StartFailed, "/bin/sh", "CARREL_KATA_IMAGE",
    ),
    "a class whose handler the node has not": (
        {"runtime_class": "kata-nowhere"}, a_template(),
        BackendUnavailable, "no handler for the RuntimeClass 'kata-nowhere'", "kata-deploy",
    ),
    "a class that there is not": (
        {"runtime_class": "kata-unknown"}, a_template(),
        BackendUnavailable, "no RuntimeClass 'kata-unknown'", "kata-clh, kata-nowhere",
    ),
    "more memory than a node has": (
        {}, a_template(memory_mib=1 << 20),
        NoCapacity, "Insufficient memory", "Release some desktops",
    ),
    "a profile that the node has not": (
        {"seccomp": "Localhost:nowhere.json"}, a_template(),
        StartFailed, "nowhere.json", "CARREL_KATA_SECCOMP",
    ),
    "an image of no name": (
        {"image": "not//an//image"}, a_template(),
        StartFailed, "that is no image's name", "CARREL_KATA_IMAGE",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def nowhere(cluster: Cluster) -> Iterator[None]:
    cluster.runtime_class("kata-nowhere", "nowhere")
    yield
    cluster.admin.delete(path("node.k8s.io/v1", "RuntimeClass", "", "kata-nowhere"))


async def test_why_starts_fail(backends: Backends, nowhere: None) -> None:
    """All at once: each has to wait for something."""

    async def one(name: str) -> None:
        options, template, kind, told, hint = WRONG[name]
        error = await refused(backends.make(**options).start(new_id(), template), kind)
        assert told in error.message, (name, error.message)
        assert hint in error.hint, (name, error.message, error.hint)

    done = await asyncio.gather(*(one(name) for name in WRONG), return_exceptions=True)
    assert [each for each in done if each is not None] == []


async def test_a_start_that_is_cancelled(backends: Backends, cluster: Cluster) -> None:
    backend, workspace_id = backends.make(), new_id()
    for kind, api in (("NetworkPolicy", NETWORKING), ("Secret", "v1"), ("Pod", "v1")):
        starting = asyncio.ensure_future(backend.start(workspace_id, a_template()))
        await eventually(partial(_has, cluster, kind, api, f"desktop-{workspace_id}"))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        # What it has made is at its end, however long the node takes for that.
        assert all(each["metadata"].get("deletionTimestamp") for each in cluster.objects("Pod"))
        workspace_id = new_id()


def _has(cluster: Cluster, kind: str, api: str, start: str) -> bool:
    return any(name.startswith(start) for name in cluster.names(kind, DESKTOPS, api))


# Ends of desktops that lived.


async def test_a_desktop_whose_memory_is_full(backends: Backends) -> None:
    """A program that takes too much is killed alone; what is in /dev/shm belongs to no program."""
    backend, workspace_id = backends.make(), new_id()
    endpoint = await backend.start(workspace_id, a_template(memory_mib=512))
    ending = asyncio.ensure_future(ended(backend, workspace_id))
    async with closing(endpoint) as desktop:
        hog = "python3 -c 'x = bytearray(1 << 30)'"
        done = await desktop.run(hog, timeout_seconds=30)
        assert done.exit_code in (137, -9)
        assert not ending.done()
        fill = "head -c 500M /dev/zero > /dev/shm/fill; head -c 500M /dev/zero | tail"
        try:
            await desktop.run(fill, timeout_seconds=20)
        except CarrelError:
            pass
    assert await ending == "It was killed because its memory was full (OOMKilled)."
    await backend.stop(workspace_id)


async def test_a_desktop_that_is_taken_away(backends: Backends, cluster: Cluster) -> None:
    """By an eviction of the API, as `kubectl drain` asks for; and deleted by hand."""
    backend = backends.make()
    first, second, third = (new_id() for _ in range(3))
    starting = (backend.start(each, a_template()) for each in (first, second, third))
    await asyncio.gather(*starting)
    ends = [asyncio.ensure_future(ended(backend, each)) for each in (first, second, third)]
    where = [path("v1", "Pod", DESKTOPS, f"desktop-{each}") for each in (first, second, third)]
    eviction = {
        "apiVersion": "policy/v1beta1",
        "kind": "Eviction",
        "metadata": {"name": f"desktop-{first}", "namespace": DESKTOPS},
    }
    cluster.admin.post(f"{where[0]}/eviction", json=eviction).raise_for_status()
    cluster.admin.delete(where[1]).raise_for_status()
    cluster.admin.delete(where[2], params={"gracePeriodSeconds": "0"}).raise_for_status()
    assert await ends[0] == "Its pod is being deleted."
    assert await ends[1] == "Its pod is being deleted."
    assert "deleted" in await ends[2]
    await asyncio.gather(*(backend.stop(each) for each in (first, second, third)))


async def test_a_desktop_past_its_last_deadline(backends: Backends) -> None:
    backend, workspace_id = backends.make(most_seconds=60), new_id()
    await backend.start(workspace_id, a_template())
    # Sixty seconds is the least that may be set; the API lets it be made less.
    where = path("v1", "Pod", DESKTOPS, f"desktop-{workspace_id}")
    backends.cluster.admin.patch(
        where,
        json={"spec": {"activeDeadlineSeconds": 3}},
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
    assert "activeDeadlineSeconds" in await ended(backend, workspace_id)
    await backend.stop(workspace_id)


# The API.


async def test_the_api_hangs_for_a_while(backends: Backends, cluster: Cluster) -> None:
    """What lives goes on; what was asked is done when it is back."""
    backend = backends.make()
    living, ending, coming = (new_id() for _ in range(3))
    endpoint, _ = await asyncio.gather(
        backend.start(living, a_template()), backend.start(ending, a_template())
    )
    waiting = asyncio.ensure_future(backend.wait(living))
    cluster.control.api.freeze()
    try:
        starting = asyncio.ensure_future(backend.start(coming, a_template()))
        stopping = asyncio.ensure_future(backend.stop(ending))
        async with closing(endpoint) as desktop:
            assert (await desktop.click(30, 40)).cursor == (30, 40)
        await asyncio.sleep(AWAY_SECONDS)
        assert not any(each.done() for each in (starting, stopping, waiting))
    finally:
        cluster.control.api.thaw()
    await asyncio.wait_for(asyncio.gather(starting, stopping), 60)
    assert not waiting.done()
    await asyncio.gather(backend.stop(living), backend.stop(coming))


async def test_the_api_is_started_anew(backends: Backends, cluster: Cluster) -> None:
    backend = backends.make()
    living, coming = new_id(), new_id()
    await backend.start(living, a_template())
    waiting = asyncio.ensure_future(ended(backend, living, 90))
    cluster.control.api.kill()
    starting = asyncio.ensure_future(backend.start(coming, a_template()))
    await asyncio.sleep(1)
    cluster.control.api.start()
    await asyncio.to_thread(cluster.control.until_ready)
    await asyncio.wait_for(starting, 60)
    assert not waiting.done()
    where = path("v1", "Pod", DESKTOPS, f"desktop-{living}")
    cluster.admin.delete(where).raise_for_status()
    assert "deleted" in await waiting  # it is watched again
    await asyncio.gather(backend.stop(living), backend.stop(coming))


async def test_the_api_has_forgotten_what_was_watched(backends: Backends, cluster: Cluster) -> None:
    """410: a pod that came to its end meanwhile is noticed, and another lives on."""
    backend = backends.make()
    gone, living = new_id(), new_id()
    await asyncio.gather(backend.start(gone, a_template()), backend.start(living, a_template()))
    waiting = [asyncio.ensure_future(ended(backend, each, 60)) for each in (gone, living)]
    [agent] = backends.agents()
    os.kill(agent, signal.SIGSTOP)
    try:
        where = path("v1", "Pod", DESKTOPS, f"desktop-{gone}")
        cluster.admin.delete(where, params={"gracePeriodSeconds": "0"}).raise_for_status()
        await eventually(lambda: f"desktop-{gone}" not in cluster.names("Pod"))
        cluster.control.api.kill()
        await asyncio.to_thread(cluster.control.compact)
        cluster.control.api.start()
        await asyncio.to_thread(cluster.control.until_ready)
    finally:
        os.kill(agent, signal.SIGCONT)
    assert "deleted" in await waiting[0]
    assert not waiting[1].done()
    await asyncio.gather(backend.stop(gone), backend.stop(living))


@pytest.fixture
def meddled(cluster: Cluster) -> Iterator[Meddling]:
    with meddling(URL, cluster.control.authority.certificate) as meddled:
        yield meddled


@pytest.fixture
async def through(
    backends: Backends, cluster: Cluster, meddled: Meddling
) -> AsyncIterator[KataBackend]:
    """A backend whose API is the real one, with what stands before it."""
    yield backends.make(kubeconfig=cluster.kubeconfig("meddled", url=meddled.url))
    await backends.aclose()
    await eventually(lambda: not backends.agents())


async def test_an_api_that_is_too_busy_and_fails(
    through: KataBackend, meddled: Meddling, cluster: Cluster
) -> None:
    """429 with its time, 500 and 503 before and after what was asked: each object is made once."""
    faults = [
        meddled.fail("POST", "/networkpolicies", 429, times=2, headers={"Retry-After": "1"}),
        meddled.fail("POST", "/secrets", 500, does=True),
        meddled.fail("POST", "/pods", 503, does=True),
        meddled.fail("POST", "/pods", 409, reason="Conflict", message="the object has changed"),
        meddled.fail("DELETE", "/pods/", 500, does=True),
        meddled.fail("DELETE", "/networkpolicies/", 429),
    ]
    workspace_id = new_id()
    await through.start(workspace_id, a_template())
    assert cluster.names("Pod") == [f"desktop-{workspace_id}"]
    await through.stop(workspace_id)
    assert [each.happened for each in faults] == [2, 1, 1, 1, 1, 1]


async def test_an_api_that_fails_for_good(
    through: KataBackend, meddled: Meddling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workspace.backends.kube.link.ASK_SECONDS", 2.0)
    for status in (429, 500):
        fault = meddled.fail("POST", "/pods", status, times=1000, message="etcd is on fire")
        error = await refused(through.start(new_id(), a_template()), BackendUnavailable)
        assert "could not be made: the Kubernetes API says etcd is on fire" in error.message
        fault.times = 0


async def test_a_watch_that_is_slow(through: KataBackend, meddled: Meddling) -> None:
    meddled.watch_delay = 60.0
    workspace_id = new_id()
    began = time.monotonic()
    await through.start(workspace_id, a_template())
    assert time.monotonic() - began < 30
    await through.stop(workspace_id)


async def test_an_api_that_is_not_there(
    backends: Backends, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workspace.backends.kube.link.ASK_SECONDS", 1.0)
    for name, url in (("refusing", "https://127.0.0.1:1"), ("unknown", "https://127.0.0.1:2379")):
        backend = backends.make(kubeconfig=cluster.kubeconfig(name, url=url))
        error = await refused(backend.start(new_id(), a_template()), BackendUnavailable)
        assert url in error.message
        assert "doctor --cluster" in error.hint


async def test_a_token_that_is_no_longer_good(backends: Backends, cluster: Cluster) -> None:
    where = str(cluster.control.kubeconfig("forged", token="forged"))
    error = await refused(backends.make(kubeconfig=where).list(), BackendUnavailable)
    assert "does not accept our credentials" in error.message


# Roles.


@pytest.fixture
def binding(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Takes the role away; it is given back."""
    where = path(RBAC, "RoleBinding", DESKTOPS, "carrel-desktops")
    given = cluster.get("RoleBinding", "carrel-desktops", DESKTOPS, RBAC)
    yield lambda: cluster.admin.delete(where).raise_for_status() and None
    keys = ("apiVersion", "kind", "roleRef", "subjects")
    again = {key: given[key] for key in keys} | {
        "metadata": {"name": "carrel-desktops", "namespace": DESKTOPS}
    }
    cluster.apply(again).raise_for_status()


async def test_a_role_that_is_taken_away(
    backends: Backends, cluster: Cluster, binding: Callable[[], None]
) -> None:
    backend, living = backends.make(), new_id()
    await backend.start(living, a_template())
    waiting = asyncio.ensure_future(backend.wait(living))
    binding()
    who = "system:serviceaccount:carrel:carrel lacks the right to"
    error = await refused(backend.start(new_id(), a_template()), BackendUnavailable)
    assert f"{who} create networkpolicies.networking.k8s.io in namespace" in error.message
    assert "deploy/" in error.hint
    error = await refused(backend.list(), BackendUnavailable)
    assert f"{who} list pods in namespace {DESKTOPS}" in error.message
    assert not waiting.done()
    cluster.apply(  # as `kubectl apply` mends it
        {
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": {"name": "carrel-desktops", "namespace": DESKTOPS},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "carrel-desktops",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "carrel", "namespace": "carrel"}],
        }
    ).raise_for_status()  # fmt: skip
    await eventually(lambda: _lists(backend))
    await backend.stop(living)


async def _lists(backend: KataBackend) -> bool:
    try:
        await backend.list()
    except BackendUnavailable:
        return False
    return True


async def test_a_quota(backends: Backends, cluster: Cluster) -> None:
    """Of the namespace: its words, and a code by which others are asked to wait."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tests", "namespace": DESKTOPS},
        "spec": {"hard": {"pods": "1"}},
    }
    cluster.apply(quota).raise_for_status()
    try:
        await eventually(
            lambda: cluster.get("ResourceQuota", "tests").get("status", {}).get("used")
        )
        backend, first = backends.make(), new_id()
        await backend.start(first, a_template())
        error = await refused(backend.start(new_id(), a_template()), NoCapacity)
        assert "exceeded quota: tests" in error.message
        await backend.stop(first)
    finally:
        cluster.admin.delete(path("v1", "ResourceQuota", DESKTOPS, "tests")).raise_for_status()


async def test_a_name_that_is_taken(backends: Backends, cluster: Cluster) -> None:
    """What another has made is left alone."""
    backend, workspace_id = backends.make(), new_id()
    await backend.start(workspace_id, a_template())
    other = backends.make()
    error = await refused(other.start(workspace_id, a_template()), StartFailed)
    assert "there is one already" in error.message
    assert cluster.names("Pod") == [f"desktop-{workspace_id}"]
    await other.aclose()
    await backend.stop(workspace_id)


# Deaths.


_ACTOR = """
import asyncio, json, sys
from workspace.backends.kata import KataBackend
from workspace.models import Template

async def main():
    folder, options, place, workspace_id, template = json.loads(sys.argv[1])
    backend = KataBackend(folder, options, "tests", place=place, agent_seconds=(1.0, 1.0))
    await backend.start(workspace_id, Template.model_validate(template))
    print("started", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def actor(backends: Backends, workspace_id: str) -> subprocess.Popen[str]:
    """A process that makes a desktop and holds it, as an actor does."""
    options = {
        "image": IMAGE, "pull_policy": "Never", "kubeconfig": backends.kubeconfig,
        "seccomp": "Localhost:carrel-desktop.json",
    }  # fmt: skip
    given = [str(backends.folder), options, PLACE, workspace_id, a_template().model_dump()]
    return subprocess.Popen(
        [sys.executable, "-c", _ACTOR, json.dumps(given)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("dies", ["actor", "actor and agent"])
async def test_who_is_killed_while_it_starts_leaves_no_pod(
    backends: Backends, cluster: Cluster, dies: str
) -> None:
    """Between the pod's being made and anybody's having noted it: the agent deletes it; and where
    that was killed too, it is among what the reaper is told of.
    """
    workspace_id = new_id()
    process = actor(backends, workspace_id)
    try:
        await eventually(lambda: f"desktop-{workspace_id}" in cluster.names("Pod"), 30)
        for pid in backends.agents() if dies == "actor and agent" else ():
            os.kill(pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate(timeout=10)
    reaper = backends.make(place={})
    if dies == "actor and agent":
        assert await reaper.list() == [workspace_id]
        await reaper.stop(workspace_id)
    await eventually_nothing(backends)
    assert await reaper.list() == []


async def test_an_agent_that_is_killed_is_replaced(backends: Backends, cluster: Cluster) -> None:
    backend, workspace_id = backends.make(), new_id()
    await backend.start(workspace_id, a_template())
    waiting = asyncio.ensure_future(ended(backend, workspace_id))
    [agent] = backends.agents()
    os.kill(agent, signal.SIGKILL)
    await eventually(lambda: backends.agents() not in ([], [agent]))
    assert await backend.list() == [workspace_id]
    assert not waiting.done()
    where = path("v1", "Pod", DESKTOPS, f"desktop-{workspace_id}")
    cluster.admin.delete(where).raise_for_status()
    assert "deleted" in await waiting
    await backend.stop(workspace_id)
