from __future__ import annotations

import io
import math
import random
from types import ModuleType

import PIL.Image
import PIL.ImageChops
import PIL.ImageDraw
import PIL.ImageStat
import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Client
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import frames, jpeg, zimg
from workspace.desktopd.x11.capture import Pixels, encode


@pytest.fixture
def turbo() -> jpeg.Turbo:
    found = jpeg.load()
    assert found is not None, "libturbojpeg is among the packages that set-up installs"
    return found


def noise(width: int, height: int) -> Pixels:
    data = random.Random(7).randbytes(width * height * 4)
    return Pixels(memoryview(bytearray(data)), (width, height))


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 17), (64, 33)])
@pytest.mark.parametrize("quality", [1, 80, 100])
def test_same_picture_as_pillow(turbo: jpeg.Turbo, size: tuple[int, int], quality: int) -> None:
    pixels = noise(*size)
    made = turbo.encode(pixels.data, size, quality)
    assert made == encode(pixels.picture(), size, "jpeg", quality)


def test_fewer_pixels_than_said_are_not_read(turbo: jpeg.Turbo) -> None:
    with pytest.raises(ValueError, match="fewer"):
        turbo.encode(noise(8, 8).data, (8, 9), 80)


def test_refusal_of_the_library_is_told(turbo: jpeg.Turbo) -> None:
    with pytest.raises(RuntimeError, match="TurboJPEG"):
        turbo.encode(noise(8, 8).data, (8, 8), 101)
    turbo.encode(noise(8, 8).data, (8, 8), 100)
    turbo.close()
    turbo.close()


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("missing", [jpeg, zimg])
async def test_pillow_where_a_library_is_missing(
    screen: Screen,
    client: Client,
    scale: float,
    missing: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.fill(0x204060, 0, 0, 640, 800)
    first = await screen.screenshot(a.Screenshot(scale=scale))
    monkeypatch.setattr(missing, "LIBRARY", "libpictures-of-nobody.so")
    monkeypatch.setattr(screen._frames, "_quick", jpeg.Quick())
    monkeypatch.setattr(screen._frames, "_kept", {})
    again = await screen.screenshot(a.Screenshot(scale=scale))
    assert (again.width, again.height) == (first.width, first.height)
    assert likeness(decoded(again.data), decoded(first.data)) > 35


def page(width: int, height: int) -> PIL.Image.Image:
    """Lines of text, and something of every colour; nothing at the edges but their colour."""
    picture = PIL.Image.new("RGB", (width, height), "orange")
    drawing = PIL.ImageDraw.Draw(picture)
    drawing.rectangle((24, 24, width - 24, height - 24), "white", "red", 2)
    for row in range(40, height - 60, 14):
        drawing.text((30 + row % 20, row), "The quick brown fox jumps over the dog", "black")
    drawing.ellipse((width // 2, height // 3, width - 30, height - 30), "green", "blue", 3)
    return picture


def decoded(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data)).convert("RGB")


def likeness(one: PIL.Image.Image, other: PIL.Image.Image) -> float:
    """The ratio of peak signal to noise, in dB; beyond 35 an eye finds it hard to tell them."""
    squares = PIL.ImageStat.Stat(PIL.ImageChops.difference(one, other)).sum2
    mean = sum(squares) / (3 * one.width * one.height)
    return 10 * math.log10(255**2 / mean) if mean else math.inf


@pytest.mark.parametrize("size", [(640, 400), (333, 201)])
@pytest.mark.parametrize("scale", [0.8, 0.5, 0.37, 1.7])
def test_scaled_it_looks_as_pillow_makes_it(size: tuple[int, int], scale: float) -> None:
    picture = page(*size)
    target = (round(size[0] * scale), round(size[1] * scale))
    pixels = memoryview(bytearray(picture.tobytes("raw", "BGRX")))
    made = jpeg.Quick().encode(pixels, size, target, 95)
    assert made is not None
    exact = picture.resize(target, PIL.Image.Resampling.LANCZOS)
    assert decoded(made).size == target
    as_pillow = likeness(decoded(encode(picture, target, "jpeg", 95)), exact)
    assert likeness(decoded(made), exact) > as_pillow - 2
    # At the edges, too, where an odd side leaves half a pair of rows or columns.
    for box in ((0, target[1] - 4, *target), (target[0] - 4, 0, *target)):
        assert likeness(decoded(made).crop(box), exact.crop(box)) > 40


def test_sizes_that_come_in_turn() -> None:
    quick = jpeg.Quick()
    for size in ((64, 48), (2000, 900), (1, 1), (64, 48), (7, 5)):
        pixels = memoryview(bytearray(b"\x60\x40\x20\0" * (size[0] * size[1])))
        for target in ((32, 24), (1, 1), size, (90, 7)):
            made = quick.encode(pixels, size, target, 90)
            assert made is not None
            assert decoded(made).size == target
            assert likeness(decoded(made), PIL.Image.new("RGB", target, (32, 64, 96))) > 40
    quick.close()


async def test_memory_is_given_back(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "REST_SECONDS", 0.05)
    quick = screen._frames._quick
    half = a.Screenshot(scale=0.5)
    first = await screen.screenshot(half)
    assert quick._planes is not None
    await eventually(lambda: quick._planes is None)
    monkeypatch.setattr(screen._frames, "_kept", {})
    assert (await screen.screenshot(half)).data == first.data
    await screen.screenshot(a.Screenshot(scale=4))  # the largest are not scaled so
    assert sum(planes.length for planes in quick._planes or ()) < 24 << 20


def test_what_would_take_long_is_left_to_a_thread() -> None:
    quick, pixels = jpeg.Quick(), memoryview(bytearray(4))
    assert quick.encode(pixels, (3840, 2160), (3840, 2160), 80) is None
    assert quick.encode(pixels, (100, 100), (2000, 2000), 80) is None


@pytest.mark.parametrize("corner", [(2, 3), (-3, -2), (15, 9), (-5, 4), (20, 0), (0, -6), (3, 30)])
def test_a_pointer_is_drawn_in_place_as_pillow_draws_it(corner: tuple[int, int]) -> None:
    pixels = noise(20, 12)
    shape = PIL.Image.frombytes("RGBA", (5, 6), random.Random(1).randbytes(5 * 6 * 4))
    red, green, blue, alpha = shape.split()
    expected = pixels.picture()
    expected.paste(PIL.Image.merge("RGBA", (blue, green, red, alpha)), corner, shape)
    pixels.draw(shape, *corner)
    assert pixels.picture().tobytes() == expected.tobytes()
