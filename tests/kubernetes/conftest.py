"""One real cluster for all of these tests, in a network of its own, and the backend on it.

They are run by `make test-kubernetes`, and not by plain `make test`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import pytest

from tests.images.desktop import desktop_archive
from tests.kubernetes.audit import Audit
from tests.kubernetes.cluster import DESKTOPS, Cluster, running
from tests.kubernetes.namespaces import ADDRESS, own_network
from tests.kubernetes.node import NODE
from workspace.backends.kata import KataBackend
from workspace.errors import CarrelError
from workspace.models import Template

IMAGE = "localhost/carrel-desktop:debian-browser"
GONE_SECONDS = 40.0  # of a pod that is being deleted
TEST_SECONDS = 400  # the first has the cluster started
PLACE = {"node": NODE, "pod_ip": ADDRESS, "namespace": "carrel"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="session")
def archive() -> Path:
    """The desktop's image: made outside of the tests' network, which leads nowhere."""
    return desktop_archive()


@pytest.fixture(scope="session")
def network(archive: Path, nothing_is_left: None) -> Iterator[None]:
    with own_network():
        yield


@pytest.fixture(scope="session")
def cluster(network: None, archive: Path) -> Iterator[Cluster]:
    with running() as cluster:
        cluster.node.import_image(archive)
        yield cluster


@pytest.fixture(scope="session")
def audit(cluster: Cluster) -> Audit:
    return Audit(cluster.control.audit_log)


class Backends:
    """Backends as actors of the node would make them, with exactly the manifests' rights."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.kubeconfig = cluster.kubeconfig("carrel")
        self._made: list[KataBackend] = []

    def make(
        self,
        place: dict[str, str] | None = None,
        name: str = "tests",
        agent_seconds: tuple[float, float] = (0.5, 1.0),
        **options: object,
    ) -> KataBackend:
        given = {
            "image": IMAGE,
            "pull_policy": "Never",
            "kubeconfig": self.kubeconfig,
            # Pods run without a virtual machine here: Chromium's own sandbox stays on by this.
            "seccomp": "Localhost:carrel-desktop.json",
            "cpu_request": 0.05,  # of two processors: some desktops are to fit at once
        }
        backend = KataBackend(
            self.folder,
            given | options,
            name,
            place=PLACE if place is None else place,
            agent_seconds=agent_seconds,
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

    def left(self) -> list[str]:
        """What there is of desktops; the namespace's own policy and tokens are none."""
        api = "networking.k8s.io/v1"
        return [
            *(f"pod {name}" for name in self.cluster.names("Pod")),
            *(f"secret {n}" for n in self.cluster.names("Secret") if n.startswith("desktop-")),
            *(
                f"policy {name}"
                for name in self.cluster.names("NetworkPolicy", DESKTOPS, api)
                if name != "closed"
            ),
        ]

    async def aclose(self) -> None:
        for backend in self._made:
            await backend.aclose()


@pytest.fixture
async def backends(cluster: Cluster) -> AsyncIterator[Backends]:
    """With nothing in the namespace of desktops, before and after."""
    folder = Path(tempfile.mkdtemp(prefix="ck-"))
    backends = Backends(cluster, folder)
    try:
        yield backends
        await eventually_nothing(backends)
    finally:
        await backends.aclose()
        for _ in range(200):
            if not backends.agents():
                break
            await asyncio.sleep(0.05)
        for pid in backends.agents():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)


async def eventually_nothing(backends: Backends, seconds: float = GONE_SECONDS) -> None:
    for _ in range(int(seconds / 0.1)):
        if not (left := await asyncio.to_thread(backends.left)):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"left behind: {left}")


@pytest.fixture
def backend(backends: Backends) -> KataBackend:
    return backends.make()


def a_template(**changes: object) -> Template:
    given = {"name": "tests", "backend": "kata", "session": "openbox", "memory_mib": 1024}
    return Template.model_validate(given | changes)


def new_id() -> str:
    return secrets.token_hex(5)


async def refused(work: Awaitable[object], kind: type[CarrelError]) -> CarrelError:
    with pytest.raises(kind) as caught:
        await work
    return caught.value
