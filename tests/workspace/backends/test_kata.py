"""The backend of pods against an API in memory: what it makes, what goes wrong, what is left.

A pod is run by the test; what answers in it is a fake desktop. The agent is a real process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests import kubernetes_api
from tests.deploy.manifests import DEPLOY, documents, rules
from tests.kubernetes_api import NODE, KubernetesApi, Spec, failing, run_desktop, run_pod, waiting
from tests.workspace.backends.conftest import a_template, new_id
from workspace.backends.base import Mount
from workspace.backends.kata import KataBackend
from workspace.backends.kube import agent, link
from workspace.backends.kube.faults import Answer
from workspace.desktop import connect
from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    InvalidRequest,
    NoCapacity,
    StartFailed,
    Unsupported,
    VolumeInUse,
    VolumeNotFound,
    WorkspaceNotFound,
)

pytestmark = pytest.mark.anyio
PORT = 7000
PLACE = {
    "node": NODE,
    "pod": "worker-1",
    "pod_uid": "1-2-3",
    "pod_ip": "127.0.0.1",
    "namespace": "carrel",
}


class Pods:
    """A backend on an API, and whatever other processes would make for the same node."""

    def __init__(self, api: KubernetesApi, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self._made: list[KataBackend] = []
        self.backend = self.another()

    def another(
        self, place: dict[str, str] | None = None, cluster: str = "test", **options: object
    ) -> KataBackend:
        backend = KataBackend(
            self.folder,
            {
                "image": "registry.example/desktop:1",
                "kubeconfig": self.api.kubeconfig(self.folder),
                "port": PORT,
                "start_seconds": 10,
                "stop_seconds": 3,
            }
            | options,
            cluster,
            place=PLACE if place is None else place,
            agent_seconds=(0.3, 0.3),
        )
        self._made.append(backend)
        return backend

    def agents(self) -> list[int]:
        """The processes that hold the agents' locks."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                held = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
            except OSError:
                continue
            if any(path.startswith(str(self.folder)) and ".lock" in path for path in held):
                found.append(int(entry.name))
        return found

    async def aclose(self) -> None:
        for backend in self._made:
            await backend.aclose()


async def until(condition: Callable[[], object], *, seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Pods]:
    """One agent for all: its start takes most of a second."""
    folder = Path(tempfile.mkdtemp(prefix="ck-"))
    api = KubernetesApi()
    api.rules = api.roles = rules(documents(DEPLOY), "carrel", "carrel")  # and no more
    await api.start()
    pods = Pods(api, folder)
    try:
        await pods.backend.list()  # an agent is there from now on
        yield pods
        await pods.aclose()
        await until(lambda: not pods.agents())
        assert os.listdir(folder) == ["kubeconfig"]
    finally:
        for pid in pods.agents():
            os.kill(pid, signal.SIGKILL)
        await api.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def pods(served: Pods) -> AsyncIterator[Pods]:
    """A cluster with nothing in it, and nothing left in it."""
    api = served.api
    pods = Pods(api, served.folder)
    api.reset()
    try:
        yield pods
        assert api.errors == []
        assert left(api) == []
    finally:
        await pods.aclose()
        api.reset()


def left(api: KubernetesApi) -> list[str]:
    kinds = ("pods", "secrets", "networkpolicies")
    return [f"{kind}/{name}" for kind in kinds for name in api.names(kind)]


async def refused(work: Awaitable[object], kind: type[CarrelError]) -> CarrelError:
    with pytest.raises(kind) as caught:
        await work
    return caught.value


# A life.


