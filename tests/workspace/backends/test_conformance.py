"""Every backend that runs here keeps the promises of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.workspace.backends import contained
from tests.workspace.backends.conformance import Promises
from tests.workspace.backends.conftest import STAND_IN, Place
from workspace.backends import remains
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.backends.containers.api import Engine
from workspace.backends.docker import DockerBackend
from workspace.backends.fake import FakeBackend

SMALL: Mapping[str, object] = {"memory_mib": 512, "pids": 256}


def said(word: str) -> Mapping[str, object]:
    """A template whose stand-in says that of its start."""
    return {**SMALL, "environment": {"STAND_IN": word}}


class OfBubblewrap:
    template = SMALL
    failing = said("dead")
    slow = said("silent")
    # As the entry of containers does.
    code = """
import json, os, sys, time
said = json.loads(os.pread(11, 1 << 20, 0))["environment"].get("STAND_IN")
if said == "silent":
    time.sleep(600)
if said == "dead":
    sys.exit(3)
"""

    def __init__(self, place: Place, volume_dir: Path) -> None:
        self._place, self._volume_dir = place, volume_dir
        self.backend = self.another()

    def another(self) -> BubblewrapBackend:
        place = self._place
        return BubblewrapBackend(
            place.run_dir,
            place.disk_dir,
            place.runtime_dir,
            self._volume_dir,
            command=("/usr/bin/python3", "-I", "-S", "-c", self.code + STAND_IN),
        )

    async def kill(self, workspace_id: str) -> None:
        remains.send(self._place.state(workspace_id)["init"], 9)


class OfContainers:
    template = SMALL
    failing = said("dead")
    slow = said("silent")

    def __init__(self, place: contained.ContainedPlace) -> None:
        self._place = place
        self.backend = place.backend

    def another(self) -> DockerBackend:
        return self._place.another()

    async def kill(self, workspace_id: str) -> None:
        pid = int(self._place.container(workspace_id)["State"]["Pid"])
        remains.send(remains.process(pid), 9)


class OfFakes:
    template: Mapping[str, object] = {}
    failing: Mapping[str, object] = {"environment": {"FAKE_START_ERROR": "it broke"}}
    slow: Mapping[str, object] = {"environment": {"FAKE_START_SECONDS": "60"}}

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.backend = self.another()

    def another(self) -> FakeBackend:
        return FakeBackend(str(self._folder))

    async def kill(self, workspace_id: str) -> None:
        self.backend.end(workspace_id)


class TestBubblewrap(Promises):
    @pytest.fixture
    def subject(self, place: Place, volume_dir: Path) -> OfBubblewrap:
        return OfBubblewrap(place, volume_dir)


class TestContainers(Promises):
    @pytest.fixture
    def subject(self, engine: Engine) -> Iterator[OfContainers]:
        with contained.place(engine) as place:
            yield OfContainers(place)


class TestFakes(Promises):
    @pytest.fixture
    def subject(self, short_dir: Path) -> OfFakes:
        return OfFakes(short_dir)
