"""Frames: each picture made once, for as long as what it shows stays the same.

A request first makes one round trip to the server (it fetches the pointer), so every report of a
change that the server had made before has arrived by then: an answer is never older than its
question. If nothing was painted and a drawn pointer stands where it stood, the encoded picture of
last time is the answer, with no pixel read.

A frame's id names a picture's very bytes: a new one equal to the last of its kind keeps its id.
So an id says "unchanged" to whoever has it, also across repaints that altered nothing.

Asked for the changes since a frame, only what was painted since then, and where the pointer was
and is, is read and encoded: patches which, laid over that frame, make the one that is there now.

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
from workspace.desktopd.x11.boxes import Box, absorb, regions
from workspace.desktopd.x11.capture import Capture, Pointer, encode, target_size
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.paints import Paints

MAX_KEPT = 8
MAX_KEPT_BYTES = 8 << 20
REST_SECONDS = 30.0  # after which an encoder that nobody needed gives memory back
MAX_KNOWN = 256  # frames whose changes can be told
MAX_SCATTERED = 32  # boxes that do not touch

_Kind = tuple[a.Region, tuple[int, int], a.ImageFormat, int, bool]


@dataclass(frozen=True)
class _Moment:
    """What there was to see: a version of the screen, and the pointer if it was drawn."""

    version: int
    pointer: Pointer | None

    def is_as(self, other: _Moment) -> bool:
        return self.version == other.version and self.has_pointer_of(other)

    def has_pointer_of(self, other: _Moment) -> bool:
        one, two = self.pointer, other.pointer
        if one is None or two is None:
            return one is two
        return one[:3] == two[:3]  # its place and its serial number


@dataclass(frozen=True)
class _Kept:
    moment: _Moment
    image: a.Image


class Frames:
    """Encoded pictures of one display; end it with ``close``."""

    def __init__(self, display: Display, capture: Capture) -> None:
        self._display = display
        self._capture = capture
        self._paints = Paints(display)
        self._kept: dict[_Kind, _Kept] = {}  # the one used last at the end
        self._known: dict[str, tuple[a.Region, _Moment]] = {}  # by id; the newest at the end
        self._encoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._encoder.submit(int)  # its thread starts now: later the desktop may allow no more
        self._quick = jpeg.Quick()
        self._rest: asyncio.TimerHandle | None = None
        self._nonce = secrets.token_hex(4)  # another daemon's ids are none of ours
        self._count = itertools.count(1)

    def close(self) -> None:
        self._encoder.shutdown(wait=False, cancel_futures=True)
        if self._rest is not None:
            self._rest.cancel()
        self._quick.close()

    async def take(self, request: a.Screenshot | a.Zoom) -> a.Image:
        """What is asked for, as it is now.

        Raises:
            OffScreen: the region is not on the screen. InvalidRequest: it would be too large.
        """
        return await self._whole(request, self._look(request.cursor))

    async def changes(self, request: a.Screenshot) -> a.Image | a.Delta:
        """What has changed since the frame that is named; raises like :meth:`take`.

        It is the whole picture if that frame is not known, if it is of another region, if the
        picture is scaled, or if more than half of it has changed.
        """
        now = self._look(request.cursor)
        region = self._capture.check(request.region)
        boxes = self._changed(request, region, now)
        if request.since is None or boxes is None:
            return await self._whole(request, now)
        frame = f"{self._nonce}-{next(self._count):x}" if boxes else request.since
        self._know(frame, region, now)
        patches = await self._patches(request, boxes, now.pointer)
        return a.Delta.model_construct(since=request.since, frame=frame, patches=patches)

    def _look(self, with_pointer: bool) -> _Moment:
        pointer = self._capture.pointer() if with_pointer else None
        if pointer is None:
            self._display.sync()
        # This brings the screen's size up to date, too.
        return _Moment(self._paints.version(), pointer)

    async def _whole(self, request: a.Screenshot | a.Zoom, now: _Moment) -> a.Image:
        region = self._capture.check(request.region)
        size = target_size(request, region)
        kind = (region, size, request.format, request.quality, request.cursor)
        kept = self._kept.get(kind)
        if kept is None or not kept.moment.is_as(now):
            data = await self._encoded(request, region, size, now.pointer)
            kept = _Kept(now, self._image(kind, data))
        self._keep(kind, kept)
        assert kept.image.frame is not None, "a frame has an id"
        self._know(kept.image.frame, region, now)
        return kept.image

    def _encoded(
        self,
        request: a.Screenshot | a.Zoom,
        region: a.Region,
        size: tuple[int, int],
        pointer: Pointer | None,
    ) -> asyncio.Future[bytes]:
        """The picture's bytes; its pixels have been read when this returns."""
        loop = asyncio.get_running_loop()
        pixels = self._capture.read(region, pointer)
        data = None
        if request.format == "jpeg":
            data = self._quick.encode(pixels.data, pixels.size, size, request.quality)
            if self._rest is not None:
                self._rest.cancel()
            self._rest = loop.call_later(REST_SECONDS, self._quick.rest)
        if data is not None:
            done: asyncio.Future[bytes] = loop.create_future()
            done.set_result(data)
            return done
        return loop.run_in_executor(
            self._encoder, encode, pixels.picture(), size, request.format, request.quality
        )

    # Changes.

    def _changed(
        self, request: a.Screenshot, region: a.Region, now: _Moment
    ) -> list[a.Region] | None:
        """The parts of the region that differ; None where it takes the whole picture to say."""
        known = self._known.get(request.since or "")
        if known is None or known[0] != region or request.scale != 1:
            return None
        before = known[1]
        painted = self._paints.since(before.version)
        if painted is None:
            return None
        if not before.has_pointer_of(now):
            painted += [moment.pointer.box for moment in (before, now) if moment.pointer]
        boxes: list[Box] = []
        for box in painted:
            if part := _inside(box, region):
                absorb(boxes, part)
        if len(boxes) > MAX_SCATTERED:
            return None
        parts = regions(boxes)
        covered = sum(part.width * part.height for part in parts)
        return parts if covered * 2 <= region.width * region.height else None

    async def _patches(
        self, request: a.Screenshot, parts: list[a.Region], pointer: Pointer | None
    ) -> list[a.Patch]:
        sizes = [(part.width, part.height) for part in parts]
        # All are read before anything else can be done.
        reading = [
            self._encoded(request, part, size, pointer)
            for part, size in zip(parts, sizes, strict=True)
        ]
        return [
            a.Patch.model_construct(
                region=part,
                image=a.Image.model_construct(
                    format=request.format, width=part.width, height=part.height, data=data
                ),
            )
            for part, data in zip(parts, await asyncio.gather(*reading), strict=True)
        ]

    def _know(self, frame: str, region: a.Region, moment: _Moment) -> None:
        self._known.pop(frame, None)
        self._known[frame] = region, moment
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

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


def _inside(box: Box, region: a.Region) -> Box | None:
    """What of a box is in the region."""
    left, top = max(box[0], region.x), max(box[1], region.y)
    right, bottom = min(box[2], region.x + region.width), min(box[3], region.y + region.height)
    return (left, top, right, bottom) if left < right and top < bottom else None