async def test_a_desktop_from_start_to_end(pods: Pods) -> None:
    api, workspace_id = pods.api, new_id()
    api.kubelet = run_desktop
    endpoint = await pods.backend.start(workspace_id, a_template())
    pod = api.get("pods", f"desktop-{workspace_id}")
    assert endpoint.url == f"http://{pod['status']['podIP']}:{PORT}"
    desktop = connect(endpoint)
    assert (await desktop.health()).ready
    await desktop.aclose()
    assert await pods.backend.list() == [workspace_id]
    writes = sum(api.writes().values())
    assert writes == 3
    await pods.backend.foreground(workspace_id, whose={"tenant": "acme", "workspace": "w1"})
    labels = api.get("pods", f"desktop-{workspace_id}")["metadata"]["labels"]
    assert (labels["carrel.dev/tenant"], labels["carrel.dev/workspace"]) == ("acme", "w1")
    assert labels["carrel.dev/sandbox"] == workspace_id

    await pods.backend.stop(workspace_id)
    assert left(api) == []
    assert await pods.backend.list() == []
    assert sum(api.writes().values()) == 6
    await pods.backend.stop(workspace_id)  # again: it is gone already
    assert await pods.backend.wait(workspace_id) == "There is no such sandbox."


async def test_an_idle_desktop_asks_nothing(pods: Pods) -> None:
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    waiting_for_end = asyncio.ensure_future(pods.backend.wait(workspace_id))
    asked = len(pods.api.requests)
    await asyncio.sleep(1.5)
    assert len(pods.api.requests) == asked
    assert not waiting_for_end.done()
    await pods.backend.stop(workspace_id)
    assert "no such" in await waiting_for_end


async def test_the_actors_of_a_node_share_one_agent_and_one_watch(pods: Pods) -> None:
    backends = [pods.another() for _ in range(4)]
    ids = [new_id() for _ in backends]
    started = zip(backends, ids, strict=True)
    await asyncio.gather(*(each.start(name, a_template()) for each, name in started))
    assert len(pods.agents()) == 1
    assert not any(each.verb == "watch" for each in pods.api.requests)  # it has one
    for backend, name in zip(backends, ids, strict=True):
        await backend.stop(name)


async def test_a_start_that_is_cancelled_while_something_is_made(pods: Pods) -> None:
    pods.api.create_seconds = 0.2
    for resource in ("networkpolicies", "secrets", "pods"):
        asked = len(pods.api.requests)
        starting = asyncio.ensure_future(pods.backend.start(new_id(), a_template()))
        await until(lambda: resource in [each.resource for each in pods.api.requests[asked:]])  # noqa: B023
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert left(pods.api) == []
        await asyncio.sleep(0.3)
        assert left(pods.api) == []


async def test_a_start_that_is_cancelled_leaves_nothing(pods: Pods) -> None:
    pods.api.kubelet = waiting("ContainerCreating")
    starting = asyncio.ensure_future(pods.backend.start(new_id(), a_template()))
    await until(lambda: pods.api.names("pods"))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert left(pods.api) == []


@pytest.mark.parametrize("name", ["", "UPPERCASE1", "../../etc", "a" * 30])
async def test_what_is_no_id_asks_nothing(pods: Pods, name: str) -> None:
    await refused(pods.backend.start(name, a_template()), InvalidRequest)
    await refused(pods.backend.stop(name), InvalidRequest)
    assert pods.api.requests == []


async def test_what_pods_cannot(pods: Pods) -> None:
    await refused(pods.backend.pause(new_id()), Unsupported)
    await refused(pods.backend.resume(new_id()), Unsupported)
    await pods.backend.foreground(new_id(), whose={"tenant": "acme"})  # nothing is left of it
    await refused(pods.backend.stats(new_id()), WorkspaceNotFound)
    await refused(pods.backend.set_egress(new_id(), egress="all"), WorkspaceNotFound)
    assert pods.backend.tally(new_id()) is None


# Starts that fail: the error says why, and nothing is left.


async def _no_handler(api: KubernetesApi, pod: Spec) -> None:
    api.event(pod, "FailedCreatePodSandBox", 'no runtime for "kata-clh" is configured')


async def _unschedulable(api: KubernetesApi, pod: Spec) -> None:
    why = "0/3 nodes are available: 1 Insufficient memory."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    api.status(pod, conditions=[condition | {"message": why}])


async def _evicted(api: KubernetesApi, pod: Spec) -> None:
    api.status(pod, phase="Failed", reason="Evicted", message="The node was low on memory.")


async def _deleted(api: KubernetesApi, pod: Spec) -> None:
    await asyncio.sleep(0.3)
    api.remove("pods", "carrel-desktops", pod["metadata"]["name"])


