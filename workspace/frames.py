"""How a picture travels over HTTP: its bytes as the body, what else it is in three headers.

``ETag`` and ``X-Carrel-Frame`` name the frame, ``X-Carrel-Size`` is ``1280x800``. Whoever asks
again ``since`` that frame, or with ``If-None-Match``, is answered 304 while it would be the same.
desktopd and the controller answer so, and their client reads it; it fails with ``ValueError`` on
headers that no desktop sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from workspace.actions import Image, ImageFormat

FRAME, SIZE = "X-Carrel-Frame", "X-Carrel-Size"
_FRAME = re.compile(r"[!#-~]{1,64}")
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def headers(image: Image) -> dict[str, str]:
    """The headers that go with a picture."""
    told = {SIZE: f"{image.width}x{image.height}"}
    return told if image.frame is None else told | tags(image.frame)


def tags(frame: str) -> dict[str, str]:
    """The headers that name a frame; all that a 304 has."""
    return {FRAME: frame, "ETag": f'"{frame}"'}


def known(since: str | None, given: Mapping[str, str]) -> str | None:
    """The frame that the asker has: ``since``, or the one tag of ``If-None-Match``."""
    if since is not None:
        return since
    tag = given.get("if-none-match", "").strip().removeprefix("W/")
    frame = tag[1:-1] if tag[:1] == tag[-1:] == '"' else ""
    return frame if _FRAME.fullmatch(frame) else None


def image(format: ImageFormat, given: Mapping[str, str], body: bytes) -> Image:
    """The picture of an answer.

    Raises:
        ValueError: no desktop answers so.
    """
    size, frame = _SIZE.fullmatch(given.get(SIZE, "")), given.get(FRAME)
    if size is None or not (frame is None or _FRAME.fullmatch(frame)):
        raise ValueError("the headers are no picture's")
    # model_construct: validation would take the bytes for base64.
    return Image.model_construct(
        format=format, width=int(size[1]), height=int(size[2]), data=body, frame=frame
    )
