"""What the backend of pods costs by itself: beside an API and pods that take no time.

``python -m benchmarks.pods`` starts and ends desktops over a Kubernetes API in memory, whose pods
answer at once: what is left is the backend's own. It tells too how often the API is written to,
what a desktop that lives asks of it, and what memory the client takes, in a node's agent in place
of every actor. No virtual machine, kubelet or real API server is in these numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.kubernetes_api import NODE, KubernetesApi
from workspace.backends.kata import KataBackend
from workspace.models import Template

MANY, AT_ONCE, IDLE_SECONDS = 30, 10, 5.0
ASKED_MS, ASKED_WRITES, ASKED_IDLE = 100, 6, 0
_MEMORY = (
    "def own():\n"
    "    lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
    "    return sum(int(line.split()[1]) for line in lines if line.startswith('Private_')) / 1024\n"
    "import asyncio, json, ssl, pydantic\n"
    "before = own()\n"
    "{what}\n"
    "print(own() - before)\n"
)


class Measured(NamedTuple):
    """One number; ``asked`` is what it should at most be."""

    name: str
    unit: str
    value: float
    asked: float | None = None


async def measure() -> list[Measured]:
    api = KubernetesApi()
    await api.start()
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        backend = KataBackend(
            folder,
            {"image": "x", "kubeconfig": api.kubeconfig(Path(folder))},
            "bench",
            place={"node": NODE, "pod_ip": "127.0.0.1"},
            agent_seconds=(0.2, 0.2),
        )
        began = time.monotonic()
        await backend.list()
        agent = time.monotonic() - began
        starts, stops = [], []
        for _ in range(MANY):
            start, stop = await _one(backend)
            starts.append(start)
            stops.append(stop)
        api.requests.clear()
        began = time.monotonic()
        await asyncio.gather(*(_one(backend) for _ in range(AT_ONCE)))
        at_once = time.monotonic() - began
        writes = sum(api.writes().values()) / AT_ONCE
        idle = await _idle(api, backend)
        await backend.aclose()
        await asyncio.sleep(1)  # the agent ends
    await api.stop()
    return [
        Measured("start of a desktop", "ms", statistics.median(starts) * 1000, ASKED_MS),
        Measured("its end, 20 of them the pod's", "ms", statistics.median(stops) * 1000, ASKED_MS),
        Measured(f"{AT_ONCE} at once, start and end", "ms", at_once * 1000),
        Measured("writes of a desktop", "requests", writes, ASKED_WRITES),
        Measured("a desktop that lives", "requests a minute", idle, ASKED_IDLE),
        Measured("the first one's agent", "ms", agent * 1000),
        Measured("the client that the agent has", "MiB", _memory("kubernetes.client.api_client")),
        Measured("the client's classes", "MiB", _memory("kubernetes.client.api.core_v1_api")),
    ]


async def _one(backend: KataBackend) -> tuple[float, float]:
    workspace_id = secrets.token_hex(5)
    began = time.monotonic()
    await backend.start(workspace_id, Template(name="bench", backend="kata"))
    started = time.monotonic()
    await backend.stop(workspace_id)
    return started - began, time.monotonic() - started


async def _idle(api: KubernetesApi, backend: KataBackend) -> float:
    workspace_id = secrets.token_hex(5)
    await backend.start(workspace_id, Template(name="bench", backend="kata"))
    asked = len(api.requests)
    await asyncio.sleep(IDLE_SECONDS)
    found = len(api.requests) - asked
    await backend.stop(workspace_id)
    return found * 60 / IDLE_SECONDS


def _memory(module: str) -> float:
    code = _MEMORY.format(what=f"import {module}")
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    tell(asyncio.run(measure()), as_json=arguments.json)


def tell(found: Sequence[Measured], *, as_json: bool) -> None:
    """Print them, a line each with what was asked, or as one list of JSON."""
    if as_json:
        print(json.dumps([each._asdict() for each in found]))
        return
    for each in found:
        asked = "" if each.asked is None else f"   asked: at most {each.asked:g}"
        amount = f"{each.value:>8.2f}" if each.unit == "s" else f"{each.value:>8.1f}"
        print(f"{each.name:<36} {amount} {each.unit}{asked}")


if __name__ == "__main__":
    main()
