"""A container of the desktop's image, run by runc alone, as its contract says that it is run.

uid 1000, no capability, no new privileges, a read-only root, an empty home, a network of its own
with nothing in it, and the filter of system calls that pods have where no virtual machine is.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.images.desktop import REFERENCE, mounted, storage
from tests.waiting import until
from workspace.backends import manifests, seccomp
from workspace.desktop import Desktop
from workspace.desktopd.config import Config
from workspace.http1 import Transport

PORT = 7000
_CLONE_NEWNET = 0x40000000
_OWNED = ("uid=1000", "gid=1000")


@dataclass
class Container:
    """One that runs. ``pid`` is its first process, as the host sees it."""

    root: Path
    pid: int
    token: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self) -> Desktop:
        """A client of its desktopd; close it."""

        async def dial() -> socket.socket:
            sock = self.connect()
            sock.setblocking(False)
            return sock

        headers = {"Authorization": f"Bearer {self.token}"}
        return Desktop(
            lambda: httpx.AsyncClient(
                transport=Transport(dial=dial), base_url="http://desktop", headers=headers
            )
        )

    def connect(self) -> socket.socket:
        """A connection to its desktopd: made in its network, by a thread that enters it."""
        made: list[socket.socket | OSError] = []

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            try:
                with open(f"/proc/{self.pid}/ns/net") as network:
                    if libc.setns(network.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.create_connection(("127.0.0.1", PORT), timeout=5))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(10)
        [result] = made
        if isinstance(result, OSError):
            raise result
        return result

    def is_ready(self) -> bool:
        """Whether ``/ready`` says so, to one who has no token."""
        try:
            with self.connect() as sock:
                sock.sendall(
                    f"GET {manifests.READY_PATH} HTTP/1.0\r\nHost: desktop\r\n\r\n".encode()
                )
                status = sock.recv(1000).split(b"\r\n")[0]
        except OSError:
            return False
        return b" 204" in status

    def processes(self) -> dict[int, str]:
        """What runs in it: command lines, by the host's process ids."""
        own = os.readlink(f"/proc/{self.pid}/ns/net")
        found = {}
        for each in Path("/proc").glob("[0-9]*"):
            try:
                if self._is_inside(int(each.name), own):
                    line = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(each.name)] = line.strip()
            except OSError:
                continue
        return found

    def _is_inside(self, pid: int, network: str) -> bool:
        """By its network, or by those above it: Chromium gives some a network of their own."""
        while pid > 1:
            if os.readlink(f"/proc/{pid}/ns/net") == network:
                return True
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return False

    def end(self) -> int:
        """Ask it to end, as runtimes do; its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def running(folder: Path, config: Config, *, image: str = REFERENCE) -> Iterator[Container]:
    """One that is ready. ``folder`` is empty, and has its bundle."""
    name = f"carrel-image-{secrets.token_hex(4)}"
    given = folder / "given"
    given.mkdir(mode=0o700)
    text = json.dumps(config.model_dump(mode="json", exclude_none=True))
    (given / manifests.CONFIG_FILE).write_text(text)
    for path in (given, given / manifests.CONFIG_FILE):
        os.chown(path, 1000, 1000)
    runc = ["runc", "--root", str(folder / "state")]
    with mounted(image) as root, open(folder / "log", "wb") as log:
        _write_bundle(folder, root, name, image)
        command = [*runc, "run", "--bundle", str(folder), "--pid-file", str(folder / "pid"), name]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(lambda: (folder / "pid").exists() or process.poll() is not None, 20)
            assert process.poll() is None, (folder / "log").read_text()
            pid = int((folder / "pid").read_text())
            container = Container(root, pid, config.token, process, folder / "log")
            until(lambda: container.is_ready() or process.poll() is not None, 60)
            assert process.poll() is None, (folder / "log").read_text()
            yield container
        finally:
            subprocess.run([*runc, "delete", "--force", name], check=False, timeout=30)
            process.wait(20)


def _write_bundle(folder: Path, root: Path, name: str, image: str) -> None:
    """The OCI configuration of a pod's container, more or less as a kubelet has it made."""
    subprocess.run(["runc", "spec", "--bundle", str(folder)], check=True, timeout=20)
    spec = json.loads((folder / "config.json").read_text())
    started, environment = _as_built(image)
    arguments = ["--config", f"/given/{manifests.CONFIG_FILE}", "--remove-config"]
    spec["process"] = {
        "user": {"uid": 1000, "gid": 1000},
        "args": [*started, *arguments, "--listen", f"0.0.0.0:{PORT}"],
        "env": environment,
        "cwd": "/",
        "capabilities": {},
        "noNewPrivileges": True,
    }
    spec["root"] = {"path": str(root), "readonly": True}
    spec["hostname"] = "desktop"
    tmpfs = {
        "/tmp": ["mode=1777", "nosuid", "nodev"],
        "/run": ["mode=1777", "nosuid", "nodev"],
        "/home/user": ["mode=0755", *_OWNED, "nosuid", "nodev"],
        "/dev/shm": ["mode=1777", "nosuid", "nodev", "size=512m"],
    }
    spec["mounts"] = [each for each in spec["mounts"] if each["destination"] not in tmpfs]
    spec["mounts"] += [
        {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options}
        for path, options in tmpfs.items()
    ]
    given = {"destination": "/given", "type": "bind", "source": str(folder / "given")}
    spec["mounts"].append(given | {"options": ["rbind", "rw"]})
    spec["linux"]["seccomp"] = seccomp.profile()
    spec["linux"]["cgroupsPath"] = f"/{name}"
    spec["linux"].pop("resources", None)
    (folder / "config.json").write_text(json.dumps(spec))


def _as_built(image: str) -> tuple[list[str], list[str]]:
    """Entry point and environment, as the image says."""
    inspect = ["buildah", "--root", str(storage()), "--runroot", f"{storage()}.run", "inspect"]
    told = subprocess.run(
        [*inspect, "--type", "image", image],
        check=True,
        timeout=20,
        capture_output=True,
    ).stdout
    config = json.loads(told)["OCIv1"]["config"]
    assert config["User"] == "1000:1000"
    return config["Entrypoint"], config["Env"]
