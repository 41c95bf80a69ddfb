"""Pictures of the screen, and one picture found in another: exact, with Pillow alone.

Pillow is not among the SDK's dependencies: it is imported when a picture is first asked for.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from workspace.errors import InvalidRequest, TooLarge, Unsupported

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_COMPARED = 1_000_000  # rows, in one search
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # no format that starts a program to be read


def decoded(data: bytes) -> Image:
    """The picture that ``data`` encodes, in RGB.

    Raises:
        Unsupported: Pillow is not installed. InvalidRequest: it is no picture.
    """
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise Unsupported(
            "Pictures as objects need Pillow, which is not installed.",
            hint="`pip install pillow`, or use desktop.screenshot(), which returns bytes.",
        ) from error
    try:
        return pillow.open(io.BytesIO(data), formats=_FORMATS).convert("RGB")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise InvalidRequest(f"This is no picture that can be read: {error}") from error


def opened(image: str | Path | Image) -> Image:
    """``image``, or the picture in the file of that name."""
    if not isinstance(image, str | Path):
        return image
    try:
        return decoded(Path(image).read_bytes())
    except OSError as error:
        raise InvalidRequest(f"{image} cannot be read: {error.strerror}.") from error


def find(needle: Image, screen: Image, *, grayscale: bool = False) -> tuple[int, int] | None:
    """Where ``needle`` is in ``screen``, pixel for pixel: the first, by rows from the top left.

    Raises:
        TooLarge: it is too plain a picture to be looked for in this one.
    """
    mode, depth = ("L", 1) if grayscale else ("RGB", 3)
    needle, screen = needle.convert(mode), screen.convert(mode)
    if needle.width > screen.width or needle.height > screen.height:
        return None
    whole, stride, length = screen.tobytes(), screen.width * depth, needle.width * depth
    part = needle.tobytes()
    rows = [part[start : start + length] for start in range(0, len(part), length)]
    # The row with the most kinds of bytes is the least likely to be found where it is not meant.
    anchor = max(range(len(rows)), key=lambda number: len(set(rows[number])))
    last = (screen.height - needle.height + anchor + 1) * stride
    at, compared = whole.find(rows[anchor], anchor * stride, last), 0
    while at >= 0:
        y, across = divmod(at, stride)
        compared += 1
        if across % depth == 0 and across + length <= stride:
            first = at - anchor * stride
            for number, row in enumerate(rows):
                compared += 1
                if not whole.startswith(row, first + number * stride):
                    break
            else:
                return across // depth, y - anchor
        if compared > MAX_COMPARED:
            raise TooLarge(
                "The picture is too plain to be looked for on this screen.",
                hint="Give a picture with more detail, or a region to look in.",
            )
        at = whole.find(rows[anchor], at + 1, last)
    return None
