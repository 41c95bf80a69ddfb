from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from workspace.backends import cgroups

V2 = "25 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
DOCKER_V2 = "25 20 0:22 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw"
V1 = """\
30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 /docker/ab /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"""


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "expected"),
    [
        ("0::/user.slice/a.scope", V2, {"unified": "/sys/fs/cgroup/user.slice/a.scope"}),
        ("0::/", V2, {"unified": "/sys/fs/cgroup"}),
        # A container without a namespace of its own sees its part of the hierarchy.
        ("0::/docker/ab", DOCKER_V2, {"unified": "/sys/fs/cgroup"}),
        ("0::/docker/ab/inner", DOCKER_V2, {"unified": "/sys/fs/cgroup/inner"}),
        ("0::/docker/abc", DOCKER_V2, {"unified": "/sys/fs/cgroup"}),
        ("0::/../outside", V2, {"unified": "/sys/fs/cgroup"}),
        ("0::/a:b", V2, {"unified": "/sys/fs/cgroup/a:b"}),
        (
            "4:memory:/x/y\n3:cpu,cpuacct:/\n2:pids:/docker/ab/z\n1:name=systemd:/\n0::/",
            V1,
            {
                "memory": "/sys/fs/cgroup/memory/x/y",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "pids": "/sys/fs/cgroup/pids/z",
                "unified": "/sys/fs/cgroup/unified",
            },
        ),
        ("0::/", "nonsense\n", {}),
    ],
)
def test_own_folders(cgroup: str, mountinfo: str, expected: dict[str, str]) -> None:
    found = cgroups.own_folders(cgroup, mountinfo)
    assert {name: folder for name, (_, folder) in found.items()} == expected


def v2_folder(path: Path, *, controllers: str, enabled: str = "") -> Path:
    path.mkdir(parents=True)
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").write_text(enabled)
    return path


def test_v2_climbs_to_a_group_that_may_have_limited_children(tmp_path: Path) -> None:
    top = v2_folder(tmp_path / "top", controllers="cpu memory pids", enabled="cpu memory pids")
    middle = v2_folder(top / "slice", controllers="cpu memory pids", enabled="cpu memory pids")
    own = v2_folder(middle / "own.scope", controllers="cpu memory")  # no pids: it cannot
    assert cgroups._v2_parent(str(top), str(own)) == str(middle)
    assert cgroups._v2_parent(str(own), str(own)) is None


@pytest.fixture
def v2_group() -> Iterator[cgroups.Group]:
    """A real v2 group; without controllers, where v1 has them."""
    found = cgroups.own_folders(
        Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    )
    if "unified" not in found or not os.access(found["unified"][1], os.W_OK):
        pytest.skip("no writable cgroup v2 here")
    folder = Path(found["unified"][1]) / f"carrel-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    group: cgroups.Group = {"kind": "v2", "folders": {"unified": str(folder)}}
    yield group
    assert cgroups.kill(group)
    assert cgroups.remove(group)
    assert not folder.exists()


def test_v2_freezes_kills_and_removes(v2_group: cgroups.Group) -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60 & wait"])
    try:
        folder = Path(v2_group["folders"]["unified"])
        (folder / "cgroup.procs").write_text(str(process.pid))
        assert process.pid in cgroups.pids(v2_group)
        cgroups.freeze(v2_group, True)
        deadline = time.monotonic() + 5
        while "frozen 1" not in (folder / "cgroup.events").read_text():
            assert time.monotonic() < deadline
        assert not cgroups.remove(v2_group, seconds=0.01)  # busy
        assert cgroups.kill(v2_group)  # frozen as it is
        assert cgroups.pids(v2_group) == set()
    finally:
        process.kill()
        process.wait()


def test_no_groups_is_no_error_but_for_the_freezer() -> None:
    assert cgroups.kill(cgroups.NONE)
    assert cgroups.remove(cgroups.NONE)
    assert cgroups.usage(cgroups.NONE)["pids"] is None
    cgroups.create(cgroups.planned(cgroups.NONE, "x"), {"memory_mib": 1, "pids": 1, "cpus": 1})
    with pytest.raises(OSError, match="no control groups"):
        cgroups.freeze(cgroups.NONE, True)


def test_v2_limits_and_usage_are_read_and_written_by_name(tmp_path: Path) -> None:
    group = cgroups.planned({"kind": "v2", "folders": {"unified": str(tmp_path)}}, "carrel-x")
    cgroups.create(group, {"memory_mib": 512, "pids": 100, "cpus": 1.5})
    folder = tmp_path / "carrel-x"
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written == {
        "memory.max": str(512 << 20),
        "memory.swap.max": "0",
        "pids.max": "100",
        "cpu.max": "150000 100000",
    }
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (folder / "memory.current").write_text(str(40 << 20))
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {10 << 20}\n")
    (folder / "pids.current").write_text("7\n")
    assert cgroups.usage(group) == {"cpu_seconds": 2.5, "memory_mib": 30.0, "pids": 7}


def test_the_scope_command_carries_the_limits() -> None:
    command = cgroups.scope_command("carrel-x", {"memory_mib": 64, "pids": 9, "cpus": 0.5})
    assert command[-1] == "--"
    assert {"--property=MemoryMax=64M", "--property=TasksMax=9", "--property=CPUQuota=50%"} <= set(
        command
    )
