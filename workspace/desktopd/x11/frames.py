"""Frames: each picture made once, for as long as what it shows stays the same.

A request first makes one round trip to the server (it fetches the pointer), so every report of a
change that the server had made before has arrived by then: an answer is never older than its
question. If nothing was painted and a drawn pointer stands where it stood, the encoded picture of
last time is the answer, with no pixel read.

A frame's id names a picture's very bytes: a new one equal to the last of its kind keeps its id.
So an id says "unchanged" to whoever has it, also across repaints that altered nothing.

On failure: as :class:`~workspace.desktopd.x11.capture.Capture`. What is kept is bounded.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from workspace import actions as a
from workspace.desktopd.x11 import jpeg
from workspace.desktopd.x11.capture import Capture, encode, target_size
from workspace.desktopd.x11.damage import Paints
from workspace.desktopd.x11.display import Display

MAX_KEPT = 8
MAX_KEPT_BYTES = 8 << 20
# Up to this size a JPEG is made on the loop's thread (1.6 ms for 1280x800), straight from the
# pixels: to copy them and to wake another thread takes longer.
MAX_PIXELS_AT_ONCE = 1920 * 1200

_Kind = tuple[a.Region, tuple[int, int], a.ImageFormat, int, bool]
_Seen = tuple[int, tuple[int, int, int] | None]  # the paints' version, the pointer if drawn


@dataclass(frozen=True)
class _Kept:
    seen: _Seen
    image: a.Image


class Frames:
    """Encoded pictures of one display; end it with ``close``."""

    def __init__(self, display: Display, capture: Capture) -> None:
        self._display = display
        self._capture = capture
        self._paints = Paints(display)
        self._kept: dict[_Kind, _Kept] = {}  # the one used last at the end
        self._encoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._turbo = jpeg.load()
        self._nonce = secrets.token_hex(4)  # another daemon's ids are none of ours
        self._count = itertools.count(1)

    def close(self) -> None:
        self._encoder.shutdown(wait=False, cancel_futures=True)
        if self._turbo is not None:
            self._turbo.close()

    async def take(self, request: a.Screenshot | a.Zoom) -> a.Image:
        """What is asked for, as it is now.

        Raises:
            OffScreen: the region is not on the screen. InvalidRequest: it would be too large.
        """
        pointer = self._capture.pointer() if request.cursor else None
        if pointer is None:
            self._display.sync()
        version = self._paints.version()  # brings the screen's size up to date, too
        region = self._capture.check(request.region)
        size = target_size(request, region)
        kind = (region, size, request.format, request.quality, request.cursor)
        seen = (version, None if pointer is None else (pointer.x, pointer.y, pointer.serial))
        kept = self._kept.get(kind)
        if kept is not None and kept.seen == seen:
            self._keep(kind, kept)
            return kept.image
        pixels = self._capture.read(region, pointer)
        if self._turbo is not None and _is_quick(kind):
            data = self._turbo.encode(pixels.data, pixels.size, request.quality)
        else:
            data = await asyncio.get_running_loop().run_in_executor(
                self._encoder, encode, pixels.picture(), size, request.format, request.quality
            )
        image = self._image(kind, data)
        self._keep(kind, _Kept(seen, image))
        return image

    def _image(self, kind: _Kind, data: bytes) -> a.Image:
        last = self._kept.get(kind)
        if last is not None and last.image.data == data:
            return last.image
        _, (width, height), format, _, _ = kind
        # model_construct: validation would take the bytes for base64.
        return a.Image.model_construct(
            format=format,
            width=width,
            height=height,
            data=data,
            frame=f"{self._nonce}-{next(self._count):x}",
        )

    def _keep(self, kind: _Kind, kept: _Kept) -> None:
        self._kept.pop(kind, None)
        self._kept[kind] = kept
        total = sum(len(each.image.data) for each in self._kept.values())
        while len(self._kept) > MAX_KEPT or total > MAX_KEPT_BYTES:
            total -= len(self._kept.pop(next(iter(self._kept))).image.data)


def _is_quick(kind: _Kind) -> bool:
    region, size, format, _, _ = kind
    area = region.width * region.height
    return format == "jpeg" and size == (region.width, region.height) and area <= MAX_PIXELS_AT_ONCE
