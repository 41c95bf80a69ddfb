"""A Redis server of the tests' own, on a unix socket, with nothing on the disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import until

STOP_SECONDS = 10


def program() -> str:
    # Debian's redis-tools has the program by the name that checks files: it goes by its own name.
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    assert found, "Redis is not installed: run scripts/setup dev"
    return found


class RedisServer:
    """A server that can be killed, frozen, and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/redis.sock"
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                ["redis-server", *options],
                executable=program(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ping = ["redis-cli", "-s", str(self._folder / "redis.sock"), "ping"]
        until(lambda: subprocess.run(ping, capture_output=True).stdout == b"PONG\n")

    def send(self, number: signal.Signals) -> None:
        assert self._server is not None, "it was started"
        self._server.send_signal(number)

    def kill(self) -> None:
        assert self._server is not None, "it was started"
        self._server.kill()
        self._server.wait(STOP_SECONDS)
        (self._folder / "redis.sock").unlink(missing_ok=True)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A running server; it and its folder are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="c-rd-") as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.kill()
