"""Ray's head dies and comes back with all that it knew, under a controller on a node of its own.

Run in namespaces, with ``redis`` or ``rocksdb``: what the head keeps its tables in. Prints one line
of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from ray_cluster.keeper import ACTOR_NAME
from tests.ray_cluster import hosts
from tests.ray_cluster.hosts import HERE, PORT, Host
from tests.redis_server import program
from tests.waiting import until

KEY = "the-admin-key-of-the-test"
REDIS_PORT = 6400
AWAY_SECONDS = 5  # longer than a controller looks before it believes that a head is gone
Facts = dict[str, Any]


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[str]:
    """What the head is told."""
    if kind == "rocksdb":
        yield f"rocksdb:{folder / 'tables'}"
        return
    options = ["--bind", HERE, "--port", str(REDIS_PORT), "--requirepass", "open: sesame"]
    options += ["--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen(
            ["redis-server", *options], executable=program(), stdout=log, stderr=log
        )
    try:
        yield f"redis://:open%3A%20sesame@{HERE}:{REDIS_PORT}"
    finally:
        server.kill()
        server.wait(10)


def run_controller(host: Host, head: Host, folder: Path) -> None:
    """As its pod does: a node of Ray without desktops, and `carrel up` beside it."""
    carrel = str(Path(sys.executable).with_name("carrel"))
    joining = [carrel, "ray", "node", f"{head.address}:{PORT}", "--desktops=0", "--detach", "--"]
    joining += [f"--temp-dir={host.temp}", f"--node-ip-address={host.address}"]
    both = 'up=$1; shift; "$@" && exec "$up" up'
    host.run(
        ["sh", "-c", both, "sh", carrel, *joining],
        hosts.environment(
            CARREL_HOME=str(folder / "home"),
            CARREL_HOST="0.0.0.0",
            CARREL_PUBLIC_URL=f"http://{host.address}:8700",
            CARREL_RAY_ADDRESS=f"{head.address}:{PORT}",
            CARREL_API_KEY=KEY,
            CARREL_RUN_DIR=str(folder / "r"),
            CARREL_DISK_DIR=str(folder / "disks"),
        ),
    )


def actors(host: Host) -> set[int]:
    return {each.pid for each in host.named(ACTOR_NAME)}


def of_controller(host: Host) -> set[tuple[int, float]]:
    """Its process, which becomes another program when it joins another Ray."""
    found = set()
    for process in host.processes():
        with suppress(psutil.NoSuchProcess):  # it ends meanwhile
            words = process.cmdline()
            if words[-1:] == ["up"]:
                found.add((process.pid, len(" ".join(words))))
    return found


def claim(http: httpx.Client) -> httpx.Response:
    body = {"template": "light", "queue_seconds": 0}
    return http.post("/v1/workspaces", json=body, timeout=90)


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def scenario(
    http: httpx.Client, head: Host, node: Host, control: Host, start_head: Callable[[], None]
) -> Facts:
    until(lambda: is_ready(http), 60)
    made = claim(http)
    assert made.status_code == 201, made.text
    mine = made.json()["id"]
    before, process = actors(node), of_controller(control)
    began = time.monotonic()
    head.off()
    shot = f"/v1/workspaces/{mine}/screenshot"
    seen = [http.get(shot).status_code]
    away = claim(http)
    time.sleep(max(0.0, began + AWAY_SECONDS - time.monotonic()))
    seen.append(http.get(shot).status_code)
    start_head()
    began = time.monotonic()
    until(lambda: is_ready(http), 60)
    answered = claim(http)
    took = time.monotonic() - began
    time.sleep(4)  # until a controller that took it for another Ray would have started anew
    states = {each["id"]: each["state"] for each in http.get("/v1/workspaces").json()["workspaces"]}
    facts = {
        "seen": [*seen, http.get(shot).status_code],
        "away": away.json()["code"],
        "new": answered.status_code,
        "took": round(took, 2),
        "same actor": before <= actors(node),
        "same controller": of_controller(control) == process and len(process) == 1,
        "states": sorted(states.values()),
        "lives": states.get(mine),
    }
    for name in states:
        http.delete(f"/v1/workspaces/{name}", timeout=30)
    until(lambda: not actors(node), 30)
    return facts


def main(kind: str) -> None:
    with (
        hosts.bridge(),
        tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as name,
        storage(kind, Path(name)) as where,
    ):
        folder = Path(name)
        folder.chmod(0o711)  # desktops have users of their own
        head, node, control = (
            Host(name, 2 + number, folder) for number, name in enumerate(("head", "n1", "control"))
        )

        def start_head() -> None:
            (head.temp / "ray_current_cluster").unlink(missing_ok=True)
            hosts.head(head, CARREL_HEAD_STORAGE=where)
            head.until_up()

        start_head()
        hosts.node(node, head, "--desktops=4")
        run_controller(control, head, folder)
        node.until_up()
        url, bearer = f"http://{control.address}:8700", {"Authorization": f"Bearer {KEY}"}
        try:
            with httpx.Client(base_url=url, headers=bearer, timeout=20, trust_env=False) as http:
                print(json.dumps(scenario(http, head, node, control, start_head)), flush=True)
        except BaseException:
            print(control.log.read_text()[-6000:], file=sys.stderr)
            raise
        finally:
            for host in (control, node, head):
                host.off()


if __name__ == "__main__":
    main(sys.argv[1])
