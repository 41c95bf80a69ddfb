"""Waiting for the screen and its windows, on a real X server."""

from __future__ import annotations

import asyncio

import pytest

from tests.workspace.desktopd.x11.harness import Client, Server
from workspace import actions as a
from workspace import waits as w
from workspace.desktopd.screen import Screen
from workspace.desktopd.waiting import regions
from workspace.desktopd.x11 import watching
from workspace.errors import NoCapacity, OffScreen, TimedOut
from workspace.models import WindowChange

REGION = a.Region(x=100, y=100, width=200, height=100)


def changes(screen: Screen, **fields: object) -> asyncio.Task[w.Waited]:
    wanted = w.RegionChanges.model_validate({"seconds": 5, **fields})
    return asyncio.ensure_future(regions.changes(screen.watching, wanted))


def stable(screen: Screen, **fields: object) -> asyncio.Task[w.Waited]:
    wanted = w.RegionStable.model_validate({"seconds": 5, **fields})
    return asyncio.ensure_future(regions.is_stable(screen.watching, wanted))


async def test_a_region_that_changes(screen: Screen, client: Client) -> None:
    inside, whole = changes(screen, region=REGION), changes(screen)
    await asyncio.sleep(0.05)
    client.fill(0x00FF00, 500, 500, 10, 10)
    assert (await whole).region == a.Region(x=500, y=500, width=10, height=10)
    client.fill(0x000000, 150, 150, 40, 20)  # as black as it was
    await asyncio.sleep(0.1)
    assert not inside.done()
    client.fill(0xFF0000, 290, 190, 40, 40)
    assert (await inside).region == a.Region(x=290, y=190, width=10, height=10)
    assert not screen.watching._watches


async def test_a_region_that_does_not_change(screen: Screen, client: Client) -> None:
    with pytest.raises(TimedOut, match=r"The part of 200x100 pixels at \(100, 100\) did") as told:
        await changes(screen, region=REGION, seconds=0.1)
    assert "It was not painted on at all." in told.value.hint
    waiting = changes(screen, region=REGION, seconds=0.2)
    await asyncio.sleep(0.05)
    client.fill(0, 150, 150, 40, 20)
    with pytest.raises(TimedOut) as told:
        await waiting
    assert "looks the same" in told.value.hint


async def test_a_region_that_comes_to_rest(screen: Screen, client: Client) -> None:
    loop = asyncio.get_running_loop()
    waiting, elsewhere = stable(screen, region=REGION, stable_ms=200), loop.time()
    for step in range(10):
        client.fill(0xFF0000 + step, 150, 150, 40, 20)
        await asyncio.sleep(0.05)
        assert not waiting.done()
    ended = loop.time()
    assert (await waiting).region == a.Region(x=150, y=150, width=40, height=20)
    assert 0.1 < loop.time() - ended < 1
    assert elsewhere < ended


async def test_what_blinks_is_at_rest_and_what_is_drawn_on_and_on_is_not(
    screen: Screen, client: Client
) -> None:
    async def blink(width: int) -> None:
        for step in range(1000):
            client.fill(0xFFFFFF * (step % 2), 150, 150, width, 16)
            await asyncio.sleep(0.05)

    caret = asyncio.ensure_future(blink(2))
    await stable(screen, region=REGION, stable_ms=400)
    caret.cancel()
    banner = asyncio.ensure_future(blink(40))
    with pytest.raises(TimedOut, match="was not still for 400 ms within 1 s") as told:
        await stable(screen, region=REGION, stable_ms=400, seconds=1)
    assert "in the part of 40x16 pixels at (150, 150)" in told.value.hint
    assert await stable(screen, region=a.Region(x=0, y=0, width=9, height=9), stable_ms=200)
    banner.cancel()


async def test_many_wait_while_others_act(screen: Screen, client: Client) -> None:
    holding = asyncio.ensure_future(screen.act([a.Wait(seconds=20)]))
    waiting = [changes(screen, region=REGION) for _ in range(watching.MAX_WATCHES)]
    await asyncio.sleep(0.05)
    with pytest.raises(NoCapacity):
        await changes(screen)
    waiting.pop().cancel()
    client.fill(0xFF0000, 150, 150, 40, 20)
    await asyncio.gather(*waiting)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert not screen.watching._watches
    with pytest.raises(OffScreen):
        await changes(screen, region=a.Region(x=1279, y=0, width=2, height=1))


@pytest.fixture
async def managed(server: Server, screen: Screen) -> Screen:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    return screen


async def test_a_window_that_closes(server: Server, managed: Screen) -> None:
    windows = managed.windows
    await windows.wait_until_gone("the one", None, 0)
    one, other = (server.start("xterm", "-T", f"the {name}") for name in ("one", "other"))
    shown = await windows.wait_for("the one", None, 20)
    await windows.wait_for("the other", None, 20)
    with pytest.raises(TimedOut, match="A window with 'the one' in its title was still") as told:
        await windows.wait_until_gone("the one", None, 0.1)
    assert "'the other'" in told.value.hint
    waiting = asyncio.ensure_future(windows.wait_until_gone("the one", "xterm", 5))
    await windows.set_state(shown.id, WindowChange(state="minimised"))
    await asyncio.sleep(0.1)
    assert not waiting.done(), "a minimised window is still there"
    windows.close(shown.id)
    await waiting
    assert one.wait(5) is not None
    assert other.poll() is None
