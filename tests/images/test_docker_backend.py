"""The main job on one machine with Podman: MCP, controller, Ray's actor, container, Chromium.

Of `make test-kubernetes`, whose cluster runs the same image.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests import podman
from tests.e2e.conftest import Service, start, stop
from tests.images.desktop import REFERENCE, desktop_archive, storage
from workspace.backends.containers.api import Engine

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1600),  # of which the image's first build may take most
]
MOST_ACTOR_MIB = 75  # of memory that is its own


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Podman's service over the image where it lies: nothing is copied, or written there."""
    desktop_archive()
    with tempfile.TemporaryDirectory(prefix="cp-", dir="/var/tmp") as name:
        with podman.serving(Path(name), images=storage()) as engine:
            yield engine


@pytest.fixture
def service(engine: Engine) -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="c-home-") as home:
        running = start(
            Path(home),
            CARREL_BACKEND="docker",
            CARREL_DOCKER_HOST=f"unix://{engine.path}",
            CARREL_DOCKER_IMAGE=REFERENCE,
        )
        try:
            yield running
        finally:
            stop(running)
    assert engine.ask("GET", "/containers/json", query={"all": "1"}).body == []


def test_the_demo_does_the_main_job_in_a_container(
    service: Service, engine: Engine, tmp_path: Path
) -> None:
    done = service.carrel("doctor")
    assert done.returncode == 0, done.stdout
    done = service.carrel("demo", "--json", "--out", str(tmp_path), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["text"] == "Grüße, 世界 🚀"
    for path in result["screenshots"]:
        with Image.open(path) as picture:
            assert picture.size == (1280, 800)


def test_a_desktop_is_a_container_and_its_actor_is_small(service: Service, engine: Engine) -> None:
    made = json.loads(service.carrel("new", "desktop", "--json", timeout=120).stdout)
    (container,) = engine.ask("GET", "/containers/json").body
    assert container["Labels"]["carrel.dev/sandbox"] == made["id"]
    actors = [
        process.memory_full_info().uss / (1 << 20)
        for process in psutil.process_iter(["cmdline"])
        if "ray::DesktopActor" in " ".join(process.info["cmdline"] or [])
    ]
    assert actors
    assert max(actors) < MOST_ACTOR_MIB
    assert service.carrel("rm", made["id"]).returncode == 0
