"""Podman's service, which speaks Docker's API, in folders of its own, and a small image for it.

Nothing of the machine's own Podman is read or touched: configuration, storage and state lie in the
folder that is given. The image is made of what this machine has: a shell, Python, and some tools
with the libraries that they need. It takes a second, and no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workspace.backends.containers.api import Away, Engine

TOOLS = (
    "bash", "cat", "chmod", "choom", "chroot", "cp", "cut", "find", "grep", "head", "hostname",
    "id", "ipcmk", "ipcs", "ln", "ls", "mkdir", "mknod", "mount", "nsenter", "ps", "python3",
    "readlink", "rm", "seq", "setsid", "sh", "sleep", "sort", "stat", "touch", "true", "umount",
    "unshare",
)  # fmt: skip
IMAGE = "localhost/carrel-tiny:latest"
_UNUSED = ("test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "turtledemo", "tkinter")


# As desktopd does by `--from`. What the template's environment says of STAND_IN is said of the
# start, or nothing ever is.
ENTRY = """
import json, os, socket, sys, threading, time

giver = socket.socket(socket.AF_UNIX)
giver.connect(sys.argv[2])
_, fds, _, _ = socket.recv_fds(giver, 1, 4)
config, listener, ready, egress = [os.dup2(fd, 100 + fd, inheritable=False) for fd in fds]
for fd in fds:
    os.close(fd)
for number, fd in ((10, listener), (11, config), (12, ready)):
    os.dup2(fd, number, inheritable=False)
    os.close(fd)
with socket.socket(fileno=egress) as out, socket.create_server(("127.0.0.1", 3128)) as proxy:
    socket.send_fds(out, [b"-"], [proxy.fileno()])
said = json.loads(os.pread(11, 1 << 20, 0))["environment"].get("STAND_IN")
if said == "silent":
    print("these are my last words", flush=True)
    time.sleep(600)
if said == "dead":
    print("these are my last words", flush=True)
    sys.exit(3)
sys.argv[1:] = [said] if said else []
threading.Thread(target=lambda: (giver.recv(1), os._exit(0)), daemon=True).start()
"""


@contextmanager
def serving(folder: Path, *, images: Path | None = None) -> Iterator[Engine]:
    """Podman's service as long as the block runs; ``images`` is a store that it only reads."""
    files = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    tasks = min(30_000, resource.getrlimit(resource.RLIMIT_NPROC)[1])
    (folder / "containers.conf").write_text(
        "[containers]\n"
        f'default_ulimits=["nofile={files}:{files}","nproc={tasks}:{tasks}"]\n'
        '[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
        "exit_command_delay=1\n"
    )
    store = folder / "store"
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver="{_driver(folder)}"\ngraphroot="{store}"\nrunroot="{folder / "run"}"\n'
        f"[storage.options]\nadditionalimagestores={json.dumps([str(images)] if images else [])}\n"
    )
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
    }
    path = folder / "p.sock"
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{path}"],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        engine = Engine(str(path))
        _until_answering(engine, service, folder / "log")
        yield engine
    finally:
        service.terminate()
        service.wait(30)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (point := line.split()[4]).startswith(str(folder)):
                subprocess.run(["umount", "-l", point], check=True)
        for group in Path("/sys/fs/cgroup").glob("**/libpod_parent"):
            for each in (*group.glob("**/"), group):  # empty ones, which it leaves
                with contextlib.suppress(OSError):
                    each.rmdir()


def _driver(folder: Path) -> str:
    """Overlays do not lie on one another: in a container that has one, layers are copied."""
    point = max(
        (line.split() for line in Path("/proc/self/mounts").read_text().splitlines()),
        key=lambda each: len(each[1]) if folder.is_relative_to(each[1]) else 0,
    )
    return "vfs" if point[2] == "overlay" else "overlay"


def _until_answering(engine: Engine, service: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            assert engine.ask("GET", "/_ping").status == 200
            return
        except Away:
            assert service.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def tiny_image(folder: Path, entry: str) -> Path:
    """A docker-archive with ``entry``, Python's text, as what containers run. Its path."""
    root = folder / "root"
    _make_root(root)
    (root / "entry.py").write_text(entry)
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(root, ".")
    shutil.rmtree(root)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/python3", "-I", "-S", "/entry.py"],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    for path, content in (("config.json", config), ("manifest.json", manifest)):
        (folder / path).write_text(json.dumps(content))
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for path in ("config.json", "manifest.json", "layer.tar"):
            tar.add(folder / path, path)
    layer.unlink()
    return archive


def load(engine: Engine, archive: Path) -> None:
    """Have it know the images of an archive."""
    connection = http.client.HTTPConnection("engine", timeout=120)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(engine.path)
    with archive.open("rb") as file:
        headers = {"Content-Length": str(archive.stat().st_size)}
        connection.request("POST", "/images/load", file, headers)
        answer = connection.getresponse()
        said = answer.read()
    connection.close()
    assert answer.status == 200, said


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make_root(root: Path) -> None:
    for name in (
        "etc",
        "home/user",
        "proc",
        "sys",
        "dev",
        "tmp",
        "run",
        "var/tmp",
        "root",
        "usr/bin",
        "carrel",
        "mnt",
        "srv",
        "opt",
    ):
        (root / name).mkdir(parents=True)
    os.chown(root / "home/user", 1000, 1000)
    for name in ("tmp", "run", "var/tmp"):  # runc gives a tmpfs the mode of what it lies on
        (root / name).chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    files: set[str] = set()
    for tool in TOOLS:
        path = shutil.which(tool, path="/usr/bin:/usr/sbin")
        assert path is not None, f"{tool} is not here"
        files.add(path)
    version = os.path.basename(os.path.realpath("/usr/bin/python3"))
    library = Path(f"/usr/lib/{version}")
    files |= {str(path) for path in (library / "lib-dynload").glob("*.so")}
    needed = {path for file in files for path in _libraries(os.path.realpath(file))}
    shutil.copytree(
        library, root / str(library)[1:], symlinks=True, ignore=shutil.ignore_patterns(*_UNUSED)
    )
    for file in sorted(files | needed):
        target = root / "usr" / file.removeprefix("/usr").lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(os.path.realpath(file), target)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/bash\n"
    )
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")


def _libraries(file: str) -> set[str]:
    done = subprocess.run(["ldd", file], capture_output=True, text=True)
    words = (word for line in done.stdout.splitlines() for word in line.split())
    return {word for word in words if word.startswith("/")}
