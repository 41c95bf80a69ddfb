"""One real service for the end-to-end tests: `carrel up` in a home of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

START_SECONDS = 60
OUTSIDE = "127.0.0.2"
STOP_SECONDS = 15  # what a SIGTERM may take, whatever is live


@dataclass
class Service:
    """A running `carrel up`."""

    process: subprocess.Popen[str]
    home: Path
    url: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        """For commands that talk to this service."""
        return environment(self.home) | {"CARREL_URL": self.url}

    def carrel(self, *arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Run the command line against this service."""
        return subprocess.run(
            [carrel(), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def desktops(self) -> list[str]:
        """The ids of those that live."""
        key = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.get(f"{self.url}/v1/workspaces", headers=key, timeout=30)
        answer.raise_for_status()
        return [each["id"] for each in answer.json()["workspaces"]]


def carrel() -> str:
    return str(Path(sys.executable).with_name("carrel"))


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARREL_")}
    return kept | {"CARREL_HOME": str(home)}


def start(home: Path, *arguments: str, **settings: str) -> Service:
    """Start `carrel up` on a free port and wait until it says that it serves."""
    with (home / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [carrel(), "up", "--port", "0", *arguments],
            env=environment(home) | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready"):
            url = line.split()[1]
            return Service(process, home, url, (home / "api-key").read_text().strip())
    process.wait(START_SECONDS)
    raise AssertionError((home / "up.log").read_text())


def stop(service: Service) -> None:
    """SIGTERM, and it must be gone in the time it is given."""
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGTERM)
        try:
            service.process.wait(STOP_SECONDS)
        finally:
            service.process.kill()
    if service.process.stdout is not None:
        service.process.stdout.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # That address of loopback stands for what desktops may be let reach.
    running = start(tmp_path_factory.mktemp("home"), CARREL_EGRESS_PRIVATE=f"{OUTSIDE}/32")
    yield running
    stop(running)
