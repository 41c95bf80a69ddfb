"""A Ray as the manifests make it: a head, and a worker for each Kubernetes node that runs desktops,
told by its environment (the downward API there) where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.kubernetes.namespaces import ADDRESS, END_WITH_ME
from tests.waiting import until

HEAD, FIRST = "127.0.0.2", 3
PORT = 6400
TOKEN = "0123456789abcdef" * 4
START_SECONDS = 90


def _start(folder: Path, name: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/root"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        **settings,
    }
    if "--head" in arguments:
        arguments += ("--include-dashboard=false",)
    common = [
        "--block", f"--temp-dir={folder / name}", "--num-cpus=0", "--object-store-memory=83886080",
        "--disable-usage-stats",
    ]  # fmt: skip
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen(
            [*END_WITH_ME, Path(sys.executable).with_name("ray"), "start", *common, *arguments],
            env=environment,
            stdout=log,
            stderr=log,
        )


@contextmanager
def ray(nodes: Mapping[str, int]) -> Iterator[str]:
    """A Ray with so many places for desktops on each Kubernetes node; yields its address."""
    folder = Path(tempfile.mkdtemp(prefix="c-ray-"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_start(folder, "h", "--head", f"--port={PORT}", f"--node-ip-address={HEAD}"))
        until(lambda: (folder / "h" / "ray_current_cluster").exists(), START_SECONDS)
        for number, (node, slots) in enumerate(nodes.items(), FIRST):
            name = f"n{number}"
            started.append(
                _start(
                    folder,
                    name,
                    f"--address={HEAD}:{PORT}",
                    f"--node-ip-address=127.0.0.{number}",
                    f'--resources={{"desktop": {slots}}}',
                    CARREL_KATA_NODE=node,
                    CARREL_KATA_POD_IP=ADDRESS,
                    CARREL_KATA_POD_NAMESPACE="carrel",
                )
            )
        for number, process in enumerate(started[1:], FIRST):
            until(lambda n=number, p=process: _has_begun(folder, f"n{n}", p), START_SECONDS)  # type: ignore[misc]
        yield f"{HEAD}:{PORT}"
    finally:
        processes = [
            each
            for top in started
            for each in [psutil.Process(top.pid), *psutil.Process(top.pid).children(recursive=True)]
            if top.poll() is None
        ]
        for top in reversed(started):
            top.terminate()
        for top in started:
            top.wait(30)
        until(lambda: not any(map(_runs, processes)), 30)
        shutil.rmtree(folder)


def _has_begun(folder: Path, name: str, process: subprocess.Popen[bytes]) -> bool:
    log = folder / f"{name}.log"
    assert process.poll() is None, log.read_text(errors="replace")[-3000:]
    return (folder / name / "ray_current_cluster").exists()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
