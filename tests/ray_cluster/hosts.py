"""Hosts that are namespaces: each with a network, a name and processes of its own, on one bridge.

Used by a program that runs in namespaces of its own (``test_nodes.run``): it is a host itself, at
:data:`HERE`, and with it all of the others end. A host's link can be cut, its processes be killed
or stopped; what runs on it goes on when Ray there has ended, as on a real one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.ray_cluster.two_nodes import raise_loopback

TOKEN = "0123456789abcdef" * 4
NETWORK = "10.77.0"
HERE = f"{NETWORK}.1"
START_SECONDS = 120
# A host's first process: it waits for its link, runs what it is to run, and stays.
_INIT = 'hostname "$0"; read -r _ || exit; "$@"; sleep infinity'


def environment(**settings: str) -> dict[str, str]:
    """What Ray's processes are told here."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "CARREL_RAY_TOKEN": TOKEN,
        **settings,
    }


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10)


@dataclass
class Host:
    """One that runs a command; ``number`` is the end of its address."""

    name: str
    number: int
    folder: Path

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def temp(self) -> Path:
        return self.folder / self.name

    def run(self, command: list[str], settings: Mapping[str, str]) -> None:
        """Boot it; it runs the command."""
        namespaces = ["-n", "-u", "-p", "-f", "--mount-proc", "--kill-child"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, "sh", "-c", _INIT, self.name, *command],
                env=dict(settings),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        inside = f"/proc/{self._process.pid}/ns/net"
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(inside).st_ino == own:
            time.sleep(0.005)
        at = str(self._process.pid)
        link, mac = f"v{self.number}", f"02:00:00:00:00:{self.number:02x}"
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", at)
        ip("link", "set", link, "master", "br0", "up")
        within = ["nsenter", "-t", at, "-n", "ip"]
        for words in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            subprocess.run([*within, *words], check=True, timeout=10)
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def cut(self) -> None:
        """Its cable is pulled: nothing is refused, nothing answers."""
        ip("link", "set", f"v{self.number}", "down")

    def mend(self) -> None:
        ip("link", "set", f"v{self.number}", "up")

    def tell(self, program: str, number: signal.Signals) -> None:
        """Signal the one process of Ray's of that name."""
        [process] = [each for each in self.processes() if each.name() == program]
        process.send_signal(number)

    def processes(self) -> list[psutil.Process]:
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def off(self) -> None:
        """All that runs on it dies at once, and its link is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
            with suppress(subprocess.CalledProcessError):
                ip("link", "del", f"v{self.number}")  # it goes with its other end, a moment later

    def until_up(self) -> None:
        """Until Ray serves on it."""
        deadline = time.monotonic() + START_SECONDS
        while not (self.temp / "ray_current_cluster").exists():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def bridge() -> Iterator[None]:
    raise_loopback()
    ip("link", "add", "br0", "type", "bridge")
    ip("addr", "add", f"{HERE}/24", "dev", "br0")
    ip("link", "set", "br0", "up")
    yield


def ray(temp: Path, address: str, *arguments: str) -> list[str]:
    """The command of a node."""
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--block",
        f"--temp-dir={temp}",
        f"--node-ip-address={address}",
        "--num-cpus=0",
        "--object-store-memory=83886080",
        "--disable-usage-stats",
        *arguments,
    ]
