"""Pictures of the screen: MIT-SHM GetImage, the pointer drawn in, encoded.

The server writes the pixels into one shared memory segment that lives as long as the connection.
It is marked for removal as soon as it is attached here, so that no crash leaves it behind. A
server without shared memory is asked by plain GetImage, some milliseconds slower.

On failure: a region that is not on the screen is ``OffScreen``, a picture too large to make is
``InvalidRequest``; nothing else of the caller's can go wrong.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import struct
import zlib
from typing import Any, NamedTuple

import PIL.Image
import xcffib
from xcffib import xproto

from workspace.actions import ImageFormat, Region, Screenshot, Zoom
from workspace.desktopd.x11.display import Display
from workspace.errors import InvalidRequest, OffScreen, StartFailed, Unavailable

# WebP's limit for a side, and a bound on what one picture may take of the daemon's memory.
MAX_SIDE = 16_383
MAX_PIXELS = 7680 * 4320
_IPC_PRIVATE, _IPC_RMID, _IPC_CREAT = 0, 0, 0o1000
_ALL_PLANES = 0xFFFFFFFF
_BAND_ROWS = 16  # of a PNG at a time: what the processor's cache holds


class _Segment:
    """Shared memory that the server writes into."""

    def __init__(self, display: Display, size: int) -> None:
        """Raises OSError or an X error where there is no shared memory with the server."""
        self._display = display
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.shmget.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_int)
        self._libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        self._libc.shmat.restype = ctypes.c_void_p
        self._libc.shmdt.argtypes = (ctypes.c_void_p,)
        self.size = size
        identifier = self._libc.shmget(_IPC_PRIVATE, size, _IPC_CREAT | 0o600)
        if identifier < 0:
            raise _os_error()
        self._address = self._libc.shmat(identifier, None, 0)
        # Linux lets the server attach to a segment that is marked for removal.
        self._libc.shmctl(identifier, _IPC_RMID, None)
        if self._address in (None, ctypes.c_void_p(-1).value):
            raise _os_error()
        self.id: int = display.connection.generate_id()
        try:
            display.shm.AttachChecked(self.id, identifier, False).check()
        except xcffib.XcffibException:
            self._libc.shmdt(self._address)
            raise
        self.pixels = memoryview((ctypes.c_ubyte * size).from_address(self._address)).cast("B")

    def close(self) -> None:
        """Give it back; no picture may still be reading from it."""
        if not self._display.closed.is_set():
            self._display.shm.Detach(self.id)
        self._libc.shmdt(self._address)


def _os_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Pointer(NamedTuple):
    """Where the pointer's hotspot is, its shape's serial number, and the shape from its corner.

    The shape's red and blue are exchanged, as they are in the server's pixels.
    """

    x: int
    y: int
    serial: int
    corner: tuple[int, int]
    shape: PIL.Image.Image

    @property
    def box(self) -> tuple[int, int, int, int]:
        """What it covers: left, top, right, bottom."""
        (left, top), (width, height) = self.corner, self.shape.size
        return left, top, left + width, top + height


class Pixels(NamedTuple):
    """A picture as the server writes it: rows of blue, green, red, unused.

    It lies in the memory that the next picture is written to: use it before anything is awaited.
    """

    data: memoryview
    size: tuple[int, int]

    def draw(self, shape: PIL.Image.Image, left: int, top: int) -> None:
        """Draw a pointer's shape into it, what of it is inside."""
        width, height = self.size
        begin, end = max(left, 0), min(left + shape.width, width)
        rows = range(max(top, 0), min(top + shape.height, height))
        if begin >= end or not rows:
            return
        spans = [slice((row * width + begin) * 4, (row * width + end) * 4) for row in rows]
        under = b"".join(self.data[span] for span in spans)
        patch = PIL.Image.frombytes("RGBX", (end - begin, len(rows)), under)
        patch.paste(shape, (left - begin, top - rows[0]), shape)
        drawn, length = patch.tobytes(), (end - begin) * 4
        for number, span in enumerate(spans):
            self.data[span] = drawn[number * length : (number + 1) * length]

    def picture(self) -> PIL.Image.Image:
        """A copy, in Pillow's own layout."""
        data: Any = self.data  # Any: Pillow takes any buffer, and says so of few
        return PIL.Image.frombuffer("RGB", self.size, data, "raw", "BGRX", self.size[0] * 4, 1)


