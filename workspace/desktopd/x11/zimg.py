"""Scaling of planes by zimg's Lanczos filter, called through ctypes.

Pillow needs 15 ms and more to scale a screen, this under 1 ms, with the same picture to the eye.
The structures are those of zimg's API 2.0, which later libraries still take by their version field
(``zimg.h``).

On failure: :func:`load` returns None where the library is not there, :meth:`Scaler.scale` False
where it does not scale between two sizes; Pillow does it then.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import ClassVar

LIBRARY = "libzimg.so.2"
_API = 0x0200
_ALIGNMENT = 64  # of rows, for any processor
# zimg.h
_BYTES, _GREY, _FULL_RANGE, _LANCZOS, _WHOLE = 0, 0, 1, 5, 0xFFFFFFFF
_Int, _Unsigned, _Double = ctypes.c_int, ctypes.c_uint, ctypes.c_double
Size = tuple[int, int]


class Planes:
    """Room for a picture as libjpeg sees it: brightness and two colours, these halved or not.

    Where they are halved libjpeg works on whole pairs of rows and columns: brightness has room
    for one more of each.
    """

    def __init__(self, size: Size, *, is_halved: bool) -> None:
        self.size, self.is_halved = size, is_halved
        colour = ((size[0] + 1) // 2, (size[1] + 1) // 2) if is_halved else size
        self.sizes = (size, colour, colour)
        self.strides = [-(-(width + 1) // _ALIGNMENT) * _ALIGNMENT for width, _ in self.sizes]
        rows = (size[1] + size[1] % 2, colour[1], colour[1])
        lengths = [stride * count for stride, count in zip(self.strides, rows, strict=True)]
        self.length = sum(lengths)
        self._memory = mmap.mmap(-1, self.length)  # begins on a page
        start = ctypes.addressof(ctypes.c_ubyte.from_buffer(self._memory))
        self.addresses = [start, start + lengths[0], start + lengths[0] + lengths[1]]

    def pad(self) -> None:
        """Fill the rest of a last pair with what it begins with."""
        (width, height), stride = self.size, self.strides[0]
        brightness = memoryview(self._memory)[: stride * (height + height % 2)]
        if width % 2:
            brightness[width::stride] = brightness[width - 1 :: stride]
        if height % 2:
            brightness[height * stride :] = brightness[(height - 1) * stride : height * stride]


class _Plane(ctypes.Structure):
    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("stride", ctypes.c_ssize_t),
        ("mask", _Unsigned),
    ]


class _Buffer(ctypes.Structure):
    _fields_: ClassVar = [("version", _Unsigned), ("plane", _Plane * 3)]


class _Format(ctypes.Structure):
    _fields_: ClassVar = [
        *(("version", _Unsigned), ("width", _Unsigned), ("height", _Unsigned)),
        *(("pixel_type", _Int), ("subsample_w", _Unsigned), ("subsample_h", _Unsigned)),
        *(("color_family", _Int), ("matrix", _Int), ("transfer", _Int), ("primaries", _Int)),
        *(("depth", _Unsigned), ("range", _Int), ("parity", _Int), ("chroma", _Int)),
    ]


class _Parameters(ctypes.Structure):
    _fields_: ClassVar = [
        *(("version", _Unsigned), ("filter", _Int), ("a", _Double), ("b", _Double)),
        *(("filter_uv", _Int), ("a_uv", _Double), ("b_uv", _Double)),
        *(("dither", _Int), ("cpu", _Int)),
    ]


class _Graph:
    """The way from one size of a plane to another."""

    def __init__(self, library: ctypes.CDLL, source: Size, target: Size) -> None:
        """Raises ValueError where there is none."""
        self._library = library
        formats = [_Format(), _Format()]
        for format, size in zip(formats, (source, target), strict=True):
            library.zimg_image_format_default(ctypes.byref(format), _API)
            format.width, format.height = size
            format.pixel_type, format.color_family, format.range = _BYTES, _GREY, _FULL_RANGE
        wanted = _Parameters()
        library.zimg_graph_builder_params_default(ctypes.byref(wanted), _API)
        wanted.filter, wanted.a = _LANCZOS, 3  # as Pillow's
        self._handle = library.zimg_filter_graph_build(
            *(ctypes.byref(format) for format in formats), ctypes.byref(wanted)
        )
        if not self._handle:
            raise ValueError(f"zimg does not scale from {source} to {target}")
        room = ctypes.c_size_t()
        library.zimg_filter_graph_get_tmp_size(self._handle, ctypes.byref(room))
        self._room = mmap.mmap(-1, max(room.value, 1))

    def __call__(self, source: tuple[int, int], target: tuple[int, int]) -> bool:
        """Scale between two planes, each an address and its stride; whether it was done."""
        ends = []
        for address, stride in (source, target):
            buffer = _Buffer(version=_API)
            buffer.plane[0] = _Plane(address, stride, _WHOLE)
            ends.append(buffer)
        room = ctypes.c_ubyte.from_buffer(self._room)
        failed = self._library.zimg_filter_graph_process(
            self._handle,
            *(ctypes.byref(end) for end in ends),
            ctypes.byref(room),
            *(None, None, None, None),
        )
        return not failed

    def close(self) -> None:
        self._library.zimg_filter_graph_free(self._handle)


class Scaler:
    """Scales planes; of use to one thread at a time. It remembers the way of last time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises AttributeError where ``library`` lacks a function."""
        library.zimg_filter_graph_build.restype = ctypes.c_void_p
        library.zimg_filter_graph_process.argtypes = (ctypes.c_void_p,) * 8
        library.zimg_filter_graph_get_tmp_size.argtypes = (ctypes.c_void_p,) * 2
        library.zimg_filter_graph_free.argtypes = (ctypes.c_void_p,)
        self._library = library
        self._sizes: tuple[Size, Size] | None = None
        self._graphs: list[_Graph] = []  # for brightness, for colours

    def scale(self, source: Planes, target: Planes) -> bool:
        """Fill ``target``; whether it was done."""
        if self._sizes != (source.size, target.size):
            self.close()
            try:
                for plane in (0, 1):
                    sizes = source.sizes[plane], target.sizes[plane]
                    self._graphs.append(_Graph(self._library, *sizes))
            except ValueError:
                self.close()
                return False
            self._sizes = source.size, target.size
        brightness, colour = self._graphs
        for plane, graph in enumerate((brightness, colour, colour)):
            begin = source.addresses[plane], source.strides[plane]
            if not graph(begin, (target.addresses[plane], target.strides[plane])):
                return False
        target.pad()
        return True

    def close(self) -> None:
        """Forget the way of last time."""
        for graph in self._graphs:
            graph.close()
        self._graphs, self._sizes = [], None


def load() -> Scaler | None:
    """A scaler, or None where the library is missing."""
    try:
        return Scaler(ctypes.CDLL(LIBRARY))
    except (OSError, AttributeError):
        return None
