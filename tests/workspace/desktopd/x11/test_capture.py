from __future__ import annotations

import io

import PIL.Image
import pytest

from tests.workspace.desktopd.x11.harness import Client
from workspace.actions import Region, Screenshot, Zoom
from workspace.desktopd.screen import Screen
from workspace.errors import InvalidRequest, OffScreen


async def picture(screen: Screen, request: Screenshot | Zoom) -> PIL.Image.Image:
    image = await screen.screenshot(request)
    decoded = PIL.Image.open(io.BytesIO(image.data))
    assert decoded.format is not None
    assert decoded.format.lower() == image.format
    assert decoded.size == (image.width, image.height)
    return decoded.convert("RGB")


def paint(client: Client) -> None:
    client.fill(0x204060, 0, 0, 1280, 800)
    client.fill(0xFF0000, 0, 0, 1, 1)
    client.fill(0x00FF00, 1279, 799, 1, 1)
    client.fill(0x0000FF, 100, 200, 30, 40)


@pytest.mark.parametrize("has_shm", [True, False])
async def test_pixels_are_exact(screen: Screen, client: Client, has_shm: bool) -> None:
    if not has_shm:
        screen._capture._has_shared_memory = False  # as on a server without MIT-SHM
    paint(client)
    shot = await picture(screen, Screenshot(format="png", cursor=False))
    assert shot.size == (1280, 800)
    assert shot.getpixel((0, 0)) == (255, 0, 0)
    assert shot.getpixel((1279, 799)) == (0, 255, 0)
    assert shot.getpixel((1, 0)) == (0x20, 0x40, 0x60)
    assert shot.getpixel((100, 200)) == shot.getpixel((129, 239)) == (0, 0, 255)
    assert shot.getpixel((130, 239)) == shot.getpixel((99, 200)) == (0x20, 0x40, 0x60)
    assert (screen._capture._segment is not None) == has_shm