class Capture:
    """Takes pictures of one display."""

    def __init__(self, display: Display) -> None:
        if display.root_depth != 24:
            raise StartFailed(f"The screen has depth {display.root_depth}; Carrel needs 24.")
        self._display = display
        self._segment: _Segment | None = None
        self._has_shared_memory = display.has_shm
        self._shape: tuple[int, PIL.Image.Image] | None = None  # by its serial number

    def close(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def check(self, region: Region | None) -> Region:
        """The region to take, the whole screen if none is named.

        Raises:
            OffScreen: a part of it is not on the screen.
        """
        width, height = self._display.size
        if region is None:
            return Region(x=0, y=0, width=width, height=height)
        right, bottom = region.x + region.width, region.y + region.height
        if region.x < 0 or region.y < 0 or right > width or bottom > height:
            raise OffScreen(
                f"The region from ({region.x}, {region.y}) to ({right}, {bottom}) reaches beyond "
                f"the screen of {width}x{height}."
            )
        return region

    def grab(self, region: Region, pointer: Pointer | None) -> PIL.Image.Image:
        """The region's pixels now, with ``pointer`` drawn; a picture to keep."""
        return self.read(region, pointer).picture()

    def read(self, region: Region, pointer: Pointer | None) -> Pixels:
        """Like :meth:`grab`, but good only until the next picture is taken."""
        try:
            pixels = self._pixels(region)
        except xproto.MatchError as error:
            raise Unavailable("The screen changed its size in this moment.") from error
        if pointer is not None:
            pixels.draw(pointer.shape, pointer.corner[0] - region.x, pointer.corner[1] - region.y)
        return pixels

    def _pixels(self, region: Region) -> Pixels:
        size = (region.width, region.height)
        box = (region.x, region.y, region.width, region.height)
        display, z_pixmap = self._display, xproto.ImageFormat.ZPixmap
        segment = self._shared_memory()
        if segment is None:
            cookie = display.core.GetImage(z_pixmap, display.root, *box, _ALL_PLANES)
            return Pixels(memoryview(bytearray(display.raw_reply(cookie)[32:])), size)
        display.reply(
            display.shm.GetImage(display.root, *box, _ALL_PLANES, z_pixmap, segment.id, 0)
        )
        return Pixels(segment.pixels[: size[0] * size[1] * 4], size)

    def _shared_memory(self) -> _Segment | None:
        width, height = self._display.size
        if not self._has_shared_memory:
            return None
        if self._segment is None or self._segment.size < width * height * 4:
            self.close()
            try:
                self._segment = _Segment(self._display, width * height * 4)
            except (OSError, xcffib.Error):
                self._has_shared_memory = False
        return self._segment

    def pointer(self) -> Pointer | None:
        """The pointer now, by one round trip; None if the screen shows none."""
        try:
            shape = self._display.reply(self._display.xfixes.GetCursorImage())
        except (xproto.CursorError, xproto.AccessError):
            return None  # the screen has no pointer, or it was that of a program that died
        serial: int = shape.cursor_serial
        if self._shape is None or self._shape[0] != serial:
            # The protocol's ARGB is premultiplied: Pillow's "RGBa".
            drawn = PIL.Image.frombytes(
                "RGBa", (shape.width, shape.height), bytes(shape.cursor_image.raw)
            )
            self._shape = serial, drawn.convert("RGBA")
        corner = (shape.x - shape.xhot, shape.y - shape.yhot)
        return Pointer(shape.x, shape.y, serial, corner, self._shape[1])


def target_size(request: Screenshot | Zoom, region: Region) -> tuple[int, int]:
    """The size of the picture that is asked for.

    Raises:
        InvalidRequest: it is too large.
    """
    factor = request.scale
    if isinstance(request, Zoom) and request.width is not None:
        factor *= request.width / region.width
    width, height = max(1, round(region.width * factor)), max(1, round(region.height * factor))
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"The picture would be {width}x{height} pixels.", hint="Ask for a smaller scale."
        )
    return width, height


def encode(
    picture: PIL.Image.Image, size: tuple[int, int], format: ImageFormat, quality: int
) -> bytes:
    """Scale to ``size`` and encode; pure, and slow enough for a thread."""
    if size != picture.size:
        picture = picture.resize(size, PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    if format == "png":
        return _png(picture)
    out = io.BytesIO()
    if format == "webp":
        # Else Pillow looks for it by loading every format it knows: 40 modules.
        importlib.import_module("PIL.WebPImagePlugin")
        picture.save(out, "WEBP", quality=quality, method=0)
    else:
        picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _png(picture: PIL.Image.Image) -> bytes:
    """PNG (its specification, third edition) with no row filtered.

    Pillow tries every filter on every row; desktops, flat and repetitive, are smaller without any,
    and made in less than half the time.
    """
    width, height = picture.size
    length, compressor = width * 3, zlib.compressobj(1)
    body = []
    for top in range(0, height, _BAND_ROWS):
        band = picture.crop((0, top, width, min(top + _BAND_ROWS, height)))
        pixels = memoryview(band.tobytes())
        rows = (pixels[start : start + length] for start in range(0, len(pixels), length))
        body.append(compressor.compress(b"\0" + b"\0".join(rows)))  # filter type 0: none
    body.append(compressor.flush())
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of red, green, blue
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(body)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
