"""Where pictures differ, as a table; and for real, that what looks the same is no effect."""

from __future__ import annotations

import asyncio

import PIL.Image
import pytest

from tests.workspace.desktopd.x11.harness import Client, Server, painted
from tests.workspace.desktopd.x11.test_capture import resize
from tests.workspace.desktopd.x11.test_damage import repainting
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11.boxes import Box
from workspace.desktopd.x11.capture import Pixels
from workspace.desktopd.x11.comparing import compared

WHOLE = (0, 0, 640, 480)


@pytest.mark.parametrize(
    ("painted", "boxes", "found"),
    [
        ([], [WHOLE], []),
        ([(10, 20, 30, 40)], [WHOLE], [(10, 20, 30, 40)]),
        ([(10, 20, 30, 40)], [(50, 50, 60, 60)], []),
        ([(0, 0, 640, 480)], [WHOLE], [WHOLE]),
        ([(0, 0, 20, 20), (600, 440, 640, 480)], [WHOLE], [(0, 0, 20, 20), (600, 440, 640, 480)]),
        ([(100, 100, 110, 300), (118, 100, 128, 300)], [WHOLE], [(100, 100, 128, 300)]),
        (
            [(100, 100, 110, 300), (218, 100, 228, 300)],
            [WHOLE],
            [(100, 100, 110, 300), (218, 100, 228, 300)],
        ),
        ([(5, 5, 6, 6)], [(0, 0, 10, 10), (5, 5, 6, 6)], [(5, 5, 6, 6)]),
    ],
)
def test_differing(painted: list[Box], boxes: list[Box], found: list[Box]) -> None:
    before = PIL.Image.new("RGBX", (640, 480), (0, 0, 0, 0))
    now = before.copy()
    for box in painted:
        now.paste((0, 0, 1, 0), box)
    now.paste((0, 0, 0, 255), (300, 0, 310, 10))  # no colour: only the byte that is not used
    assert sorted(compared(pixels(before), pixels(now), boxes)) == found


def pixels(picture: PIL.Image.Image) -> Pixels:
    return Pixels(memoryview(picture.tobytes()), picture.size)


async def test_repaint_of_the_same_is_no_effect(screen: Screen, client: Client) -> None:
    click = a.Click(x=600, y=400)
    async with repainting(
        (0.02, lambda: client.fill(0xFF0000, 100, 100, 50, 20)),  # a button that is pressed
        (0.02, lambda: client.fill(0x000000, 100, 100, 50, 20)),  # and let go
    ):
        seen = await screen.act([click], settle_ms=3000, observe="frame")
    assert (seen.effect, seen.settled, seen.changed) == ("no_visible_change", True, [])
    assert seen.elapsed_ms >= 300
    async with repainting(
        (0.02, lambda: client.fill(0xFF0000, 100, 100, 50, 20)),
        (0.02, lambda: client.fill(0x000000, 100, 100, 50, 20)),
        (0.12, lambda: client.fill(0x00FF00, 300, 200, 50, 20)),  # what the button did
    ):
        seen = await screen.act([click], settle_ms=3000, observe="frame")
    assert seen.changed == [a.Region(x=300, y=200, width=50, height=20)]


async def test_screen_of_another_size_has_changed(server: Server, screen: Screen) -> None:
    with painted(server.display) as client:

        async def shrink() -> None:
            await asyncio.sleep(0.1)
            await resize(client.connection, screen, (1024, 768))

        shrinking = asyncio.create_task(shrink())
        try:
            seen = await screen.act([a.Wait(seconds=0.3)], observe="frame")
            await shrinking
        finally:
            await resize(client.connection, screen, (1280, 800))
    assert seen.effect == "changed"
