"""Times one peer at one task: ``python3 -m benchmarks.inside.play METHOD TASK COUNT [DETAIL]``.

Prints ``{"samples": [milliseconds, ...], "seen": how many saw what they should have}``. What is
done for the measurement itself, such as looking into a picture, is not in the times.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks.inside.methods import METHODS, Method, Point

TEXT = "Grüße, Καλημέρα, привет, 世界 こんにちは 🚀🎉 €½ «æøå» ñ ß!"  # fifty characters
BAND_HEIGHT = 200  # of page.html on a screen of 800
PROBE = (1270, 790)  # a pixel of the ground that is repainted
PATIENCE = 5.0


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def ground(picture: bytes) -> tuple[int, ...]:
    """The colour of the ground, rounded: a JPEG does not keep it exactly."""
    from PIL import Image

    pixel = Image.open(io.BytesIO(picture)).convert("RGB").getpixel(PROBE)
    assert isinstance(pixel, tuple)
    return tuple(round(part / 32) for part in pixel)


def screenshot(method: Method, count: int, format: str) -> tuple[list[float], int]:
    method.screenshot(format)
    return [timed(lambda: method.screenshot(format)) for _ in range(count)], count


def click(method: Method, count: int, _: str) -> tuple[list[float], int]:
    # Never twice at one place: this xdotool would hang there for 15 s.
    places = [(300 + n % 50, 300) for n in range(count + 1)]
    return [timed(partial(method.click, at)) for at in places][1:], 0


def drag(method: Method, count: int, _: str) -> tuple[list[float], int]:
    """On drag.html, from the one box to the other; did what was dragged arrive?"""
    samples, seen = [], 0
    for number in range(count):
        before = ground(method.screenshot("png"))
        samples.append(timed(partial(method.drag, *way(number))))
        seen += changes(method, before, 1.0)
    return samples, seen


def way(number: int) -> tuple[Point, Point]:
    """From where to where on drag.html: never twice the same."""
    return (200 + number % 50, 300), (900 + number % 50, 350)


def changes(method: Method, before: tuple[int, ...], seconds: float) -> bool:
    """Whether the ground is repainted within that time."""
    deadline = time.monotonic() + seconds
    while ground(method.screenshot("png")) == before:
        if time.monotonic() > deadline:
            return False
    return True


def pixel(method: Method, count: int, _: str) -> tuple[list[float], int]:
    """From the click to a picture in hand that shows what it has changed."""
    samples, seen = [], 0
    for number in range(count):
        before = ground(method.screenshot("png"))
        spent = timed(partial(method.click, (300 + number % 50, 300)))
        picture = b""
        while spent < PATIENCE * 1000:
            begin = time.perf_counter()
            picture = method.screenshot("png")
            spent += (time.perf_counter() - begin) * 1000
            if ground(picture) != before:
                seen += 1
                break
        samples.append(spent)
    return samples, seen


def observe(method: Method, count: int, band: str) -> tuple[list[float], int]:
    """Click on a band of page.html, sleep as the peer does, look; did it see the redraw?"""
    samples, seen = [], 0
    for number in range(count):
        before = ground(method.screenshot("png"))
        at = (300 + number % 50, int(band) * BAND_HEIGHT + 100)
        begin = time.perf_counter()
        method.click(at)
        time.sleep(method.observe_after)
        picture = method.screenshot("png")
        samples.append((time.perf_counter() - begin) * 1000)
        seen += ground(picture) != before
        changes(method, before, PATIENCE)
    return samples, seen


def type_text(method: Method, count: int, _: str) -> tuple[list[float], int]:
    return [timed(lambda: method.type(TEXT)) for _ in range(count)], 0


TASKS: dict[str, Callable[[Method, int, str], tuple[list[float], int]]] = {
    "screenshot": screenshot,
    "click": click,
    "drag": drag,
    "pixel": pixel,
    "observe": observe,
    "type": type_text,
}


def main(name: str, task: str, count: str, detail: str = "") -> None:
    samples, seen = TASKS[task](METHODS[name](), int(count), detail)
    print(json.dumps({"samples": samples, "seen": seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
