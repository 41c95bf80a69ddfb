from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Callable

import PIL.Image
import pytest

from tests.workspace.desktopd.x11.harness import Client
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import damage

CLICK = a.Click(x=600, y=400)


@contextlib.asynccontextmanager
async def repainting(*steps: tuple[float, Callable[[], None]]) -> AsyncIterator[None]:
    """Meanwhile wait so many seconds and then paint, step by step."""

    async def paint() -> None:
        for seconds, step in steps:
            await asyncio.sleep(seconds)
            step()

    task = asyncio.create_task(paint())
    try:
        yield
    finally:
        task.cancel()


async def test_waits_for_the_change_and_then_for_rest(screen: Screen, client: Client) -> None:
    async with repainting(
        (0.1, lambda: client.fill(0xFF0000, 10, 20, 30, 40)),
        (0.015, lambda: client.fill(0xFF0000, 700, 500, 50, 60)),
    ):
        seen = await screen.act([CLICK], settle_ms=3000, observe="frame")
    assert seen.effect == "changed"
    assert seen.settled is True
    assert {(r.x, r.y, r.width, r.height) for r in seen.changed} == {
        (10, 20, 30, 40),
        (700, 500, 50, 60),
    }
    assert 165 <= seen.elapsed_ms < 1000
    assert seen.screenshot is not None
    assert seen.cursor == (600, 400)
    assert seen.screen == (1280, 800)


async def test_a_batch_waits_for_the_answer_to_its_last_action(
    screen: Screen, client: Client
) -> None:
    async with repainting(
        (0.02, lambda: client.fill(0xFF0000, 10, 20, 30, 40)),  # to the click
        (0.2, lambda: client.fill(0x00FF00, 700, 500, 50, 60)),  # to the key, 0.17 s after it
    ):
        seen = await screen.act(
            [CLICK, a.Wait(seconds=0.05), a.Key(chord="Return")], settle_ms=3000, observe="frame"
        )
    assert {(r.x, r.y) for r in seen.changed} == {(10, 20), (700, 500)}


async def test_gives_up_when_nothing_changes(screen: Screen, client: Client) -> None:
    client.fill(0x00FF00, 0, 0, 100, 100)  # before the act: not its effect
    seen = await screen.act([CLICK], settle_ms=3000, observe="frame")
    assert (seen.effect, seen.settled, seen.changed) == ("no_visible_change", True, [])
    assert 200 <= seen.elapsed_ms < 1500


async def test_unrest_is_cut_short_at_the_cap(screen: Screen, client: Client) -> None:
    paints = [(0.02, lambda n=n: client.fill(n, 0, 0, 200, 200)) for n in range(100)]
    async with repainting(*paints):
        seen = await screen.act([CLICK], settle_ms=400, observe="frame")
    assert (seen.effect, seen.settled) == ("changed", False)
    assert 400 <= seen.elapsed_ms < 1200


async def test_caret_may_blink(screen: Screen, client: Client) -> None:
    paints = [(0.03, lambda n=n: client.fill(n % 2, 50, 50, 2, 18)) for n in range(100)]
    async with repainting(*paints):
        seen = await screen.act([CLICK], settle_ms=2500, observe="frame")
    assert seen.settled is True
    assert seen.elapsed_ms < 1000


async def test_change_during_the_actions_is_seen(screen: Screen, client: Client) -> None:
    async with repainting((0.05, lambda: client.fill(7, 1, 2, 300, 400))):
        seen = await screen.act([CLICK, a.Wait(seconds=0.2)], observe="frame")
    assert seen.effect == "changed"
    assert seen.settled is None
    assert seen.changed == [a.Region(x=1, y=2, width=300, height=400)]


async def test_without_observing(screen: Screen, client: Client) -> None:
    async with repainting((0.05, lambda: client.fill(7, 1, 2, 300, 400))):
        seen = await screen.act([CLICK], settle_ms=1000)
    assert (seen.effect, seen.screenshot, seen.changed) == ("not_observed", None, [])
    assert 90 <= seen.elapsed_ms < 1000  # it waited all the same


async def test_busy_screen_costs_little_when_nobody_watches(
    screen: Screen, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "_LOOKS_AFTER", (0.1,))

    async def reports(seconds: float) -> int:
        before, started = screen._damage.frames, time.monotonic()
        while time.monotonic() - started < seconds:
            client.fill(int(time.monotonic() * 1000) & 0xFFFFFF, 5, 5, 100, 100)
            await asyncio.sleep(0)
        return screen._damage.frames - before

    await screen.act([CLICK], observe="frame")
    assert await reports(0.4) <= 20, "one look of 0.12 s"
    assert await reports(0.3) == 0


async def test_frame_is_as_the_last_action_asks(screen: Screen, client: Client) -> None:
    zoom = a.Zoom(region=a.Region(x=0, y=0, width=10, height=10), format="png", cursor=False)
    async with repainting((0.1, lambda: client.fill(0xFF0000, 0, 0, 20, 20))):
        seen = await screen.act([CLICK, zoom], settle_ms=1000, observe="frame")
    assert seen.screenshot is not None
    picture = PIL.Image.open(io.BytesIO(seen.screenshot.data))
    assert picture.size == (10, 10)
    assert picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    seen = await screen.act([zoom, CLICK], settle_ms=500, observe="frame")
    assert seen.screenshot is not None
    assert seen.screenshot.width == 1280


async def test_looking_does_not_wait_for_a_change(screen: Screen, client: Client) -> None:
    seen = await screen.act([a.Screenshot()], settle_ms=3000, observe="frame")
    assert seen.screenshot is not None
    assert seen.elapsed_ms < 200
    assert (seen.settled, seen.effect) == (None, "no_visible_change")
    last = await screen.act([a.Screenshot(), a.Screenshot(scale=0.5)])
    assert last.screenshot is not None
    assert (last.screenshot.width, last.effect) == (640, "not_observed")
