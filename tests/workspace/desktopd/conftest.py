"""A real daemon with a real X server and XFCE, in temporary folders, as a supervisor starts it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed

from workspace.backends import runtime
from workspace.backends.base import Endpoint
from workspace.desktop import Desktop, connect

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "a-token-that-only-the-tests-know"
LAUNCHER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from workspace.desktopd.__main__ import main; sys.exit(main())"
)


async def until_closed(socket: ClientConnection) -> int | None:
    """Read a WebSocket to its end; the code it was closed with."""
    try:
        async for _ in socket:
            pass
    except ConnectionClosed:
        pass
    return socket.close_code


class Daemon:
    """A started desktopd; ``said`` is what it wrote on its ready pipe."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        path: str | None = None,
        *,
        launcher: str = LAUNCHER,
        inside: Callable[[Path], Sequence[str]] = lambda folder: (),
    ) -> None:
        self.folder = folder
        self.home, self.runtime = folder / "home", folder / "run"
        self.home.mkdir()
        self.runtime.mkdir(mode=0o700)
        self.socket = folder / "socket"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen(128)
        config_read, config_write = os.pipe()
        self._ready, ready_write = os.pipe()
        os.write(config_write, json.dumps({"token": TOKEN} | config).encode())
        os.close(config_write)
        passed = [config_read, listener.fileno(), ready_write]
        self.log = folder / "log"
        # By the Python and the packages that desktops have, whose parts are smaller than ours here.
        packages = runtime.dependencies(runtime.default_dir())
        launcher = f"import sys; sys.path.insert(0, {str(packages)!r})\n{launcher}"
        command = [*inside(folder), runtime.PYTHON, "-I", "-S", "-c", launcher, str(ROOT)]
        command += ["--config-fd", str(passed[0]), "--listen-fd", str(passed[1])]
        command += ["--ready-fd", str(passed[2])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                pass_fds=passed,
                env={
                    "PATH": path or os.environ["PATH"],
                    "HOME": str(self.home),
                    "XDG_RUNTIME_DIR": str(self.runtime),
                    "CARREL_API_KEY": "secret-of-the-host",
                },
                stderr=log,
            )
        listener.close()
        os.close(config_read)
        os.close(ready_write)
        self.descendants: list[psutil.Process] = []

    def wait_until_ready(self) -> dict[str, Any]:
        said = bytearray()
        deadline = time.monotonic() + 40
        while not said.endswith(b"\n"):
            readable, _, _ = select.select([self._ready], [], [], deadline - time.monotonic())
            assert readable, "the daemon said nothing"
            data = os.read(self._ready, 65536)
            assert data, f"the daemon ended without a word: {self.log.read_text()}"
            said += data
        answer: dict[str, Any] = json.loads(said)
        return answer

    def note_descendants(self) -> list[psutil.Process]:
        """Every process below it now; ``stop`` checks that all of them are gone."""
        self.descendants = psutil.Process(self.process.pid).children(recursive=True)
        return self.descendants

    def programs(self) -> list[tuple[str, psutil.Process]]:
        """The programs below it now, by their command lines."""
        found = []
        for process in self.note_descendants():
            try:
                found.append((" ".join(process.cmdline()), process))
            except psutil.NoSuchProcess:
                continue
        return found

    def connect(self) -> Desktop:
        return connect(Endpoint(url=f"unix://{self.socket}", token=TOKEN))

    def web_socket(
        self, path: str, **options: Any
    ) -> AbstractAsyncContextManager[ClientConnection]:
        options.setdefault("additional_headers", {"Authorization": f"Bearer {TOKEN}"})
        socket: AbstractAsyncContextManager[ClientConnection] = unix_connect(
            str(self.socket), f"ws://desktop{path}", max_size=None, **options
        )
        return socket

    def wait_for_end(self) -> int:
        """The exit code of a daemon that ends by itself."""
        return self.process.wait(30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.note_descendants()
            self.process.send_signal(number)
        code = self.process.wait(30)
        left = [each for each in self.descendants if each.is_running()]
        assert left == []
        return code

    def close(self) -> None:
        os.close(self._ready)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        # Not shutil's: folders may lie in each other deeper than its calls can.
        subprocess.run(["rm", "-rf", "--", self.folder], check=True)


@pytest.fixture(scope="session")
def start_daemon() -> Iterator[Callable[..., Daemon]]:
    """Starts daemons, in folders whose names are short enough for sockets."""
    daemons: list[Daemon] = []

    def start(*, path: str | None = None, **config: Any) -> Daemon:
        daemons.append(Daemon(Path(tempfile.mkdtemp(prefix="dd-")), config, path))
        return daemons[-1]

    yield start
    for daemon in daemons:
        try:
            daemon.stop()
        finally:
            daemon.close()


@pytest.fixture(scope="session")
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """One desktop for all tests that leave it as it was."""
    started = start_daemon(disk_mib=64, environment={"FROM_TEMPLATE": "yes"})
    assert started.wait_until_ready() == {"ready": True}
    return started


@pytest.fixture
async def desktop(daemon: Daemon) -> AsyncIterator[Desktop]:
    client = daemon.connect()
    yield client
    await client.aclose()
