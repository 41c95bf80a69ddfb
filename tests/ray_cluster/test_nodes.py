"""Several Ray nodes: a desktop of one is reached from another, and one is taken out of service."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest


def test_desktops_on_other_nodes() -> None:
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
    assert re.match(r"url http://127\.0\.0\.[34]:", lines[0])  # through its relay
    assert lines[1:] == [
        "ready True",
        "same True",
        "left {}",
        "slots 2 3",
        *["on the other True"] * 3,
        "All 3 places for desktops in this cluster are taken.",
        "on the drained True",
        "found left2345 2",  # the nodes of this test share a folder
        "tell of their memory True",
        "removed {} []",
    ], ran.stderr
