"""What serves needs nothing of what runs inside desktops, nor of the tests."""

from __future__ import annotations

import subprocess
import sys

_SERVES = """
import sys
for name in ("xcffib", "cffi", "playwright", "PIL", "pytest", "hypothesis", "schemathesis"):
    sys.modules[name] = None
import agent_bridge.server, controller.app, controller.cli.serve
import ray_cluster.actors, ray_cluster.cluster, workspace.backends.bubblewrap
"""


def test_a_controller_starts_with_its_own_packages_alone() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SERVES], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
