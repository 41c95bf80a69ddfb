"""The controller's client, against a controller in memory."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from tests.agent_bridge.fake import KEY, FakeController
from workspace.client import Carrel
from workspace.errors import (
    FileMissing,
    StartFailed,
    TemplateNotFound,
    TimedOut,
    Unauthorized,
    Unavailable,
    WorkspaceEnded,
    WorkspaceNotFound,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
async def carrel(controller: FakeController) -> AsyncIterator[Carrel]:
    transport = httpx.ASGITransport(app=controller.app)
    async with Carrel("http://127.0.0.1:8700", KEY, transport=transport) as carrel:
        yield carrel


async def test_a_claimed_desktop_acts_and_is_released(
    carrel: Carrel, controller: FakeController
) -> None:
    controller.start_seconds = 0.1
    async with await carrel.claim("desktop", name="mine", ttl_seconds=60) as desktop:
        assert desktop.workspace.name == "mine"
        assert desktop.watch_url.endswith("#token")
        assert controller.live() == [desktop.id]
        assert (await desktop.click(10, 20)).cursor == (10, 20)
        longer = await desktop.extend(600)
        assert desktop.workspace == longer
        with pytest.raises(FileMissing):
            await desktop.read_file("missing")
    assert controller.live() == []
    with pytest.raises(WorkspaceEnded):
        await desktop.screenshot()


async def test_a_desktop_is_released_when_its_block_fails_or_is_cancelled(
    carrel: Carrel, controller: FakeController
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with await carrel.claim():
            raise ZeroDivisionError
    with anyio.move_on_after(0.05):
        async with await carrel.claim():
            await anyio.sleep(60)
    assert controller.live() == []


async def test_a_cancelled_claim_leaves_nothing(carrel: Carrel, controller: FakeController) -> None:
    controller.start_seconds = 60
    with anyio.move_on_after(0.1):
        await carrel.claim()
    assert len(controller.desktops) == 1
    assert controller.live() == []


async def test_a_start_that_fails_or_takes_too_long_is_told_and_released(
    carrel: Carrel, controller: FakeController
) -> None:
    controller.fails_to_start = True
    with pytest.raises(StartFailed, match="X did not start"):
        await carrel.claim()
    controller.fails_to_start, controller.start_seconds = False, 60
    with pytest.raises(TimedOut, match="not ready"):
        await carrel.claim(timeout_seconds=0.1)
    assert controller.live() == []


async def test_listing_getting_and_releasing(carrel: Carrel, controller: FakeController) -> None:
    made = [await carrel.create() for _ in range(5)]
    assert {item.id for item in await carrel.list()} == {item.id for item in made}
    assert (await carrel.get(made[0].id)).state == "ready"
    await carrel.release(made[0].id)
    await carrel.release(made[0].id)
    assert len(await carrel.list()) == 4
    assert (await carrel.whoami()).name == "tester"
    assert [template.name for template in await carrel.templates()] == ["desktop", "large", "code"]


@pytest.mark.parametrize("bad", ["zzzzzzzzzz", "../templates", "a", "", "fake0000/files\n"])
async def test_ids_that_are_no_ids_reach_no_other_path(carrel: Carrel, bad: str) -> None:
    with pytest.raises(WorkspaceNotFound):
        await carrel.get(bad)
    with pytest.raises(WorkspaceNotFound):
        await carrel.desktop(bad).screenshot()


async def test_errors_say_what_to_do(carrel: Carrel, controller: FakeController) -> None:
    with pytest.raises(TemplateNotFound, match="There are: desktop"):
        await carrel.claim("dektop")
    transport = httpx.ASGITransport(app=controller.app)
    async with Carrel("http://127.0.0.1:8700", "wrong", transport=transport) as stranger:
        with pytest.raises(Unauthorized):
            await stranger.claim()
    assert controller.desktops == {}


async def test_without_a_controller_or_a_key_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CARREL_URL", "CARREL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CARREL_HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # no proxy is asked for loopback
    with pytest.raises(Unauthorized, match="carrel up"):
        Carrel()
    (tmp_path / "api-key").write_text("from-the-file\n")
    with pytest.raises(Unauthorized):
        Carrel(key="")  # whose key it was is not replaced by one's own
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: refused
        (tmp_path / "url").write_text(f"http://127.0.0.1:{free.getsockname()[1]}\n")
        async with Carrel() as carrel:
            with pytest.raises(Unavailable, match="carrel up"):
                await carrel.list()


def test_importing_the_sdk_stays_light() -> None:
    """Whatever is loaded is the standard library's, ours, or one of pydantic's and httpx's own."""
    script = (
        "import sys; before = set(sys.modules); import workspace\n"
        "assert not {'httpx', 'pydantic'} & set(sys.modules)\n"
        "workspace.Carrel, workspace.SyncCarrel, workspace.Template\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*(name for name in roots - sys.stdlib_module_names if name[0] != '_'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True
    )
    of_pydantic = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions"}
    of_pydantic |= {"typing_inspection"}
    of_httpx = {"httpx", "httpcore", "anyio", "certifi", "h11", "idna", "sniffio", "exceptiongroup"}
    of_httpx |= {"click", "pygments", "rich"}  # its command line's, where they are installed
    assert set(done.stdout.split()) - of_pydantic - of_httpx == {"workspace"}, done.stderr
