"""The backend on a real API and real pods: what a desktop is there, from its start to its end."""

from __future__ import annotations

import asyncio
import http.server
import io
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from tests.kubernetes.audit import Audit
from tests.kubernetes.cluster import DESKTOPS, Cluster, path
from tests.kubernetes.conftest import (
    Backends,
    a_template,
    eventually_nothing,
    new_id,
    refused,
)
from tests.kubernetes.namespaces import ADDRESS
from tests.kubernetes.node import KATA, NODE, ToldOf
from workspace.backends import manifests
from workspace.backends.base import Endpoint, Mount
from workspace.desktop import Desktop, connect
from workspace.errors import StartFailed, VolumeInUse
from workspace.models import Stats
from workspace.proxy.addresses import networks

pytestmark = pytest.mark.anyio
MOST_WRITES = 6


@asynccontextmanager
async def closing(endpoint: Endpoint) -> AsyncIterator[Desktop]:
    desktop = connect(endpoint)
    try:
        yield desktop
    finally:
        await desktop.aclose()


async def says(desktop: Desktop, command: str) -> str:
    """What a command prints that must succeed."""
    done = await desktop.run(command, timeout_seconds=30)
    assert done.exit_code == 0, done
    return done.stdout.strip()


async def test_a_desktop_from_start_to_end(backends: Backends, audit: Audit) -> None:
    backend, workspace_id = backends.make(), new_id()
    await backend.list()  # the agent runs, and watches
    mark = audit.mark()
    endpoint = await backend.start(workspace_id, a_template())
    assert len(audit.writes_since(mark)) == 3
    await backend.foreground(workspace_id, whose={"workspace": "w1", "tenant": "Acme, Inc."})
    pod = backends.cluster.get("Pod", f"desktop-{workspace_id}")
    labels = pod["metadata"]["labels"]
    assert labels["carrel.dev/workspace"] == "w1"
    assert labels["carrel.dev/tenant"] == manifests.label("Acme, Inc.")
    assert endpoint.url == f"http://{pod['status']['podIP']}:7000"
    async with closing(endpoint) as desktop:
        assert (await desktop.health()).ready
        assert (await desktop.click(10, 20)).cursor == (10, 20)
        with Image.open(io.BytesIO(await desktop.screenshot())) as picture:
            assert picture.size == (1280, 800)
        # Nobody asks the API of a desktop that lives.
        idle = audit.mark()
        assert await says(desktop, "sleep 3; id -u") == "1000"
        assert audit.since(idle) == []
    assert await backend.list() == [workspace_id]
    assert await backend.stats(workspace_id) == Stats()  # there is no metrics server
    await backend.stop(workspace_id)
    writes = audit.writes_since(mark)
    assert len(writes) <= MOST_WRITES, writes
    await eventually_nothing(backends)
    assert await backend.list() == []
    await backend.stop(workspace_id)  # again: it is gone already


async def test_what_is_seen_inside(backends: Backends) -> None:
    backend, workspace_id = backends.make(), new_id()
    token = (endpoint := await backend.start(workspace_id, a_template())).token
    async with closing(endpoint) as desktop:
        status = dict(
            line.split(":\t", 1)
            for line in (await says(desktop, "cat /proc/self/status")).splitlines()
        )
        assert status["Uid"].split() == ["1000"] * 4
        assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        # The root is read-only; home, /tmp and /run are not.
        done = await desktop.run("touch /usr/x || touch /etc/x || touch /x", timeout_seconds=10)
        assert done.exit_code != 0
        await says(desktop, "touch ~/x /tmp/x /run/user/1000/x && echo '#!/bin/sh' > /tmp/run")
        await says(desktop, "chmod +x /tmp/run && /tmp/run")
        size = await says(desktop, "df --output=size -m /dev/shm | tail -1")
        assert int(size) == 512
        # Nothing of what desktopd was given, nor of the cluster's.
        seen = await says(
            desktop, "cat /proc/*/environ /run/carrel/* 2>/dev/null | tr '\\0' '\\n'; ls -a /run"
        )
        assert token not in seen
        assert "serviceaccount" not in await says(desktop, "ls /var/run/secrets 2>&1 || true")
        assert await says(desktop, "ls /run/carrel") == ""
        # Names are resolved by the proxy alone.
        lookup = await desktop.run("timeout 5 getent hosts example.org", timeout_seconds=10)
        assert lookup.exit_code != 0
        # Chromium's own sandbox is made of user namespaces, which this filter leaves.
        assert await says(desktop, "unshare --user --map-root-user id -u") == "0"
    await backend.stop(workspace_id)


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from outside")

    def log_message(self, *args: object) -> None: ...


