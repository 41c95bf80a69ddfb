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
from functools import partial
from pathlib import Path

import psutil

from ray_cluster import joining
from tests.ray_cluster.two_nodes import raise_loopback

TOKEN = "0123456789abcdef" * 4
NETWORK = "10.77.0"
HERE = f"{NETWORK}.1"
PORT = 6379
START_SECONDS = 120
# A host's first process: it waits for its link, runs what it is to run, and stays.
_INIT = 'hostname "$0"; read -r _ || exit; "$@"; sleep infinity'


def environment(**settings: str) -> dict[str, str]:
    """What Ray's processes are told here."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
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
        [process] = self.named(program)
        process.send_signal(number)

    def named(self, name: str) -> list[psutil.Process]:
        """Those whose names begin so."""
        return [each for each in self.processes() if _name(each).startswith(name)]

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
        _until_there(self.temp, self.log)


@contextmanager
def bridge() -> Iterator[None]:
    raise_loopback()
    ip("link", "add", "br0", "type", "bridge")
    ip("addr", "add", f"{HERE}/24", "dev", "br0")
    ip("link", "set", "br0", "up")
    yield


def head(host: Host, **settings: str) -> None:
    """Have it be Ray's head, as it is anywhere."""
    host.run([*_RAY, "head", f"--port={PORT}", "--", *_here(host)], environment(**settings))


def node(host: Host, to: Host, *options: str) -> None:
    """Have it be one of the head's nodes."""
    joining = ["node", f"{to.address}:{PORT}", *options, "--", *_here(host)]
    host.run([*_RAY, *joining], environment())


def plain_node(host: Host, to: Host, desktops: int) -> None:
    """Have it be one whose workers start as Ray's own do."""
    joined = joining.node(f"{to.address}:{PORT}", offers={"desktop": desktops}, labels={})
    words = [*_PLAIN, *joined.words[len(joining.RAY_START) :], *_here(host)]
    host.run(words, environment(**joined.settings, RAY_AUTH_TOKEN=TOKEN))


@contextmanager
def own_node(folder: Path, to: Host) -> Iterator[None]:
    """A node without desktops right here, by which this process joins Ray.

    It is named to Ray, which would take the head's otherwise: this process sees those of all hosts.
    """
    os.environ["RAY_AUTH_MODE"] = "token"  # it is read as Ray is loaded
    import ray

    setattr(ray, "init", partial(ray.init, _node_ip_address=HERE))  # noqa: B010
    command = [*_RAY, "node", f"{to.address}:{PORT}", "--desktops=0", "--"]
    command += [f"--temp-dir={folder / 'here'}", f"--node-ip-address={HERE}"]
    with (folder / "here.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()  # what it started ends with our namespaces
        process.wait(10)


def until_joined(folder: Path) -> None:
    _until_there(folder / "here", folder / "here.log")


_RAY = [str(Path(sys.executable).with_name("carrel")), "ray"]
_PLAIN = [str(Path(sys.executable).with_name("ray")), "start"]


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):  # it ends meanwhile
        return str(process.name())
    return ""


def _here(host: Host) -> list[str]:
    return [f"--temp-dir={host.temp}", f"--node-ip-address={host.address}"]


def _until_there(temp: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (temp / "ray_current_cluster").exists():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
