"""Two Ray nodes: the relay makes a desktop of the one reachable from the other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_a_desktop_on_another_node_is_reached_through_its_relay() -> None:
    namespaces = ["-n", "-p", "-f", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        namespaces = ["-r", *namespaces]
    allowed = subprocess.run(["unshare", *namespaces, "true"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip(f"no namespaces: {allowed.stderr.decode()}")
    ran = subprocess.run(
        ["unshare", *namespaces, sys.executable, "-m", "tests.ray_cluster.two_nodes"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = ran.stdout.splitlines()
    assert lines, ran.stderr
    assert lines[0].startswith("url http://127.0.0.3:")
    assert lines[1:] == ["ready True", "same True", "slots [0, 2]", "left {}"], ran.stderr
