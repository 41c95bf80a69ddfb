from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import xcffib
import xcffib.randr
from xcffib import xproto

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Client, Server
from workspace.actions import ImageFormat, Move, Region, Screenshot, Zoom
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


async def test_pointer_is_drawn_where_its_hotspot_is(screen: Screen, client: Client) -> None:
    client.fill(0xFFFFFF, 0, 0, 1280, 800)
    give_pointer(client)
    screen._input.move(400, 300)
    without = await picture(screen, Screenshot(format="png", cursor=False))
    assert without.crop((380, 280, 430, 340)).getextrema() == ((255, 255),) * 3
    shown = await picture(screen, Screenshot(format="png"))
    black = [
        (x, y)
        for x in range(380, 430)
        for y in range(280, 340)
        if shown.getpixel((x, y)) == (0, 0, 0)
    ]
    # The bitmap of give_pointer is a block whose hotspot is its pixel (3, 5).
    assert (min(black), max(black)) == ((397, 295), (404, 302))
    # The same in a region, also where the pointer hangs over its edge.
    region = Region(x=400, y=300, width=20, height=20)
    part = await picture(screen, Screenshot(format="png", region=region))
    assert part.tobytes() == shown.crop((400, 300, 420, 320)).tobytes()
    assert part.getpixel((0, 0)) == part.getpixel((4, 2)) == (0, 0, 0)
    assert part.getpixel((5, 0)) == (255, 255, 255)


def give_pointer(client: Client) -> None:
    """Give the window a pointer of 8x8 black pixels with the hotspot (3, 5)."""
    core, connection = client.core, client.connection
    bitmap, gc, cursor = (connection.generate_id() for _ in range(3))
    core.CreatePixmap(1, bitmap, client.root, 8, 8)
    core.CreateGC(gc, bitmap, 0, [])
    core.ChangeGC(gc, xproto.GC.Foreground, [1])
    core.PolyFillRectangle(bitmap, gc, 1, [xproto.RECTANGLE.synthetic(0, 0, 8, 8)])
    core.CreateCursor(cursor, bitmap, bitmap, 0, 0, 0, 0xFFFF, 0xFFFF, 0xFFFF, 3, 5)
    core.ChangeWindowAttributes(client.window, xproto.CW.Cursor, [cursor], is_checked=True).check()


async def test_region_and_scale(screen: Screen, client: Client) -> None:
    paint(client)
    region = Region(x=90, y=190, width=50, height=60)
    shot = await picture(screen, Screenshot(format="png", cursor=False, region=region))
    assert shot.size == (50, 60)
    assert shot.getpixel((9, 10)) == (0x20, 0x40, 0x60)
    assert shot.getpixel((10, 10)) == (0, 0, 255)
    half = await picture(screen, Screenshot(format="png", scale=0.5, cursor=False))
    assert half.size == (640, 400)
    assert half.getpixel((57, 110)) == (0, 0, 255)
    zoomed = await picture(screen, Zoom(format="png", region=region, width=500, cursor=False))
    assert zoomed.size == (500, 600)
    assert zoomed.getpixel((250, 300)) == (0, 0, 255)
    corner = Region(x=1279, y=799, width=1, height=1)
    assert (await picture(screen, Zoom(format="png", region=corner, cursor=False))).getpixel(
        (0, 0)
    ) == (0, 255, 0)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
async def test_lossy_formats_obey_quality(
    screen: Screen, client: Client, format: ImageFormat
) -> None:
    paint(client)
    fine = await screen.screenshot(Screenshot(format=format, quality=95))
    coarse = await screen.screenshot(Screenshot(format=format, quality=10))
    assert len(coarse.data) < len(fine.data)
    pixel = (await picture(screen, Screenshot(format=format, quality=95))).getpixel((600, 600))
    assert isinstance(pixel, tuple)
    assert all(
        abs(got - painted) < 8 for got, painted in zip(pixel, (0x20, 0x40, 0x60), strict=True)
    )


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -1, 5, 5), (1276, 0, 5, 5), (0, 796, 5, 5)])
async def test_region_beyond_the_screen_is_refused(
    screen: Screen, box: tuple[int, int, int, int]
) -> None:
    x, y, width, height = box
    with pytest.raises(OffScreen, match="1280x800"):
        await screen.screenshot(Screenshot(region=Region(x=x, y=y, width=width, height=height)))


async def test_picture_that_is_too_large_is_refused(screen: Screen) -> None:
    thin = Region(x=0, y=0, width=1, height=800)
    with pytest.raises(InvalidRequest, match="4096x3276800"):
        await screen.screenshot(Zoom(region=thin, width=4096))


def shared_memory() -> list[list[str]]:
    """The segments that this process made, as /proc/sysvipc/shm has them."""
    lines = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return [line for line in lines if int(line[4]) == os.getpid()]


async def test_shared_memory_is_marked_for_removal(server: Server) -> None:
    screen = await Screen.open(server.display)
    await screen.screenshot(Screenshot())
    assert shared_memory()
    for line in shared_memory():
        assert int(line[2], 8) & 0o1000  # SHM_DEST: it goes with the last that is attached
    await screen.aclose()
    await eventually(lambda: not shared_memory())


async def test_capture_follows_the_size_of_the_screen(server: Server, screen: Screen) -> None:
    connection = xcffib.connect(server.display)
    try:
        await resize(connection, screen, (1024, 768))
        assert (await picture(screen, Screenshot())).size == (1024, 768)
        with pytest.raises(OffScreen, match="1024x768"):
            await screen.act([Move(x=1100, y=10)])
        await resize(connection, screen, (1600, 1200))
        assert (await picture(screen, Screenshot())).size == (1600, 1200)
    finally:
        await resize(connection, screen, (1280, 800))
        connection.disconnect()


async def resize(connection: Any, screen: Screen, size: tuple[int, int]) -> None:
    """Have RandR resize the screen, as a viewer of the desktop may."""
    extension = connection(xcffib.randr.key)
    root = connection.setup.roots[0].root
    resources = extension.GetScreenResources(root).reply()
    crtc = resources.crtcs[0]
    output = extension.GetCrtcInfo(crtc, 0).reply().outputs[0]
    modes = {(mode.width, mode.height): mode.id for mode in resources.modes}
    if size not in modes:
        name = f"{size[0]}x{size[1]}"
        info = xcffib.randr.ModeInfo.synthetic(0, *size, *(0,) * 9, len(name), 0)
        modes[size] = extension.CreateMode(root, info, len(name), name).reply().mode
        extension.AddOutputMode(output, modes[size], is_checked=True).check()
    extension.SetCrtcConfig(crtc, 0, 0, 0, 0, 0, 1, 0, []).reply()
    extension.SetScreenSize(root, *size, 300, 200, is_checked=True).check()
    extension.SetCrtcConfig(crtc, 0, 0, 0, 0, modes[size], 1, 1, [output]).reply()
    await eventually(lambda: screen.size == size)
