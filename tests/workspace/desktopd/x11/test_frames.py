from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Callable

import httpx
import PIL.Image
import pytest
import xcffib

from tests.workspace.desktopd.x11.harness import Client, Server
from tests.workspace.desktopd.x11.test_capture import give_pointer, resize
from workspace import actions as a
from workspace.backends.base import Endpoint
from workspace.desktop import Desktop
from workspace.desktopd.app import create_app
from workspace.desktopd.desk import Desk
from workspace.desktopd.hands import Hands
from workspace.desktopd.screen import Screen
from workspace.desktopd.usage import Usage
from workspace.desktopd.x11 import frames
from workspace.desktopd.x11.capture import Pixels, encode
from workspace.errors import InvalidRequest

SHOT = a.Screenshot(format="png")


@pytest.fixture
def grabs(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many times pixels were read."""
    count = 0
    read = screen._capture._pixels

    def counted(region: a.Region) -> Pixels:
        nonlocal count
        count += 1
        return read(region)

    monkeypatch.setattr(screen._capture, "_pixels", counted)
    return lambda: count


async def test_unchanged_screen_is_answered_without_a_look(
    screen: Screen, client: Client, grabs: Callable[[], int]
) -> None:
    first = await screen.screenshot(SHOT)
    assert first.frame
    assert await screen.screenshot(SHOT) is first
    acted = await screen.act([SHOT])
    assert acted.screenshot is first
    assert grabs() == 1
    other = await screen.screenshot(a.Screenshot(format="png", scale=0.5))
    assert (other.width, grabs()) == (640, 2)
    assert await screen.screenshot(SHOT) is first


async def test_paint_makes_a_new_frame(screen: Screen, client: Client) -> None:
    first = await screen.screenshot(SHOT)
    client.fill(0x123456, 1279, 799, 1, 1)
    second = await screen.screenshot(SHOT)
    assert second.data != first.data
    assert second.frame != first.frame
    assert PIL.Image.open(io.BytesIO(second.data)).getpixel((1279, 799)) == (0x12, 0x34, 0x56)


async def test_a_repaint_that_alters_nothing_keeps_the_frame(
    screen: Screen, client: Client, grabs: Callable[[], int]
) -> None:
    first = await screen.screenshot(SHOT)
    client.fill(0, 0, 0, 1280, 800)
    assert await screen.screenshot(SHOT) is first
    assert grabs() == 2


async def test_pointer_counts_where_it_is_drawn(screen: Screen, client: Client) -> None:
    without = a.Screenshot(format="png", cursor=False)
    client.fill(0xFFFFFF, 0, 0, 1280, 800)
    await screen.act([a.Move(x=10, y=10)])
    give_pointer(client)
    shown, bare = await screen.screenshot(SHOT), await screen.screenshot(without)
    await screen.act([a.Move(x=300, y=10)])
    assert (await screen.screenshot(SHOT)).data != shown.data
    assert await screen.screenshot(without) is bare


async def test_never_stale(screen: Screen, client: Client) -> None:
    random.seed(3)
    for turn in range(200):
        x, y, colour = random.randrange(1280), random.randrange(800), random.randrange(1 << 24)
        client.fill(colour, x, y, 1, 1)
        if turn % 3 == 0:  # another caller's look takes the report of the change
            await screen.screenshot(a.Screenshot(region=a.Region(x=0, y=0, width=8, height=8)))
        if turn % 5 == 0:  # and so does whoever waits for rest
            screen._damage.end(screen._damage.mark())
        part = a.Region(x=x, y=y, width=1, height=1)
        wanted = a.Screenshot(format="png", cursor=False, region=part if turn % 2 else None)
        shot = await screen.screenshot(wanted)
        picture = PIL.Image.open(io.BytesIO(shot.data))
        assert picture.getpixel((0, 0) if turn % 2 else (x, y)) == (
            colour >> 16,
            colour >> 8 & 255,
            colour & 255,
        ), turn


async def test_paint_during_the_encoding_is_not_lost(screen: Screen, client: Client) -> None:
    looking = asyncio.ensure_future(screen.screenshot(SHOT))
    await asyncio.sleep(0)  # it has read the pixels and encodes
    client.fill(0xFF0000, 5, 5, 1, 1)
    await looking
    shot = await screen.screenshot(SHOT)
    assert PIL.Image.open(io.BytesIO(shot.data)).getpixel((5, 5)) == (255, 0, 0)


async def test_follows_the_size_of_the_screen(server: Server, screen: Screen) -> None:
    connection = xcffib.connect(server.display)
    try:
        await screen.screenshot(SHOT)
        await resize(connection, screen, (1024, 768))
        assert (await screen.screenshot(SHOT)).width == 1024
    finally:
        await resize(connection, screen, (1280, 800))
        connection.disconnect()
    assert (await screen.screenshot(SHOT)).width == 1280


async def test_what_is_kept_is_bounded(
    screen: Screen, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = screen._frames._kept
    for quality in range(1, 30):
        await screen.screenshot(a.Screenshot(quality=quality))
    assert len(kept) == frames.MAX_KEPT
    monkeypatch.setattr(frames, "MAX_KEPT_BYTES", 10_000)
    await screen.screenshot(a.Screenshot(quality=40))
    assert sum(len(each.image.data) for each in kept.values()) <= 10_000
    large = a.Screenshot(format="png", scale=4)
    assert (await screen.screenshot(large)).frame != (await screen.screenshot(large)).frame


async def test_an_action_asked_since_a_frame(screen: Screen, client: Client) -> None:
    seen = await screen.act([SHOT])
    assert seen.screenshot is not None
    assert seen.unchanged is False
    since = SHOT.model_copy(update={"since": seen.screenshot.frame})
    again = await screen.act([since])
    assert (again.screenshot, again.unchanged) == (None, True)
    again = await screen.act([a.Wait(seconds=0), since], settle_ms=500, observe="frame")
    assert (again.screenshot, again.unchanged, again.effect) == (None, True, "no_visible_change")
    client.fill(0xFF0000, 5, 5, 1, 1)
    again = await screen.act([since])
    assert again.screenshot is not None
    assert again.unchanged is False


@pytest.fixture
async def desktop(screen: Screen) -> AsyncIterator[Desktop]:
    """The client of a daemon that has but a screen."""
    desk = Desk.__new__(Desk)
    desk.hands = Hands()
    desk.screen = screen
    desk.usage = Usage()
    endpoint = Endpoint(url="http://desktop", token="a-token-of-the-tests")
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(desk, token=endpoint.token)),
        base_url=endpoint.url,
        headers={"Authorization": f"Bearer {endpoint.token}"},
    )
    desktop = Desktop(lambda: http)
    yield desktop
    await desktop.aclose()


async def test_asked_since_a_frame_over_http(desktop: Desktop, client: Client) -> None:
    first = await desktop.screenshot_since(None)
    assert first is not None
    assert (first.width, first.height) == (1280, 800)
    assert await desktop.screenshot_since(first.frame) is None
    half = await desktop.screenshot_since(first.frame, scale=0.5)  # another picture
    assert half is not None
    tag = {"If-None-Match": f'"{first.frame}"'}
    answer = await desktop._wire._http.get("/screenshot", headers=tag)
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == tag["If-None-Match"]
    assert answer.headers["X-Carrel-Frame"] == first.frame
    client.fill(0xFF0000, 5, 5, 1, 1)
    second = await desktop.screenshot_since(first.frame)
    assert second is not None
    assert second.data == await desktop.screenshot()
    assert (await desktop._wire._http.get("/screenshot", headers=tag)).status_code == 200
    for wrong in ("", "x" * 65):
        answer = await desktop._wire._http.get("/screenshot", params={"since": wrong})
        assert answer.json()["code"] == "invalid_request"


async def test_asked_what_changed_over_http(desktop: Desktop, client: Client) -> None:
    first = await desktop.screenshot_since(None, format="png")
    assert first is not None
    assert first.frame is not None
    assert await desktop.changes_since(first.frame) is None
    client.fill(0xFF0000, 50, 60, 7, 8)
    delta = await desktop.changes_since(first.frame, format="png")
    assert isinstance(delta, a.Delta)
    assert [patch.region for patch in delta.patches] == [a.Region(x=50, y=60, width=7, height=8)]
    made = PIL.Image.open(io.BytesIO(first.data)).convert("RGB")
    made.paste(PIL.Image.open(io.BytesIO(delta.patches[0].image.data)), (50, 60))
    now = PIL.Image.open(io.BytesIO(await desktop.screenshot(format="png"))).convert("RGB")
    assert made.tobytes() == now.tobytes()
    assert isinstance(await desktop.changes_since("of-nobody"), a.Image)
    with pytest.raises(InvalidRequest):
        await desktop.changes_since("")


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 16), (65, 33)])
def test_png_is_lossless(size: tuple[int, int]) -> None:
    noise = PIL.Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3))
    decoded = PIL.Image.open(io.BytesIO(encode(noise, size, "png", 80)))
    assert (decoded.mode, decoded.size, decoded.tobytes()) == ("RGB", size, noise.tobytes())
