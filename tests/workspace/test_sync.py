"""The synchronous face: the same methods, blocking, wherever it is called from."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.agent_bridge.fake import KEY, FakeController
from workspace.client import Carrel
from workspace.desktop import Desktop
from workspace.errors import WorkspaceNotFound
from workspace.sync import SyncCarrel, SyncDesktop


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def carrel(controller: FakeController) -> Iterator[SyncCarrel]:
    before = threading.active_count()
    transport = httpx.ASGITransport(app=controller.app)
    with SyncCarrel("http://127.0.0.1:8700", KEY, transport=transport) as carrel:
        yield carrel
    carrel.close()
    assert threading.active_count() == before


def test_it_does_what_the_asynchronous_one_does(
    carrel: SyncCarrel, controller: FakeController
) -> None:
    with carrel.claim("desktop", name="mine") as desktop:
        assert desktop.workspace.name == "mine"
        assert desktop.click(3, 4).cursor == (3, 4)
        desktop.write_file("note", b"x" * 100_000)
        with desktop.open_file("note") as chunks:
            assert b"".join(chunks) == b"x" * 100_000
        assert [item.id for item in carrel.list()] == [desktop.id]
        assert carrel.desktop(desktop.id).screenshot().startswith(b"\xff\xd8")
    assert controller.live() == []
    with pytest.raises(WorkspaceNotFound):
        carrel.get("zzzzzzzzzz")


def test_it_works_where_a_loop_already_runs(carrel: SyncCarrel) -> None:
    async def cell() -> int:
        with carrel.claim() as desktop:
            return desktop.screenshot()[0]

    assert asyncio.run(cell()) == 0xFF


def test_an_interrupt_leaves_no_desktop_behind(
    carrel: SyncCarrel, controller: FakeController
) -> None:
    controller.start_seconds = 60

    def interrupt() -> None:
        while not controller.live():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        carrel.claim()
    thread.join()
    carrel.close()  # waits for the clean-up
    assert len(controller.desktops) == 1
    assert controller.live() == []


@pytest.mark.parametrize(("face", "real"), [(SyncDesktop, Desktop), (SyncCarrel, Carrel)])
def test_no_method_is_missing(face: type, real: type) -> None:
    wanted = {name for name, _ in inspect.getmembers(real, inspect.isfunction) if name[0] != "_"}
    assert wanted - {"aclose"} <= set(dir(face))
    iterators = {"follow", "open_artifact", "open_file", "open_recording", "open_volume"}
    for name in wanted - iterators - {"aclose", "desktop"}:
        mine, theirs = inspect.signature(getattr(face, name)), getattr(real, name)
        assert mine == inspect.signature(theirs)
