"""JPEG straight from the server's pixels: libjpeg-turbo's TurboJPEG, called through ctypes.

Pillow's copy of the same library first needs the picture in its own layout, which costs as much
again as a quarter of the encoding, and 4 MB. The functions used are those of TurboJPEG 1.2 to 2.x,
which 3.x still has under the same name (``libturbojpeg.so.0``).

On failure: :func:`load` returns None where the library is not there, and Pillow does it all.
"""

from __future__ import annotations

import ctypes
import mmap

LIBRARY = "libturbojpeg.so.0"
# turbojpeg.h
_BGRX = 3
_CHROMA_420 = 2
_NO_REALLOC, _ACCURATE_DCT = 1024, 4096
_Pointer, _Int, _Long = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong


class Turbo:
    """A compressor; of use to one thread at a time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises AttributeError where ``library`` lacks a function."""
        library.tjInitCompress.restype = _Pointer
        library.tjBufSize.argtypes, library.tjBufSize.restype = (_Int, _Int, _Int), _Long
        library.tjDestroy.argtypes = (_Pointer,)
        library.tjGetErrorStr.restype = ctypes.c_char_p
        library.tjCompress2.argtypes = (
            *(_Pointer, _Pointer, _Int, _Int, _Int, _Int),
            *(ctypes.POINTER(_Pointer), ctypes.POINTER(_Long), _Int, _Int, _Int),
        )
        self._library = library
        self._handle = library.tjInitCompress()
        if not self._handle:
            raise MemoryError("TurboJPEG could not be set up")
        # Kept, and mapped: ctypes' own buffers are written over with zeros, which for one as large
        # as a picture may get takes as long as the encoding. Only what is used takes memory.
        self._out = mmap.mmap(-1, mmap.PAGESIZE)

    def encode(self, pixels: memoryview, size: tuple[int, int], quality: int) -> bytes:
        """The picture of ``size`` whose writable ``pixels`` are rows of blue, green, red, unused.

        As Pillow makes it: halved chroma, the accurate transform (here the quickest, too).
        """
        width, height = size
        if len(pixels) < width * height * 4:
            raise ValueError("there are fewer pixels than the size says")
        source = (ctypes.c_ubyte * (width * height * 4)).from_buffer(pixels)
        room = self._library.tjBufSize(width, height, _CHROMA_420)
        if len(self._out) < room:
            self._out = mmap.mmap(-1, room)
        out = (ctypes.c_ubyte * room).from_buffer(self._out)
        place, length = _Pointer(ctypes.addressof(out)), _Long(room)
        failed = self._library.tjCompress2(
            *(self._handle, source, width, width * 4, height, _BGRX),
            *(ctypes.byref(place), ctypes.byref(length)),
            *(_CHROMA_420, quality, _NO_REALLOC | _ACCURATE_DCT),
        )
        if failed:
            raise RuntimeError(f"TurboJPEG: {self._library.tjGetErrorStr().decode()}")
        return ctypes.string_at(out, length.value)

    def close(self) -> None:
        if self._handle:
            self._library.tjDestroy(self._handle)
            self._handle = None


def load() -> Turbo | None:
    """A compressor, or None where the library is missing."""
    try:
        return Turbo(ctypes.CDLL(LIBRARY))
    except (OSError, AttributeError):
        return None
