"""JPEG straight from the server's pixels: libjpeg-turbo's TurboJPEG, called through ctypes.

Pillow's copy of the same library first needs the picture in its own layout, which costs as much
again as a quarter of the encoding, and 4 MB; and a smaller picture takes it ten times as long. The
functions used are those of TurboJPEG 1.4 to 2.x, which 3.x still has under the same name
(``libturbojpeg.so.0``).

On failure: :class:`Quick` makes nothing where a library is missing, and Pillow does it all.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import NamedTuple

from workspace.desktopd.x11 import zimg
from workspace.desktopd.x11.zimg import Planes, Size

LIBRARY = "libturbojpeg.so.0"
# Pictures up to this cost are made on the loop's thread (1.6 ms for 1280x800), straight from the
# pixels: to copy them and to wake another thread takes longer. A pixel that is only read counts a
# quarter of one that is written.
MAX_COST_AT_ONCE = 3 << 20
# turbojpeg.h
_BGRX = 3
_CHROMA_444, _CHROMA_420 = 0, 2
_NO_REALLOC, _ACCURATE_DCT = 1024, 4096
_Pointer, _Int, _Long = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
_SLOT, _SIZE = ctypes.POINTER(_Pointer), ctypes.POINTER(_Long)


class _Out(NamedTuple):
    """Where a picture is written to, and how much of it there is."""

    place: ctypes.c_void_p
    length: ctypes.c_ulong


class Turbo:
    """A compressor; of use to one thread at a time.

    It makes what Pillow makes: halved chroma, the accurate transform (here the quickest, too).
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises AttributeError where ``library`` lacks a function."""
        library.tjInitCompress.restype = _Pointer
        library.tjDestroy.argtypes = (_Pointer,)
        library.tjGetErrorStr.restype = ctypes.c_char_p
        library.tjBufSize.argtypes, library.tjBufSize.restype = (_Int, _Int, _Int), _Long
        library.tjCompress2.argtypes = (
            *(_Pointer, _Pointer, _Int, _Int, _Int, _Int, _SLOT, _SIZE, _Int, _Int, _Int),
        )
        library.tjEncodeYUVPlanes.argtypes = (
            *(_Pointer, _Pointer, _Int, _Int, _Int, _Int, _Pointer, _Pointer, _Int, _Int),
        )
        library.tjCompressFromYUVPlanes.argtypes = (
            *(_Pointer, _Pointer, _Int, _Pointer, _Int, _Int, _SLOT, _SIZE, _Int, _Int),
        )
        self._library = library
        self._handle = library.tjInitCompress()
        if not self._handle:
            raise MemoryError("TurboJPEG could not be set up")
        # Kept, and mapped: ctypes' own buffers are written over with zeros, which for one as large
        # as a picture may get takes as long as the encoding. Only what is used takes memory.
        self._out = mmap.mmap(-1, mmap.PAGESIZE)

    def encode(self, pixels: memoryview, size: Size, quality: int) -> bytes:
        """The picture whose writable ``pixels`` are rows of blue, green, red and an unused byte."""
        out = self._room(size)
        self._check(
            self._library.tjCompress2(
                *(self._handle, _first(pixels, size), size[0], size[0] * 4, size[1], _BGRX),
                *(ctypes.byref(out.place), ctypes.byref(out.length)),
                *(_CHROMA_420, quality, _NO_REALLOC | _ACCURATE_DCT),
            )
        )
        return ctypes.string_at(out.place, out.length.value)

    def split(self, pixels: memoryview, planes: Planes) -> None:
        """Fill ``planes`` with such a picture."""
        width, height = planes.size
        chroma = _CHROMA_420 if planes.is_halved else _CHROMA_444
        self._check(
            self._library.tjEncodeYUVPlanes(
                *(self._handle, _first(pixels, planes.size), width, width * 4, height, _BGRX),
                *(*_as_arrays(planes), chroma, 0),
            )
        )

    def encode_planes(self, planes: Planes, quality: int) -> bytes:
        """The picture that lies in ``planes``, whose colours are halved."""
        out = self._room(planes.size)
        addresses, strides = _as_arrays(planes)
        self._check(
            self._library.tjCompressFromYUVPlanes(
                *(self._handle, addresses, planes.size[0], strides, planes.size[1], _CHROMA_420),
                *(ctypes.byref(out.place), ctypes.byref(out.length)),
                *(quality, _NO_REALLOC | _ACCURATE_DCT),
            )
        )
        return ctypes.string_at(out.place, out.length.value)

    def _room(self, size: Size) -> _Out:
        room = self._library.tjBufSize(*size, _CHROMA_420)
        if len(self._out) < room:
            self._out = mmap.mmap(-1, room)
        first = ctypes.c_ubyte.from_buffer(self._out)
        return _Out(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_ulong(room))

    def _check(self, failed: int) -> None:
        if failed:
            raise RuntimeError(f"TurboJPEG: {self._library.tjGetErrorStr().decode()}")

    def close(self) -> None:
        if self._handle:
            self._library.tjDestroy(self._handle)
            self._handle = None


def _first(pixels: memoryview, size: Size) -> ctypes.Array[ctypes.c_ubyte]:
    length = size[0] * size[1] * 4
    if len(pixels) < length:
        raise ValueError("there are fewer pixels than the size says")
    return (ctypes.c_ubyte * length).from_buffer(pixels)


def _as_arrays(
    planes: Planes,
) -> tuple[ctypes.Array[ctypes.c_void_p], ctypes.Array[ctypes.c_int]]:
    return (ctypes.c_void_p * 3)(*planes.addresses), (ctypes.c_int * 3)(*planes.strides)


def load() -> Turbo | None:
    """A compressor, or None where the library is missing."""
    try:
        return Turbo(ctypes.CDLL(LIBRARY))
    except (OSError, AttributeError):
        return None


class Quick:
    """Makes JPEGs at once, those that are not too large for that.

    To scale it takes memory, as much as half of the screen's own and at most 24 MiB, which is kept
    until ``rest``: to get it anew takes longer than all the rest.
    """

    def __init__(self) -> None:
        self._turbo = load()
        self._scaler = zimg.load()
        self._planes: tuple[Planes, Planes] | None = None  # of the last picture

    def close(self) -> None:
        if self._turbo is not None:
            self._turbo.close()
        if self._scaler is not None:
            self._scaler.close()

    def rest(self) -> None:
        """Give memory back."""
        self._planes = None

    def encode(self, pixels: memoryview, size: Size, target: Size, quality: int) -> bytes | None:
        """A picture of ``size``, scaled to ``target``; None if it is not to be made so."""
        cost = size[0] * size[1] // 4 + target[0] * target[1]
        if self._turbo is None or cost > MAX_COST_AT_ONCE:
            return None
        if size == target:
            return self._turbo.encode(pixels, size, quality)
        if self._scaler is None:
            return None
        source, scaled = self._room(size, target)
        self._turbo.split(pixels, source)
        if not self._scaler.scale(source, scaled):
            return None
        return self._turbo.encode_planes(scaled, quality)

    def _room(self, size: Size, target: Size) -> tuple[Planes, Planes]:
        if self._planes and (self._planes[0].size, self._planes[1].size) == (size, target):
            return self._planes
        # A picture that gets smaller loses no colour to the eye when that is halved first.
        room = Planes(size, is_halved=target[0] <= size[0]), Planes(target, is_halved=True)
        self._planes = room
        return room