async def _silent(api: KubernetesApi, pod: Spec) -> None:
    running = [{"name": "desktop", "state": {"running": {}}}]
    api.objects["pods", "carrel-desktops", pod["metadata"]["name"]]["log"] = "X is not there"
    api.status(pod, phase="Running", podIP="127.88.0.1", containerStatuses=running)


@pytest.mark.parametrize(
    ("kubelet", "kind", "says", "hint"),
    [
        (waiting("ImagePullBackOff", "denied"), StartFailed, "cannot be pulled. denied", "_IMAGE"),
        (waiting("InvalidImageName"), StartFailed, "no image's name", "_IMAGE"),
        (waiting("CreateContainerError", "no cp"), StartFailed, "CreateContainerError", ""),
        (failing(reason="OOMKilled", exitCode=137), StartFailed, "memory was full", ""),
        (failing(reason="Error", exitCode=3), StartFailed, "exit code 3", ""),
        (_no_handler, BackendUnavailable, "no handler for the RuntimeClass 'kata-clh'", "kata-d"),
        (_evicted, StartFailed, "low on memory", ""),
        (_deleted, StartFailed, "was deleted while it started", ""),
    ],
)
async def test_why_a_start_fails(
    pods: Pods, kubelet: kubernetes_api.Kubelet, kind: type[CarrelError], says: str, hint: str
) -> None:
    pods.api.kubelet = kubelet
    error = await refused(pods.backend.start(new_id(), a_template()), kind)
    assert says in error.message
    assert hint in error.hint
    assert left(pods.api) == []


