"""What Carrel could leave on a machine: processes, mounts, cgroups, sockets, folders.

A test takes a picture before and compares after. It looks at the whole machine, so that nothing
hides by leaving its process group.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = re.compile(
    r"^(Xtigervnc|bwrap|xfwm4|xfce4-.*|xfdesktop|xfsettingsd|xfconfd|dbus-.*|chromium|xterm|mousepad"
    r"|raylet|gcs_server|ray::.*|at-spi.*)$"
)
SCRIPTS = re.compile(
    r"desktopd\.py|backends/supervisor|ray_cluster/(keeper|forkserver)"
    r"|/ray/.*\.py|bin/ray |carrel-tests|code-server/|/debugpy/|langserver\.index\.js"
)
FOLDERS = (
    *("/run/carrel/*/*", "/var/lib/carrel/desktops-*/*", "/tmp/carrel-*", "/tmp/ray/*"),
    *("/tmp/c-*", "/tmp/dbus-*", "/tmp/org.chromium.*", "/tmp/playwright*"),
)


def processes() -> set[str]:
    """``pid start-time name`` of everything that Carrel starts, zombies included."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text()
            command = (
                (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            )
        except OSError:
            continue
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        started = stat[stat.rindex(")") + 2 :].split()[19]
        if PROGRAMS.match(name) or SCRIPTS.search(command):
            found.add(f"{process.name} {started} {name} {command[:100]}")
    return found


def cgroups() -> set[str]:
    """Every control group that is one of Carrel's, or below one."""
    walk = os.walk("/sys/fs/cgroup")  # groups come and go meanwhile: it passes over what has gone
    return {folder for folder, _, _ in walk if "/carrel" in folder}


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def folders() -> set[str]:
    return {str(path) for pattern in FOLDERS for path in Path("/").glob(pattern[1:])}


@dataclass(frozen=True)
class Leftovers:
    """A picture of the machine."""

    found: frozenset[str]

    @classmethod
    def now(cls) -> Leftovers:
        return cls(
            frozenset(
                {f"process {item}" for item in processes()}
                | {f"cgroup {item}" for item in cgroups()}
                | {f"mount {item}" for item in mounts()}
                | {f"folder {item}" for item in folders()}
            )
        )

    def assert_none_since(self, *, seconds: float = 5) -> None:
        """Nothing new is there, or all of it goes within ``seconds``."""
        deadline = time.monotonic() + seconds
        while left := Leftovers.now().found - self.found:
            assert time.monotonic() < deadline, "left behind:\n" + "\n".join(sorted(left))
            time.sleep(0.05)
