"""A network of the tests' own, and namespaces in which all that a node starts ends with it.

The tests' process goes into a new network itself, so that everything it starts is in it too: the
control plane, the node, Ray, controllers. Nothing in it is anybody else's, so ports are fixed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.waiting import until

ADDRESS = "10.99.0.1"  # of the node
PODS = "10.99.0.0/24"
FIRST_POD = "10.99.0.10"
SERVICE = "10.96.0.1"  # of the API server, as pods are told of it
BRIDGE = "eth0"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


@contextmanager
def own_network() -> Iterator[None]:
    """This thread's network, and that of all that it starts from now on."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNET)
        try:
            _set_up()
            yield
        finally:
            _call("setns", before, _CLONE_NEWNET)
    finally:
        os.close(before)


def _set_up() -> None:
    for command in (
        "link set lo up",
        # What a kube-proxy would do: of services there is one, which pods are told of.
        f"address add {SERVICE}/32 dev lo",
        f"link add {BRIDGE} type bridge",
        f"address add {ADDRESS}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        # A kubelet asks a cloud who it is, and waits.
        "route add unreachable 169.254.169.254/32",
    ):
        subprocess.run(["ip", *command.split()], check=True, timeout=10)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


class Namespaces:
    """A first process of mount and process namespaces: when it ends, so does all in them, and it
    ends with the tests' process, however that ends.
    """

    def __init__(self, folder: Path, first: Path) -> None:
        """``first`` is catatonit; ``folder`` takes what would be written to the machine's /run,
        /var/lib and /var/log.
        """
        hidden = "".join(
            f"mkdir -p {folder}{path} && mount --bind {folder}{path} {path} && "
            for path in ("/run", "/var/lib", "/var/log")
        )
        script = f"mount -t proc proc /proc && {hidden} exec {first} -P"
        self._outer = subprocess.Popen(
            [*END_WITH_ME, "unshare", "--mount", "--propagation", "private", "--pid", "--fork",
             "--kill-child", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._inner = 0
        until(self._has_begun, 10)

    def _has_begun(self) -> bool:
        assert self._outer.poll() is None, "the node's namespaces could not be made"
        for child in psutil.Process(self._outer.pid).children():
            if child.name() == "catatonit":
                self._inner = child.pid
        return self._inner != 0

    def command(self, *words: str) -> list[str]:
        """A command that runs ``words`` inside."""
        return ["nsenter", "--target", str(self._inner), "--mount", "--pid", *words]

    def end(self) -> None:
        self._outer.kill()
        self._outer.wait(10)
        until(lambda: not psutil.pid_exists(self._inner), 20)


# A prefix of commands: SIGKILL when the thread that started them has ended.
END_WITH_ME = ("setpriv", "--pdeathsig", "KILL")
