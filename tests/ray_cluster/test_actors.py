"""One desktop's life, without Ray: what ends it, and what it says of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_cluster.actors import Deadline, Life
from tests.ray_cluster.conftest import template
from workspace.backends.base import Backend, Endpoint
from workspace.backends.fake import FakeBackend
from workspace.errors import DiskFull, WorkspaceEnded
from workspace.models import Template

pytestmark = pytest.mark.anyio
ID = "abcdefgh"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_is_on_its_own_clock() -> None:
    clock = Clock()
    deadline = Deadline(10, clock)
    clock.now += 4
    assert deadline.remaining() == 6
    deadline.extend(30)
    assert deadline.remaining() == 30
    clock.now += 31
    assert deadline.remaining() == 0


@pytest.fixture
def backend(short_dir: Path) -> Iterator[FakeBackend]:
    yield FakeBackend(str(short_dir))
    assert list(short_dir.iterdir()) == []


def living(
    backend: FakeBackend,
    of: Template,
    *,
    deadline: Deadline | None = None,
    start_seconds: float = 5,
) -> tuple[Life, asyncio.Task[None]]:
    async def start() -> tuple[Backend, Endpoint]:
        return backend, await backend.start(ID, of)

    life = Life(
        ID,
        start,
        lambda: backend.stop(ID),
        deadline=deadline or Deadline(60),
        start_seconds=start_seconds,
    )
    return life, asyncio.ensure_future(life.run())


async def over(life: Life, task: asyncio.Task[None]) -> str:
    await asyncio.wait_for(task, 10)
    assert life.over.is_set()
    assert life.reason is not None
    with pytest.raises(WorkspaceEnded):
        life.extend(10)
    return str(life.reason["code"])


async def test_it_lives_until_it_is_released(backend: FakeBackend) -> None:
    life, task = living(backend, template())
    await life.ready.wait()
    assert life.endpoint is not None
    life.release()
    assert await over(life, task) == "released"


async def test_it_ends_when_its_time_is_over_and_not_before(backend: FakeBackend) -> None:
    clock = Clock()
    life, task = living(backend, template(), deadline=Deadline(100, clock))
    await life.ready.wait()
    clock.now += 99
    life.extend(50)
    clock.now += 49
    life.extend(0.1)  # it looks at its clock anew
    clock.now += 1
    assert await over(life, task) == "deadline_passed"


async def test_it_ends_with_its_sandbox(backend: FakeBackend) -> None:
    life, task = living(backend, template(FAKE_DIE_SECONDS="0.05"))
    assert await over(life, task) == "desktop_lost"


async def test_a_start_that_fails_keeps_the_backends_own_words(backend: FakeBackend) -> None:
    environment = {"FAKE_START_ERROR": "no room", "FAKE_START_ERROR_CODE": DiskFull.code}
    life, task = living(backend, template(**environment))
    assert await over(life, task) == "disk_full"
    assert life.ready.is_set()  # who waits for it learns of the end


async def test_a_start_is_bounded_and_can_be_given_up(backend: FakeBackend) -> None:
    slow = template(FAKE_START_SECONDS="30")
    assert await over(*living(backend, slow, start_seconds=0.1)) == "start_failed"
    life, task = living(backend, slow)
    await asyncio.sleep(0.05)
    life.release()
    assert await over(life, task) == "released"


async def test_a_defect_of_a_backend_is_told_of_as_one(backend: FakeBackend) -> None:
    life, task = living(backend, template(FAKE_START_SECONDS="nonsense"))
    assert await over(life, task) == "internal"
