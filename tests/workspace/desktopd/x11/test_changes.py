"""Only what has changed since a frame: laid over it, the patches make the picture of now."""

from __future__ import annotations

import io
import random

import PIL.Image
import pytest
import xcffib

from tests.workspace.desktopd.x11.harness import Client, Server
from tests.workspace.desktopd.x11.test_capture import give_pointer, resize
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import frames, paints

SHOT = a.Screenshot(format="png")
PART = a.Screenshot(format="png", region=a.Region(x=300, y=200, width=401, height=303))


def decoded(image: a.Image) -> PIL.Image.Image:
    picture = PIL.Image.open(io.BytesIO(image.data)).convert("RGB")
    assert picture.size == (image.width, image.height)
    return picture


async def changes(screen: Screen, shot: a.Screenshot, since: str | None) -> a.Observation:
    return await screen.act([shot.model_copy(update={"since": since, "delta": True})])


def lay_over(picture: PIL.Image.Image, delta: a.Delta, shot: a.Screenshot) -> PIL.Image.Image:
    made = picture.copy()
    corner = (shot.region.x, shot.region.y) if shot.region else (0, 0)
    for patch in delta.patches:
        assert (patch.region.width, patch.region.height) == (patch.image.width, patch.image.height)
        made.paste(decoded(patch.image), (patch.region.x - corner[0], patch.region.y - corner[1]))
    return made


@pytest.mark.parametrize("shot", [SHOT, PART, SHOT.model_copy(update={"cursor": False})])
async def test_patches_make_the_picture_of_now(
    screen: Screen, client: Client, shot: a.Screenshot
) -> None:
    random.seed(5)
    client.fill(0xFFFFFF, 0, 0, 1280, 800)
    give_pointer(client)
    first = await screen.screenshot(shot)
    picture, frame = decoded(first), first.frame
    deltas = 0
    for turn in range(60):
        for _ in range(random.randrange(4)):
            x, y = random.randrange(1280), random.randrange(800)
            client.fill(
                random.randrange(1 << 24), x, y, random.randrange(200), random.randrange(90)
            )
        if turn % 3 == 0:
            await screen.act([a.Move(x=random.randrange(1280), y=random.randrange(800))])
        if turn % 4 == 0:  # others look in between
            await screen.screenshot(a.Screenshot(scale=0.1))
            await changes(screen, PART, frame)
        seen = await changes(screen, shot, frame)
        if seen.delta is not None:
            deltas += 1
            assert seen.delta.since == frame
            picture, frame = lay_over(picture, seen.delta, shot), seen.delta.frame
        elif seen.screenshot is not None:
            picture, frame = decoded(seen.screenshot), seen.screenshot.frame
        else:
            assert seen.unchanged
        now = decoded(await screen.screenshot(shot))
        assert picture.tobytes() == now.tobytes(), turn
    assert deltas >= 15


async def test_nothing_changed(screen: Screen, client: Client) -> None:
    first = await screen.screenshot(SHOT)
    seen = await changes(screen, SHOT, first.frame)
    assert (seen.unchanged, seen.delta, seen.screenshot) == (True, None, None)
    client.fill(0xFF0000, 0, 0, 3, 3)  # outside of the part
    part = await screen.screenshot(PART)
    client.fill(0x00FF00, 0, 0, 3, 3)
    assert (await changes(screen, PART, part.frame)).unchanged
    await screen.act([a.Move(x=5, y=5)])
    bare = PART.model_copy(update={"cursor": False})
    assert (await changes(screen, bare, (await screen.screenshot(bare)).frame)).unchanged


async def test_a_small_change_is_a_small_patch(screen: Screen, client: Client) -> None:
    first = await screen.screenshot(a.Screenshot())
    client.fill(0xFF0000, 100, 100, 30, 10)
    client.fill(0xFF0000, 600, 500, 20, 20)
    seen = await changes(screen, a.Screenshot(), first.frame)
    assert seen.delta is not None
    assert sorted((patch.region.x, patch.region.width) for patch in seen.delta.patches) == [
        (100, 30),
        (600, 20),
    ]
    assert all(patch.image.format == "jpeg" for patch in seen.delta.patches)
    assert sum(len(patch.image.data) for patch in seen.delta.patches) < len(first.data) / 5
    # From the frame that the patches made, too.
    client.fill(0x00FF00, 700, 700, 5, 5)
    again = await changes(screen, a.Screenshot(), seen.delta.frame)
    assert again.delta is not None
    assert [patch.region.x for patch in again.delta.patches] == [700]


async def test_the_whole_picture_where_patches_do_not_serve(
    server: Server, screen: Screen, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_whole(shot: a.Screenshot, since: str | None) -> bool:
        seen = await changes(screen, shot, since)
        return seen.delta is None and not seen.unchanged and seen.screenshot is not None

    first = await screen.screenshot(SHOT)
    assert await is_whole(SHOT, None)
    assert await is_whole(SHOT, "of-nobody")
    assert await is_whole(PART, first.frame)  # of another region
    client.fill(0xFF0000, 0, 0, 1280, 500)
    assert await is_whole(SHOT, first.frame)  # most of it
    half = SHOT.model_copy(update={"scale": 0.5})
    small = await screen.screenshot(half)
    client.fill(0x00FF00, 0, 0, 5, 5)
    assert await is_whole(half, small.frame)  # patches would not fit pixel by pixel
    last = (await screen.screenshot(SHOT)).frame
    for number in range(frames.MAX_SCATTERED + 1):
        client.fill(0x0000FF, number * 30, number * 20, 5, 5)
    assert await is_whole(SHOT, last)  # too many places
    last = (await screen.screenshot(SHOT)).frame
    for number in range(paints.MAX_VERSIONS + 1):
        client.fill(number, 900, 700, 1, 1)
        await screen.screenshot(a.Screenshot(region=a.Region(x=0, y=0, width=8, height=8)))
    assert await is_whole(SHOT, last)  # too long ago
    monkeypatch.setattr(frames, "MAX_KNOWN", 3)
    for number in range(5):
        client.fill(number, 900, 700, 1, 1)
        await changes(screen, SHOT, (await screen.screenshot(SHOT)).frame)
    assert len(screen._frames._known) <= 4
    last = (await screen.screenshot(PART)).frame
    connection = xcffib.connect(server.display)
    try:
        await resize(connection, screen, (1024, 768))
        assert await is_whole(PART, last)  # of another screen
    finally:
        await resize(connection, screen, (1280, 800))
        connection.disconnect()


async def test_more_rectangles_than_are_kept_are_one(screen: Screen, client: Client) -> None:
    client.fill(0, 0, 0, 1280, 800)
    first = await screen.screenshot(SHOT)
    for number in range(paints.MAX_BOXES + 1):
        client.fill(0xFFFFFF, 100 + number % 9 * 4, 100 + number // 9 * 4, 2, 2)
    seen = await changes(screen, SHOT, first.frame)
    assert seen.delta is not None
    assert [patch.region for patch in seen.delta.patches] == [
        a.Region(x=100, y=100, width=34, height=30)
    ]
    assert (
        lay_over(decoded(first), seen.delta, SHOT).tobytes()
        == decoded(await screen.screenshot(SHOT)).tobytes()
    )
