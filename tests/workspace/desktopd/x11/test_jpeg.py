from __future__ import annotations

import random

import PIL.Image
import pytest

from tests.workspace.desktopd.x11.harness import Client
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import jpeg
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


async def test_pillow_where_the_library_is_missing(
    screen: Screen, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.fill(0x204060, 0, 0, 640, 800)
    first = await screen.screenshot(a.Screenshot())
    monkeypatch.setattr(jpeg, "LIBRARY", "libturbojpeg-of-nobody.so")
    assert jpeg.load() is None
    monkeypatch.setattr(screen._frames, "_turbo", None)
    monkeypatch.setattr(screen._frames, "_kept", {})
    assert (await screen.screenshot(a.Screenshot())).data == first.data


@pytest.mark.parametrize("corner", [(2, 3), (-3, -2), (15, 9), (-5, 4), (20, 0), (0, -6), (3, 30)])
def test_a_pointer_is_drawn_in_place_as_pillow_draws_it(corner: tuple[int, int]) -> None:
    pixels = noise(20, 12)
    shape = PIL.Image.frombytes("RGBA", (5, 6), random.Random(1).randbytes(5 * 6 * 4))
    red, green, blue, alpha = shape.split()
    expected = pixels.picture()
    expected.paste(PIL.Image.merge("RGBA", (blue, green, red, alpha)), corner, shape)
    pixels.draw(shape, *corner)
    assert pixels.picture().tobytes() == expected.tobytes()
