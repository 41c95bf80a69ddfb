"""What Ray is started with, by the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ray_cluster import joining
from ray_cluster.local import LocalRay
from tests.ray_cluster.conftest import Running
from workspace.errors import InvalidRequest


@pytest.mark.parametrize(
    ("storage", "settings", "words"),
    [
        ("", {}, []),
        (
            "rocksdb:/var/lib/ray",
            {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": "/var/lib/ray"},
            [],
        ),
        ("redis://cache", {"RAY_REDIS_ADDRESS": "cache:6379"}, []),
        ("rediss://cache:7/", {"RAY_REDIS_ADDRESS": "rediss://cache:7"}, []),
        (
            "redis://me:p%40ss@[fd00::1]:6380",
            {"RAY_REDIS_ADDRESS": "[fd00::1]:6380"},
            ["--redis-username=me", "--redis-password=p@ss"],
        ),
    ],
)
def test_what_outlives_the_head(storage: str, settings: dict[str, str], words: list[str]) -> None:
    plain, told = joining.head(port=6379), joining.head(port=6379, storage=storage)
    assert told.settings == {**plain.settings, **settings}
    assert told.words == [*plain.words, *words]
    assert "p@ss" not in joining.shown(told)


@pytest.mark.parametrize(
    "wrong",
    ["here", "rocksdb:here", "rocksdb://host/x", "redis:", "redis://", "redis://h/1",
     "redis://h:x", "postgresql://h/x"],
)  # fmt: skip
def test_what_is_no_storage(wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="CARREL_HEAD_STORAGE"):
        joining.head(port=6379, storage=wrong)


def test_a_node_that_is_lost_is_seen_within_three_seconds_and_not_too_soon() -> None:
    told = joining.head(port=6379).settings
    name = "RAY_health_check_"
    period, timeout = int(told[f"{name}period_ms"]), int(told[f"{name}timeout_ms"])
    assert 1500 <= int(told[f"{name}failure_threshold"]) * (period + timeout) <= 2700


def carrel(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if "CARREL" not in name}
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", "ray", *arguments],
        env=kept | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_shows_what_it_would_run() -> None:
    shown = carrel(
        "node", "h:6379", "--desktops=7", "--label=gpu=a100", "--print", "--", "--temp-dir=/t",
        CARREL_NODE_LABELS="zone=a", CARREL_RAY_TOKEN="a-secret",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "--address=h:6379" in shown.stdout
    assert '"desktop": 7, "desktop_mib": ' in shown.stdout
    assert "--labels=zone=a,gpu=a100 --temp-dir=/t" in shown.stdout
    assert "RAY_kill_child_processes_on_worker_exit=false" in shown.stdout
    assert "a-secret" not in shown.stdout
    without = carrel("node", "10.0.0.1:6379", "--desktops=0", "--print")
    assert "--resources" not in without.stdout
    pods = carrel("node", "10.0.0.1:6379", "--print", CARREL_BACKEND="kata")
    assert "desktop_millicpu" in pods.stdout


@pytest.mark.parametrize(
    "wrong",
    [["node", "h:1", "--label=gpu", "--print"], ["node", "h:1", "--label=a b=c", "--print"]],
)
def test_what_is_wrong_is_told(wrong: list[str]) -> None:
    ran = carrel(*wrong)
    assert ran.returncode == 1
    assert "no labels" in ran.stderr
    ran = carrel("head", "--print", CARREL_HEAD_STORAGE="somewhere")
    assert (ran.returncode, "CARREL_HEAD_STORAGE" in ran.stderr) == (1, True)


def test_one_machine_offers_its_memory_more_than_once(local_ray: Running) -> None:
    command = " ".join(LocalRay(local_ray.run_dir, desktops=3)._ray_command())
    assert '"desktop": 3, "desktop_mib": ' in command
