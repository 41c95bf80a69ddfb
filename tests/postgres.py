"""A PostgreSQL server of the tests' own, unprivileged: all of it lies in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # it has no stubs

from tests.waiting import until

START_SECONDS = 60
STOP_SECONDS = 20
# What a power cut would take does not matter here.
_FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB")


def programs() -> Path:
    """The folder of the server's programs, where Debian puts them or on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda it: it.parts[-3])
    initdb = found[-1] if found else Path(shutil.which("initdb") or "")
    assert initdb.name, "PostgreSQL's server is not installed: run scripts/setup dev"
    return initdb.parent


class Postgres:
    """A server that can be started, stopped, killed, frozen, and started again."""

    def __init__(self, folder: Path, *settings: str, port: int = 5432) -> None:
        self._folder = folder
        self._port = port  # of a socket's name, unless it is told to listen
        self._settings = settings
        self._programs = programs()
        self._server: subprocess.Popen[bytes] | None = None
        self._made = 0
        if os.geteuid() == 0:  # which it refuses to run as
            shutil.chown(folder, "nobody")
        self._run("initdb", "-D", "data", "-U", "carrel", "-A", "trust", "-N", "-E", "UTF8")
        self.start()

    def _spawn(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / name, *args],
                cwd=self._folder,
                env={"LC_ALL": "C", "PATH": os.defpath, "TZ": "America/Lima"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user="nobody" if os.geteuid() == 0 else None,
                extra_groups=[] if os.geteuid() == 0 else None,
                start_new_session=True,
            )

    def _run(self, name: str, *args: str) -> None:
        code = self._spawn(name, *args).wait(START_SECONDS)
        assert code == 0, (self._folder / "log").read_text()

    def start(self) -> None:
        options = [
            f"unix_socket_directories={self._folder}",
            "listen_addresses=",
            *_FAST,
            f"port={self._port}",
        ]
        flags = [flag for each in (*options, *self._settings) for flag in ("-c", each)]
        self._server = self._spawn("postgres", "-D", "data", *flags)
        ready = ["pg_isready", "-h", str(self._folder), "-p", str(self._port), "-U", "carrel", "-q"]
        until(
            lambda: subprocess.run([self._programs / ready[0], *ready[1:]]).returncode == 0,
            START_SECONDS,
        )

    def signal(self, number: signal.Signals) -> None:
        """To the server and to every process of it."""
        assert self._server is not None, "it was started"
        for each in self._family():
            with suppress(ProcessLookupError):  # a connection's, that ended meanwhile
                os.kill(each, number)

    def _family(self) -> list[int]:
        assert self._server is not None, "it was started"
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text()
        return [self._server.pid, *map(int, children.split())]

    def kill(self) -> None:
        """As a machine that dies; what it had is there after ``start``."""
        assert self._server is not None, "it was started"
        family = self._family()
        self.signal(signal.SIGKILL)
        self._server.wait(STOP_SECONDS)
        until(lambda: not any(_lives(pid) for pid in family))  # and holds the data no more

    def stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)  # "fast": its connections are closed
            self._server.wait(STOP_SECONDS)

    def url(self, database: str) -> str:
        return f"postgresql://carrel@/{database}?host={self._folder}&port={self._port}"

    def database(self, options: str = "") -> str:
        """The URL of a new database, which is empty unless ``options`` name a template."""
        self._made += 1
        name = f"t{self._made}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> object:
        """Its first value, by a connection of its own."""

        async def run() -> object:
            connection = await asyncpg.connect(self.url(database))
            try:
                return await connection.fetchval(statement)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:  # a loop of its own, beside a test's
            return thread.submit(asyncio.run, run()).result(START_SECONDS)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def postgres(*settings: str, port: int = 5432) -> Iterator[Postgres]:
    """A running server; it and its folder are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="c-pg-") as folder:
        server = Postgres(Path(folder), *settings, port=port)
        try:
            yield server
        finally:
            server.stop()
