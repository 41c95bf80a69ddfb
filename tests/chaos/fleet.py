"""Controllers as processes of their own, over one Ray and one database: what the tests kill.

A controller here is `carrel up` in a home of its own. It is killed, ended, stopped and started
again at will; :meth:`Fleet.close` ends whatever still lives and removes what a killed one left.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from controller.settings import Settings
from ray_cluster.keeper import ACTOR_NAME, RunDir
from ray_cluster.local import LocalRay
from tests.postgres import Postgres, postgres
from tests.waiting import until

START_SECONDS = 90
STOP_SECONDS = 30
CALL_SECONDS = 120  # a claim's own limit on a slow machine


@dataclass
class Controller:
    """One `carrel up`, as often as it is started."""

    home: Path
    key: str
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    url: str = ""

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CARREL_")}
        own = {"CARREL_HOME": str(self.home), "CARREL_API_KEY": self.key}
        return kept | own | self.settings

    @property
    def log(self) -> str:
        return (self.home / "up.log").read_text()

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, program: Sequence[str] = ()) -> float:
        """Until it says that it serves; the seconds that took. Its port stays the same."""
        assert not self.is_alive, "it is not running"
        port = self.url.rpartition(":")[2] or "0"
        began = time.monotonic()
        with (self.home / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*(program or [carrel()]), "up", "--port", port],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = ""
        if select.select([self.process.stdout], [], [], START_SECONDS)[0]:
            line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.end()
            raise AssertionError(f"{line}\n{self.log}")
        self.url = line.split()[1]
        return time.monotonic() - began

    def tell(self, number: signal.Signals) -> None:
        assert self.process is not None, "it was started"
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal it, and wait until it is gone."""
        if self.process is None:
            return
        if self.is_alive:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_SECONDS)
            finally:
                self.process.kill()
                self.process.wait(STOP_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def clear(self) -> None:
        """End what of it lives, and remove what one that was killed has left."""
        self.end()
        done = subprocess.run(
            [carrel(), "down"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=STOP_SECONDS * 2,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=CALL_SECONDS)


def carrel() -> str:
    return str(Path(sys.executable).with_name("carrel"))


@dataclass
class Fleet:
    """Several controllers over one PostgreSQL and one Ray, which is none of theirs."""

    folder: Path
    database: Postgres
    keeper: psutil.Process
    settings: Mapping[str, str]
    database_name: str
    controllers: list[Controller] = field(default_factory=list)

    def start(self, *names: str) -> None:
        """Controllers of these names."""
        urls = [f"http://127.0.0.1:{free_port()}" for _ in names]
        for name, url in zip(names, urls, strict=True):
            home = self.folder / name
            home.mkdir()
            settings = {
                **self.settings,
                "CARREL_REPLICA": name,
                "CARREL_CONTROLLERS": ",".join(urls),
            }
            self.controllers.append(Controller(home, "the-key-of-all", settings, url=url))
            self.controllers[-1].start()

    def actors(self) -> list[psutil.Process]:
        return actors_below(self.keeper)

    def close(self) -> None:
        for controller in self.controllers:
            controller.clear()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def actors_below(keeper: psutil.Process) -> list[psutil.Process]:
    """The desktops' actors of one Ray, by age."""
    found = []
    for process in keeper.children(recursive=True):
        try:
            if process.name().startswith(ACTOR_NAME):
                found.append(process)
        except psutil.NoSuchProcess:  # as what Ray starts for a moment does
            continue
    return found


def ray_of(controller: Controller) -> psutil.Process:
    """The keeper of a controller's own Ray."""
    run_dir = RunDir(Settings(home=controller.home).sockets)
    return psutil.Process(int(run_dir.keeper_lock.read_text()))


def embedded_actors(controller: Controller) -> list[psutil.Process]:
    return actors_below(ray_of(controller))


@contextmanager
def fleet(*, desktops: int = 12) -> Iterator[Fleet]:
    """A database and a Ray for as long as the block runs; nothing of either is left."""
    with postgres() as database, tempfile.TemporaryDirectory(prefix="c-fleet-") as name:
        folder = Path(name)
        run_dir = folder / "r"
        run_dir.mkdir(mode=0o700)
        ray = LocalRay(run_dir, desktops=desktops)
        lock = os.open(RunDir(run_dir).controller_lock, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # by it Ray's keeper knows that it is needed
        try:
            address, token = ray.start_or_find()
            keeper = psutil.Process(int(RunDir(run_dir).keeper_lock.read_text()))
            processes = [keeper, *keeper.children(recursive=True)]
            url = database.database()
            settings = {
                "CARREL_DATABASE_URL": url,
                "CARREL_RAY_ADDRESS": address,
                "CARREL_RAY_TOKEN": token,
                "CARREL_CLUSTER": f"t-{secrets.token_hex(3)}",
                "CARREL_SECRET": secrets.token_hex(16),
                "CARREL_ARTIFACTS": "none",  # a folder is of one controller
            }
            running = Fleet(folder, database, keeper, settings, urlsplit(url).path[1:])
            try:
                yield running
            finally:
                running.close()
        finally:
            ray.stop()
            os.close(lock)
        until(lambda: not any(process.is_running() for process in processes))
