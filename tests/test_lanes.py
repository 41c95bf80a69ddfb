from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import lanes


def test_the_first_ones_folders_are_there() -> None:
    assert [each for each in lanes.FIRST if not (lanes.ROOT / each).is_dir()] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="lanes take root")
def test_a_lane_is_alone_on_its_machine_and_leaves_nothing() -> None:
    made = f"mkdir {lanes.runtime.default_dir().parent}/made-by-a-test"
    here = f"/tmp/lane-test-{os.getpid()}"
    seen = f"touch {here}; ls /tmp; ls /run/carrel; ls -d /proc/[0-9]* | wc -l"
    try:
        with lanes.lane("lane-test") as command:
            groups = _groups()
            ran = subprocess.run(
                [*command, "bash", "-c", f"{made}; {seen}; sleep 300 >/dev/null 2>&1 & exit 3"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            # Those that failed run again in it, beside what the first run left in its folders.
            subprocess.run([*command, "true"], check=True, capture_output=True, timeout=60)
    except OSError as error:
        pytest.skip(str(error))
    assert (ran.returncode, ran.stderr) == (3, "")
    listed, count = ran.stdout.split()
    assert listed == Path(here).name
    assert int(count) <= 4  # its first process, bash and what that runs
    assert len(groups) == len(lanes.hierarchies())
    assert not Path(here).exists()
    assert _groups() == []


def _groups() -> list[Path]:
    return list(Path("/sys/fs/cgroup").rglob("lane-test-*"))
