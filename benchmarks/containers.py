"""What a desktop costs as a container, beside bubblewrap and beside ``podman run`` alone.

``python -m benchmarks.containers`` (root; podman and runc) starts Podman's service in folders of
its own with a small image whose daemon answers at once, so what is left is the sandbox: no X
server, no desktop. The same daemon is started in a sandbox of bubblewrap, and ``podman run`` runs
something that ends at once, each in turn with the others. It tells too how long a container is
still there after its owner was killed, and what memory the ways to speak to an engine take in each
process that does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests import podman
from workspace.backends import remains, runtime
from workspace.backends.base import Backend
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.backends.containers.api import Engine
from workspace.backends.docker import DockerBackend
from workspace.models import Template

ROUNDS, KILLED = 10, 5
STAND_IN = Path("tests/workspace/backends/stand_in.py").read_text(encoding="utf-8")
_OWN = (
    "def own():\n"
    "    lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
    "    return sum(int(line.split()[1]) for line in lines if line.startswith('Private_')) / 1024\n"
    "import asyncio, json, ssl, pydantic\n"
)
_GROWN = _OWN + "before = own()\nimport {module}\nprint(own() - before)\n"
_OWNER = """
import asyncio, json, sys
from workspace.backends.containers.api import Engine
from workspace.backends.docker import DockerBackend
from workspace.models import Template
async def main(settings, workspace_id):
    await DockerBackend(**json.loads(settings)).start(workspace_id, Template(name="bench"))
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


class Measured(NamedTuple):
    """One number, in the middle of those that were taken, and the one that 95 in 100 are below."""

    name: str
    unit: str
    p50: float
    p95: float
    n: int


async def measure(folder: Path) -> list[Measured]:
    archive = podman.tiny_image(folder, podman.ENTRY + STAND_IN)
    with podman.serving(folder) as engine:
        podman.load(engine, archive)
        settings = {
            "run_dir": str(folder / "r"),
            "disk_dir": str(folder / "d"),
            "options": {"host": f"unix://{engine.path}", "image": podman.IMAGE},
            "cluster": "bench",
        }
        command = ("/usr/bin/python3", "-I", "-S", "-c", STAND_IN)
        backends: Mapping[str, Backend] = {
            "bubblewrap": BubblewrapBackend(folder / "b", _home(folder), command=command),
            "docker": DockerBackend(**settings),  # type: ignore[arg-type]  # as from JSON
        }
        runtime.build(runtime.default_dir())
        took: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, backend in backends.items():
                start, stop = await _one(backend)
                took.setdefault(f"{name}: start", []).append(start)
                took.setdefault(f"{name}: end", []).append(stop)
            took.setdefault("podman run: start and end", []).append(_podman_run(folder))
        gone = [await _killed(engine, settings) for _ in range(KILLED)]
    took["docker: gone after its owner's SIGKILL"] = gone
    rows = [_row(name, "ms", [each * 1000 for each in values]) for name, values in took.items()]
    for module in ("http.client", "httpx", "docker"):
        grown = _memory(module)
        if grown is not None:
            rows.append(_row(f"memory of {module} in a process", "MiB", [grown]))
    return rows


def _home(folder: Path) -> Path:
    path = folder / "homes"
    path.mkdir()
    for each in (folder, path):
        each.chmod(0o711)
    return path


async def _one(backend: Backend) -> tuple[float, float]:
    workspace_id = secrets.token_hex(5)
    began = time.monotonic()
    await backend.start(workspace_id, Template(name="bench"))
    started = time.monotonic()
    await backend.stop(workspace_id)
    return started - began, time.monotonic() - started


def _podman_run(folder: Path) -> float:
    """A container that only prints: the same image, limits and isolation, by the command line."""
    command = [
        "podman", "--root", str(folder / "store"), "--runroot", str(folder / "run"), "run", "--rm",
        "--network", "none", "--read-only", "--cap-drop", "all", "--user", "1000:1000",
        "--security-opt", "no-new-privileges", "--memory", "2g", "--entrypoint", "/usr/bin/true",
        podman.IMAGE,
    ]  # fmt: skip
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
    }
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    return time.monotonic() - began


async def _killed(engine: Engine, settings: Mapping[str, object]) -> float:
    workspace_id = secrets.token_hex(5)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, json.dumps(settings), workspace_id,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None, "it is a pipe"
    assert await process.stdout.readline() == b"ready\n"
    told = engine.ask("GET", f"/containers/carrel-bench-{workspace_id}/json").body
    pid = remains.process(int(told["State"]["Pid"]))
    began = time.monotonic()
    process.kill()
    while remains.is_alive(pid):
        time.sleep(0.001)  # noqa: ASYNC251  # nothing else runs here
    took = time.monotonic() - began
    await process.wait()
    backend = DockerBackend(**settings)  # type: ignore[arg-type]  # as above
    await backend.stop(workspace_id)
    return took


def _memory(module: str) -> float | None:
    done = subprocess.run(
        [sys.executable, "-c", _GROWN.format(module=module)], capture_output=True, text=True
    )
    return float(done.stdout) if done.returncode == 0 else None


def _row(name: str, unit: str, values: list[float]) -> Measured:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return Measured(name, unit, statistics.median(ordered), p95, len(ordered))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("podman") is None:
        print("left out: containers are measured as root, with podman and runc", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/var/tmp") as name:
        found = asyncio.run(measure(Path(name)))
    if arguments.json:
        print(json.dumps([each._asdict() for each in found]))
        return
    for each in found:
        print(f"{each.name:<40} {each.p50:>8.1f} {each.unit:<4} p95 {each.p95:.1f}, n {each.n}")


if __name__ == "__main__":
    main()
