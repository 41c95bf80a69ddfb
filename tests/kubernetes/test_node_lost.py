"""A node that goes away: what is told of its desktops, and that none of them is left."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.kubernetes.cluster import Cluster, path
from tests.kubernetes.conftest import Backends, a_template, new_id
from tests.kubernetes.node import NODE, is_ready
from tests.waiting import eventually

pytestmark = pytest.mark.anyio
GONE_SECONDS = 120  # the cluster waits 40 to 60 for a node to come again


async def test_a_node_that_is_gone(backends: Backends, cluster: Cluster) -> None:
    backend = backends.make(stop_seconds=2)
    lost, stopped = new_id(), new_id()
    await asyncio.gather(backend.start(lost, a_template()), backend.start(stopped, a_template()))
    waiting = asyncio.ensure_future(backend.wait(lost))
    cluster.node.kubelet.kill()
    try:
        # Nobody there ends a pod: it is asked for, and still told of.
        began = time.monotonic()
        await backend.stop(stopped)
        assert time.monotonic() - began < 10
        assert await backend.list() == sorted([lost, stopped])
        await eventually(lambda: not is_ready(cluster.admin, NODE), 60)
        cluster.admin.delete(path("v1", "Node", "", NODE)).raise_for_status()
        why = await asyncio.wait_for(waiting, GONE_SECONDS)
        assert why in ("Its pod was deleted from the cluster.", "Its pod is being deleted.")
        await backend.stop(lost)
        await eventually(lambda: not backends.left(), GONE_SECONDS)
        assert await backend.list() == []
    finally:
        cluster.node.kubelet.start()
        await asyncio.to_thread(cluster.node.until_ready)
    # It is as good as before, and what ran on it does no longer.
    again = new_id()
    await backend.start(again, a_template())
    await backend.stop(again)
