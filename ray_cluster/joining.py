"""How Ray is started, on one machine by its keeper, and by `carrel ray` on each of many.

All that Ray is to be told for desktops stands here: what a node offers, what becomes of desktops
when an actor ends, how soon a node that is gone is noticed, and what outlives the head. Ray reads
it from the command line and from its environment.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit

from ray_cluster.capacity import Amounts
from workspace.errors import InvalidRequest

# `ray start`, with workers that are there soon.
RAY_START = (sys.executable, str(Path(__file__).with_name("forkserver.py")), "start")
OBJECT_STORE_BYTES = 80 << 20  # the smallest Ray accepts is 75 MiB; nothing large goes through Ray
PORT = 6379
REDIS_PORT = 6379
_SECRET = "--redis-password="

EVERYWHERE = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Desktops are children of Ray's workers: not nicer, and no likelier to be killed.
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    # Else it kills its direct children as it ends: supervisors that are to clean up.
    "RAY_kill_child_processes_on_worker_exit": "false",
    # It would end a tiny actor for its desktop's memory; cgroups limit the desktop.
    "RAY_memory_monitor_refresh_ms": "0",
}
# A head that is away for longer takes the desktops of all nodes along.
_HEAD_AWAY_SECONDS = 3600
OF_SEVERAL = EVERYWHERE | {
    "RAY_gcs_rpc_server_reconnect_timeout_s": str(_HEAD_AWAY_SECONDS),
    "RAY_raylet_start_wait_time_s": "120",  # on a machine that is busy
}


def health_checks(*, period_ms: int, timeout_ms: int, misses: int) -> dict[str, str]:
    """How the head looks after nodes: one that misses so many checks in a row is dead."""
    return {
        "RAY_health_check_initial_delay_ms": str(period_ms),
        "RAY_health_check_period_ms": str(period_ms),
        "RAY_health_check_timeout_ms": str(timeout_ms),
        "RAY_health_check_failure_threshold": str(misses),
    }


# A node that hangs, or whose link is cut, is dead after 2 x (200 + 1100) ms = 2.6 s; one that has
# ended after half a second. Rather few long checks than many short ones: a node that is so busy
# that it is slow to answer lives.
SOON = health_checks(period_ms=200, timeout_ms=1100, misses=2)
# Of one machine: that its only node has ended is seen at once anyway, and to give it up while it
# merely stands still (asleep, swapping) would end all desktops.
PATIENT = health_checks(period_ms=1000, timeout_ms=5000, misses=3)


class Command(NamedTuple):
    """What is run, and what its environment says beside."""

    words: list[str]
    settings: dict[str, str]


def head(*, port: int, storage: str = "", block: bool = True) -> Command:
    """A head without desktops, whose tables are in :func:`_kept`."""
    settings, words = _kept(storage)
    return Command(
        [*_start(block=block), "--head", f"--port={port}", "--include-dashboard=false", *words],
        {**OF_SEVERAL, **SOON, **settings},
    )


def node(
    address: str, *, offers: Amounts, labels: Mapping[str, str], block: bool = True
) -> Command:
    """A node that joins the head at ``address``."""
    words = [*_start(block=block), f"--address={address}"]
    if offers:
        words.append(f"--resources={json.dumps(dict(offers))}")
    if labels:
        words.append(f"--labels={','.join(map('='.join, labels.items()))}")
    return Command(words, dict(OF_SEVERAL))


def become(command: Command) -> NoReturn:
    """Be that command from now on. What the environment says already counts more."""
    os.execve(command.words[0], command.words, {**command.settings, **os.environ})


def shown(command: Command) -> str:
    """As one types it into a shell, without what is secret."""
    settings = [
        f"{name}={'...' if 'TOKEN' in name else shlex.quote(value)}"
        for name, value in command.settings.items()
    ]
    words = [each if not each.startswith(_SECRET) else f"{_SECRET}..." for each in command.words]
    return " \\\n  ".join(["env", *settings, " ".join(map(shlex.quote, words))])


def _kept(where: str) -> tuple[dict[str, str], list[str]]:
    """What has the head keep its tables: ``redis://[user:password@]host[:port]``, or
    ``rocksdb:/folder``; empty: nothing, they are in its memory.

    Raises:
        InvalidRequest: it is none of these.
    """
    if not where:
        return {}, []
    wrong = InvalidRequest(
        "CARREL_HEAD_STORAGE names no place for the tables of Ray's head.",
        hint="Give redis://host:6379, or rocksdb:/folder on a disk that outlives the head.",
    )
    try:
        parts = urlsplit(where)
        port = parts.port or REDIS_PORT
    except ValueError as error:
        raise wrong from error
    if parts.scheme == "rocksdb" and not parts.netloc and parts.path.startswith("/"):
        return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": parts.path}, []
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.path.strip("/"):
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    secure = "rediss://" if parts.scheme == "rediss" else ""
    words = [f"--redis-username={unquote(parts.username)}"] if parts.username else []
    if parts.password:
        words.append(_SECRET + unquote(parts.password))
    return {"RAY_REDIS_ADDRESS": f"{secure}{host}:{port}"}, words


def _start(*, block: bool) -> list[str]:
    return [
        *RAY_START,
        *(["--block"] if block else []),
        "--num-cpus=0",  # desktops are counted otherwise
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
    ]