@contextmanager
def serving(address: str) -> Iterator[int]:
    with http.server.ThreadingHTTPServer((address, 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


async def test_the_way_out(backends: Backends) -> None:
    """Through the proxy of its actor, as far as its rules go, and through no other's."""
    backend = backends.make()
    first, second = new_id(), new_id()
    with serving("127.0.0.1") as port:
        where = f"named.test:{port}"
        backend._resolve, backend._private = _resolved, networks(["127.0.0.1/32"])
        ends = await asyncio.gather(
            backend.start(first, a_template(egress=[where])), backend.start(second, a_template())
        )
        ask = (
            f"python3 -c \"import urllib.request as u; print(u.urlopen('http://{where}/').read())\""
        )
        async with closing(ends[0]) as one, closing(ends[1]) as other:
            assert "from outside" in await says(one, ask)
            tally = backend.tally(first)
            assert tally is not None
            done = await other.run(ask, timeout_seconds=20)
            assert "403" in done.stderr
            proxy = await says(one, "echo $http_proxy")
            done = await other.run(f"http_proxy={proxy} {ask}", timeout_seconds=20)
            assert done.exit_code != 0
            assert "from outside" not in done.stdout
            await backend.set_egress(second, egress=[where])
            assert "from outside" in await says(other, ask)
    await asyncio.gather(backend.stop(first), backend.stop(second))


async def _resolved(host: str) -> list[str]:
    assert host == "named.test"
    return ["127.0.0.1"]


async def test_a_pod_goes_to_its_actors_node(backends: Backends, cluster: Cluster) -> None:
    """And to no other, though that has more room."""
    told = ToldOf(cluster.admin, "node2", KATA)
    here, there = new_id(), new_id()
    try:
        backend = backends.make()
        await backend.start(here, a_template())
        assert cluster.get("Pod", f"desktop-{here}")["spec"]["nodeName"] == NODE
        other = backends.make(place={"node": "node2", "pod_ip": ADDRESS}, start_seconds=6)
        starting = asyncio.ensure_future(other.start(there, a_template()))
        for _ in range(100):
            pods = {each["metadata"]["name"]: each for each in cluster.objects("Pod")}
            if "nodeName" in pods.get(f"desktop-{there}", {"spec": {}})["spec"]:
                break
            await asyncio.sleep(0.05)
        assert pods[f"desktop-{there}"]["spec"]["nodeName"] == "node2"
        error = await refused(starting, StartFailed)  # nothing runs there
        assert "did not run in time (Pending)" in error.message
        await backend.stop(here)
    finally:
        await asyncio.to_thread(told.remove)
        where = path("v1", "Pod", DESKTOPS, f"desktop-{there}")  # nobody there ends it
        cluster.admin.delete(where, params={"gracePeriodSeconds": "0"})


async def test_many_at_once(backends: Backends, audit: Audit) -> None:
    backend = backends.make()
    ids = [new_id() for _ in range(4)]
    mark = audit.mark()
    template = a_template(memory_mib=512)
    ends = await asyncio.gather(*(backend.start(each, template) for each in ids))
    assert len({end.url for end in ends}) == len(ids)
    assert len(audit.writes_since(mark)) == 3 * len(ids)
    assert audit.since(mark).count("watch pods") <= 1
    assert len(backends.agents()) == 1
    await asyncio.gather(*(backend.stop(each) for each in ids))


async def test_a_volume_stays(backends: Backends, cluster: Cluster, tmp_path: Path) -> None:
    volume, first, second = new_id(), new_id(), new_id()
    folder = cluster.folder / "volume"
    folder.mkdir()
    folder.chmod(0o777)
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "tests"},
            "spec": {
                "storageClassName": "tests",
                "capacity": {"storage": "8Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(folder)},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        }
    ).raise_for_status()
    backend = backends.make(storage_class="tests")
    start = partial(backend.start, template=a_template())
    endpoint = await start(first, volume=Mount(id=volume, is_new=True))
    async with closing(endpoint) as desktop:
        await says(desktop, "echo kept > ~/note")
    await refused(start(second, volume=Mount(id=volume)), VolumeInUse)
    await refused(backend.remove_volume(volume), VolumeInUse)
    await backend.stop(first)
    endpoint = await start(second, volume=Mount(id=volume))
    async with closing(endpoint) as desktop:
        assert await says(desktop, "cat ~/note") == "kept"
    await backend.stop(second)
    await backend.remove_volume(volume)
    for _ in range(200):
        if not cluster.names("PersistentVolumeClaim"):
            break
        await asyncio.sleep(0.1)
    assert cluster.names("PersistentVolumeClaim", DESKTOPS) == []
    cluster.admin.delete("/api/v1/persistentvolumes/tests").raise_for_status()