async def test_no_place(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workspace.backends.kube.pods.UNSCHEDULABLE_SECONDS", 0.3)
    pods.api.kubelet = _unschedulable
    error = await refused(pods.backend.start(new_id(), a_template()), NoCapacity)
    assert "Insufficient memory" in error.message
    assert left(pods.api) == []


async def test_too_late_says_what_the_cluster_said(pods: Pods) -> None:
    async def kubelet(api: KubernetesApi, pod: Spec) -> None:
        await waiting("ContainerCreating")(api, pod)
        api.event(pod, "FailedMount", "the disk is on the moon")

    pods.api.kubelet = kubelet
    backend = pods.another(start_seconds=2)
    error = await refused(backend.start(new_id(), a_template()), StartFailed)
    assert "ContainerCreating" in error.message
    assert "FailedMount: the disk is on the moon" in error.message
    assert left(pods.api) == []


async def test_a_pod_whose_daemon_does_not_answer(pods: Pods) -> None:
    pods.api.kubelet = _silent
    backend = pods.another(start_seconds=2)
    error = await refused(backend.start(new_id(), a_template()), StartFailed)
    assert "not ready in time" in error.message
    assert "X is not there" in error.message
    assert "NetworkPolicies" in error.hint
    assert left(pods.api) == []


async def test_a_class_that_is_not_installed(pods: Pods) -> None:
    api = pods.api
    api.remove("runtimeclasses", "", "kata-clh")
    api.put("runtimeclasses", {"metadata": {"name": "kata-qemu"}, "handler": "kata-qemu"})
    error = await refused(pods.backend.start(new_id(), a_template()), BackendUnavailable)
    assert "no RuntimeClass 'kata-clh'" in error.message
    assert "kata-qemu" in error.hint
    assert left(api) == []


async def test_a_right_that_is_missing(pods: Pods) -> None:
    pods.api.rules = [
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"],
         "verbs": ["create", "delete", "list", "get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]},
    ]  # fmt: skip
    error = await refused(pods.backend.start(new_id(), a_template()), BackendUnavailable)
    assert "lacks the right to create secrets in namespace carrel-desktops" in error.message
    assert left(pods.api) == []


async def test_a_namespace_that_is_not_there(pods: Pods) -> None:
    pods.api.remove("namespaces", "", "carrel-desktops")
    error = await refused(pods.backend.start(new_id(), a_template()), BackendUnavailable)
    assert 'namespaces "carrel-desktops" not found' in error.message


async def test_a_namespace_that_is_new(pods: Pods) -> None:
    soon = "error looking up service account carrel-desktops/default: not found"
    pods.api.fail("create", "pods", 403, message=soon, times=2)
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    await pods.backend.stop(workspace_id)


# Faults of the API.


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("resource", ["networkpolicies", "secrets", "pods"])
@pytest.mark.parametrize("does", [False, True])
async def test_what_is_asked_twice_is_made_once(
    pods: Pods, status: int, resource: str, does: bool
) -> None:
    """A 500 may come after the object was made: then there is a 409, of our own object."""
    pods.api.fail("create", resource, status, does=does, Retry_After="0")
    pods.api.fail("delete", "pods", status, does=does)
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    assert len(pods.api.names("pods")) == 1
    await pods.backend.stop(workspace_id)
    assert left(pods.api) == []


@pytest.mark.parametrize("resource", ["networkpolicies", "secrets", "pods"])
async def test_two_who_change_a_quota_at_once(pods: Pods, resource: str) -> None:
    """A conflict says nothing of an object of that name."""
    pods.api.fail("create", resource, 409, times=2, reason="Conflict")
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    assert len(pods.api.names("secrets")) == 1
    await pods.backend.stop(workspace_id)


async def test_another_ones_object_of_that_name(pods: Pods) -> None:
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    other = pods.another()
    error = await refused(other.start(workspace_id, a_template()), StartFailed)
    assert "there is one already" in error.message
    assert pods.api.names("pods") == [f"desktop-{workspace_id}"]
    await other.aclose()
    await pods.backend.stop(workspace_id)


async def test_the_api_is_away_for_a_while(pods: Pods) -> None:
    workspace_id, other = new_id(), new_id()
    await pods.backend.start(workspace_id, a_template())
    await pods.api.go_away()
    starting = asyncio.ensure_future(pods.backend.start(other, a_template()))
    ending = asyncio.ensure_future(pods.backend.wait(workspace_id))
    await asyncio.sleep(1.5)
    assert not starting.done()
    assert not ending.done()
    await pods.api.start()
    await starting
    await pods.backend.stop(other)
    pods.api.status(pods.api.get("pods", f"desktop-{workspace_id}"), phase="Failed", reason="X")
    assert "Its pod ended (X)" in await asyncio.wait_for(ending, 15)
    await pods.backend.stop(workspace_id)
    assert left(pods.api) == []


async def test_an_api_that_has_just_started_knows_no_roles_yet(pods: Pods) -> None:
    """A real one answers 403 for a moment; a right that is missing for good is told of at once."""
    await pods.api.go_away()
    starting = asyncio.ensure_future(pods.backend.start(workspace_id := new_id(), a_template()))
    await asyncio.sleep(0.5)
    pods.api.fail("create", "networkpolicies", 403, times=3, message="no role is known yet")
    await pods.api.start()
    await starting
    await pods.backend.stop(workspace_id)


async def test_a_start_outlives_an_api_that_is_away(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than it is asked again for: its pod was made, and comes to run."""
    monkeypatch.setattr("workspace.backends.kube.link.ASK_SECONDS", 0.3)
    monkeypatch.setattr("workspace.backends.kube.starting._LOOK_SECONDS", 0.2)
    pods.api.kubelet = lambda api, pod: run_pod(api, pod, seconds=3.0)
    workspace_id = new_id()
    starting = asyncio.ensure_future(pods.backend.start(workspace_id, a_template()))
    await until(lambda: pods.api.names("pods"))
    await pods.api.go_away()
    await asyncio.sleep(1.5)
    assert not starting.done()
    await pods.api.start()
    await starting
    monkeypatch.undo()
    await pods.backend.stop(workspace_id)


async def test_an_api_that_is_not_there(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workspace.backends.kube.link.ASK_SECONDS", 1.0)
    await pods.api.go_away()
    error = await refused(pods.backend.list(), BackendUnavailable)
    assert "does not answer" in error.message
    assert "doctor" in error.hint
    await pods.api.start()


async def test_no_credentials(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workspace.backends.kube.link.ASK_SECONDS", 1.0)
    backend = pods.another(kubeconfig="/nowhere/kubeconfig")
    error = await refused(backend.list(), BackendUnavailable)
    assert "/nowhere/kubeconfig cannot be had" in error.message


async def test_a_watch_that_is_too_old(pods: Pods) -> None:
    """Whether it is said as a status or in the stream: all is listed again."""
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    ending = asyncio.ensure_future(pods.backend.wait(workspace_id))
    for _ in range(2):
        asked = len(pods.api.requests)
        pods.api.version += 1
        pods.api.forget_versions()
        await until(lambda: len(pods.api.requests) >= asked + 2)  # noqa: B023
        assert [each.verb for each in pods.api.requests[asked:]] == ["list", "watch"]
    pods.api.version += 1
    pods.api.forget_versions()
    pods.api.cut()
    pods.api.remove("pods", "carrel-desktops", f"desktop-{workspace_id}")
    assert "deleted" in await asyncio.wait_for(ending, 15)
    await pods.backend.stop(workspace_id)


async def test_a_watch_that_is_slow(pods: Pods) -> None:
    """Then the pod is looked at."""
    pods.api.watch_delay = 30.0
    workspace_id = new_id()
    started = time.monotonic()
    await pods.backend.start(workspace_id, a_template())
    assert time.monotonic() - started < 9
    await pods.backend.stop(workspace_id)
    assert left(pods.api) == []


def test_a_watch_that_ends_at_once_is_not_asked_for_all_the_time() -> None:
    class Ending:
        def __init__(self) -> None:
            self.watches = 0

        def list_all(self, *args: object, **more: object) -> Answer:
            return Answer(200, {"items": [], "metadata": {"resourceVersion": "1"}})

        def watch(self, *args: object, **more: object) -> list[object]:
            self.watches += 1
            return []

    api = Ending()
    given = agent.Given(socket="", namespace="x", cluster="x")
    watched = agent.Watched(api, given, lambda *told: None, lambda: None)  # type: ignore[arg-type]
    thread = threading.Thread(target=watched.run)
    thread.start()
    time.sleep(0.6)
    watched.is_ending = True
    thread.join()
    assert 1 <= api.watches <= 5


async def test_who_follows_what_is_not_listed_is_told_to_look() -> None:
    said: list[object] = []

    class Client(agent._Client):
        def say(self, told: dict[str, object]) -> None:
            said.append(told)

    client = Client(None)  # type: ignore[arg-type]
    client.follows = {"there", "gone"}
    given = agent.Given(socket="", namespace="x", cluster="x")
    told = agent.Agent(None, given)  # type: ignore[arg-type]
    told._clients.add(client)
    told._watched.pods["there"] = {}
    told._have_looked_for()
    assert said == [{"look": "gone"}]


async def test_what_cannot_be_looked_at_is_looked_at_again(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_AGAIN_SECONDS", 0.01)
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    ours = pods.backend._link
    say, fails = ours._say, iter([True, True])

    async def failing_first(what: dict[str, object], seconds: float) -> dict[str, object]:
        if next(fails, False):
            raise BackendUnavailable("The agent does not start.")
        return await say(what, seconds)

    monkeypatch.setattr(ours, "_say", failing_first)
    ending = asyncio.ensure_future(pods.backend.wait(workspace_id))
    [pid] = pods.agents()
    os.kill(pid, signal.SIGKILL)
    pods.api.remove("pods", "carrel-desktops", f"desktop-{workspace_id}")
    assert "deleted" in await asyncio.wait_for(ending, 10)
    await pods.backend.stop(workspace_id)


def test_an_old_look_changes_nothing_that_was_told_since() -> None:
    followed = link.Followed()
    followed.put({"is": "running"})
    before = followed.pod
    followed.put({"is": "over"})
    followed.look(before, Answer(200, {"is": "running"}))
    assert followed.pod == {"is": "over"}
    followed.put(None)
    followed.put({"is": "running"})
    assert followed.is_gone


async def test_a_slow_end(pods: Pods) -> None:
    """Its end is accepted, and waited for in bounds; what is still there is still listed."""
    pods.api.delete_seconds = 3.0
    backend = pods.another(stop_seconds=1)
    workspace_id = new_id()
    await backend.start(workspace_id, a_template())
    started = time.monotonic()
    await backend.stop(workspace_id)
    assert time.monotonic() - started < 3
    assert "deletionTimestamp" in str(pods.api.objects) or left(pods.api) == []


# Ends of its own, and deaths.


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}, "disk pressure"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "activeDeadlineSeconds"),
        ({"phase": "Failed", "reason": "NodeLost"}, "Its node went away"),
        (
            {
                "containerStatuses": [
                    {"name": "desktop", "state": {"terminated": {"reason": "OOMKilled"}}}
                ]
            },
            "memory was full",
        ),
    ],
)
async def test_why_a_desktop_ends(pods: Pods, status: Spec, says: str) -> None:
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    ending = asyncio.ensure_future(pods.backend.wait(workspace_id))
    pods.api.status(pods.api.get("pods", f"desktop-{workspace_id}"), **status)
    assert says in await asyncio.wait_for(ending, 5)
    await pods.backend.stop(workspace_id)
    assert left(pods.api) == []


async def test_an_actor_that_dies_takes_its_pod_along(pods: Pods) -> None:
    other = pods.another()
    dead, alive = new_id(), new_id()
    await other.start(dead, a_template())
    await pods.backend.start(alive, a_template())
    await other.aclose()  # as the end of its process would
    await until(lambda: pods.api.names("pods") == [f"desktop-{alive}"])
    await until(lambda: pods.api.names("secrets") and len(pods.api.names("secrets")) == 1)
    await pods.backend.stop(alive)
    assert left(pods.api) == []


async def test_an_actor_that_dies_while_the_api_is_away(pods: Pods) -> None:
    other = pods.another()
    await other.start(new_id(), a_template())
    await pods.api.go_away()
    await other.aclose()
    await asyncio.sleep(0.6)  # the agent has noticed, and can do nothing
    await pods.api.start()
    await until(lambda: left(pods.api) == [])


async def test_an_agent_that_is_killed_is_replaced(pods: Pods) -> None:
    workspace_id, other = new_id(), new_id()
    await pods.backend.start(workspace_id, a_template())
    await pods.backend.start(other, a_template())
    ends = [asyncio.ensure_future(pods.backend.wait(each)) for each in (workspace_id, other)]
    [agent] = pods.agents()
    os.kill(agent, signal.SIGKILL)
    pods.api.remove("pods", "carrel-desktops", f"desktop-{other}")
    assert "deleted" in await asyncio.wait_for(ends[1], 10)
    assert not ends[0].done()
    assert pods.agents() != [agent]
    pods.api.remove("pods", "carrel-desktops", f"desktop-{workspace_id}")
    assert "deleted" in await asyncio.wait_for(ends[0], 10)
    for each in (workspace_id, other):
        await pods.backend.stop(each)
    assert left(pods.api) == []


async def test_an_agent_that_is_told_to_end_leaves_no_file(pods: Pods) -> None:
    backend = pods.another(place={"node": "another"})  # an agent of its own
    known = set(pods.agents())
    assert await backend.list() == []
    [agent] = set(pods.agents()) - known
    files = [path for path in os.listdir(pods.folder) if path.startswith("kube-")]
    os.kill(agent, signal.SIGTERM)
    await until(lambda: agent not in pods.agents())
    await until(lambda: len(os.listdir(pods.folder)) <= 1 + len(files) - 2)


async def test_any_process_lists_and_stops_what_is_left(pods: Pods) -> None:
    """By labels, whoever made it and whatever of it is left; of no other cluster."""
    workspace_id, foreign = new_id(), new_id()
    await pods.backend.start(workspace_id, a_template())
    theirs = pods.another(cluster="theirs")
    await theirs.start(foreign, a_template())
    pods.api.remove("pods", "carrel-desktops", f"desktop-{workspace_id}")
    reaper = pods.another(place={})
    assert await reaper.list() == [workspace_id]
    await reaper.stop(workspace_id)
    assert await reaper.list() == []
    assert await theirs.list() == [foreign]
    await theirs.stop(foreign)


# Volumes.


async def test_a_volume_stays_and_has_one_desktop(pods: Pods) -> None:
    api, volume = pods.api, new_id()
    first, second = new_id(), new_id()
    await pods.backend.start(first, a_template(), volume=Mount(id=volume, is_new=True))
    assert api.names("persistentvolumeclaims") == [f"volume-{volume}"]
    await refused(pods.backend.start(second, a_template(), volume=Mount(id=volume)), VolumeInUse)
    await refused(pods.backend.remove_volume(volume), VolumeInUse)
    await pods.backend.stop(first)
    assert sum(api.writes().values()) - api.writes()["delete", "pods"] <= 7
    await pods.backend.start(second, a_template(), volume=Mount(id=volume))
    pod = api.get("pods", f"desktop-{second}")
    [home] = [each for each in pod["spec"]["volumes"] if each["name"] == "home"]
    assert home["persistentVolumeClaim"]["claimName"] == f"volume-{volume}"
    await pods.backend.stop(second)
    await pods.backend.remove_volume(volume)
    await pods.backend.remove_volume(volume)  # again
    assert api.names("persistentvolumeclaims") == []
    await refused(
        pods.backend.start(new_id(), a_template(), volume=Mount(id=volume)), VolumeNotFound
    )
    assert left(api) == []


async def test_a_volume_is_in_use_until_its_pod_is_gone(pods: Pods) -> None:
    """One that is being deleted may still write."""
    pods.api.delete_seconds = 1.0
    backend, volume, workspace_id = pods.backend, new_id(), new_id()
    await backend.start(workspace_id, a_template(), volume=Mount(id=volume, is_new=True))
    await backend._calls.delete("", "pods", f"desktop-{workspace_id}")
    await refused(backend.start(new_id(), a_template(), volume=Mount(id=volume)), VolumeInUse)
    await backend.stop(workspace_id)


# The way out.


async def test_the_proxy_serves_its_own_desktop_alone(pods: Pods) -> None:
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    policy = pods.api.get("networkpolicies", f"desktop-{workspace_id}")
    [rule] = policy["spec"]["egress"]
    port = rule["ports"][0]["port"]
    address = pods.api.get("pods", f"desktop-{workspace_id}")["status"]["podIP"]

    async def ask(source: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            writer.write(b"GET http://example.test/ HTTP/1.1\r\nHost: example.test\r\n\r\n")
            return await asyncio.wait_for(reader.read(1000), 5)
        except ConnectionResetError:
            return b""
        finally:
            writer.transport.abort()

    assert b" 403 " in await ask(address)  # its template lets it out nowhere
    assert await ask("127.0.0.9") == b""
    tally = pods.backend.tally(workspace_id)
    assert tally is not None
    await pods.backend.set_egress(workspace_id, egress=["example.test:80"])
    assert b" 403 " not in await ask(address)
    await pods.backend.stop(workspace_id)
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await ask(address)


async def test_without_an_address_of_its_own_there_is_no_way_out(pods: Pods) -> None:
    backend = pods.another(place={"node": NODE})
    workspace_id = new_id()
    await backend.start(workspace_id, a_template())
    assert pods.api.get("networkpolicies", f"desktop-{workspace_id}")["spec"]["egress"] == []
    await refused(backend.set_egress(workspace_id, egress="all"), Unsupported)
    await backend.stop(workspace_id)


async def test_stats_where_the_cluster_measures(pods: Pods) -> None:
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template())
    assert (await pods.backend.stats(workspace_id)).memory_mib is None  # no metrics server
    usage = [{"usage": {"memory": "524288Ki"}}, {"usage": {"memory": "1Mi"}}]
    pods.api.metrics[f"desktop-{workspace_id}"] = {"containers": usage}
    assert (await pods.backend.stats(workspace_id)).memory_mib == 513
    await pods.backend.stop(workspace_id)


async def test_a_late_pod_is_as_good(pods: Pods) -> None:
    pods.api.kubelet = lambda api, pod: run_pod(api, pod, seconds=1.0)
    workspace_id = new_id()
    await pods.backend.start(workspace_id, a_template(), background=True)
    await pods.backend.stop(workspace_id)
