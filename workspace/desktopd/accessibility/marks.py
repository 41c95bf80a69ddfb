"""A picture with a numbered box around each element that can be acted on.

A tag is put where it hides least: above its box, below, beside it, or in its corner. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from workspace.desktopd.accessibility.placing import Box

_CELL = 6  # pixels; how finely it is known what is hidden
_TAG_WEIGHT, _OWN_WEIGHT = 12, 0.4
# Dark enough to be told from what is around it, and for white digits to be read on.
_COLOURS = ("#c2185b", "#1565c0", "#2e7d32", "#e65100", "#6a1b9a", "#00695c", "#b71c1c", "#4e342e")
_FONT_PIXELS = 11
_PADDING = 2


class _Cover:
    """How much of each small square of the picture is in use."""

    def __init__(self, width: int, height: int) -> None:
        self._wide, self._high = width // _CELL + 1, height // _CELL + 1
        self._used = [0.0] * (self._wide * self._high)

    def _cells(self, box: Box) -> list[int]:
        columns = range(max(0, box.x // _CELL), min(self._wide, (box.right - 1) // _CELL + 1))
        rows = range(max(0, box.y // _CELL), min(self._high, (box.bottom - 1) // _CELL + 1))
        return [row * self._wide + column for row in rows for column in columns]

    def add(self, box: Box, weight: float) -> None:
        for cell in self._cells(box):
            self._used[cell] += weight

    def cost(self, box: Box) -> float:
        return sum(self._used[cell] for cell in self._cells(box))


def place_tags(
    boxes: Sequence[Box], tags: Sequence[tuple[int, int]], size: tuple[int, int]
) -> list[Box]:
    """Where each box's tag, of that width and height, goes in a picture of that size."""
    whole, cover = Box(0, 0, *size), _Cover(*size)
    for box in boxes:
        if box.width * box.height < size[0] * size[1] // 8:  # not what fills a window
            cover.add(box, 1)
    placed: list[Box] = []
    for box, (wide, high) in zip(boxes, tags, strict=True):
        corners = (
            (box.x, box.y - high),
            (box.x - wide, box.y),
            (box.right, box.y),
            (box.x, box.bottom),
            (box.right - wide, box.y - high),
            (box.x, box.y),
            (box.right - wide, box.y),
        )
        fitting = [at for each in corners if (at := Box(*each, wide, high)).is_in(whole)]
        tag = min(fitting, key=cover.cost, default=Box(max(0, box.x), max(0, box.y), wide, high))
        cover.add(tag, _TAG_WEIGHT)
        placed.append(tag)
    return placed


def draw(picture: Image.Image, marks: Sequence[tuple[str, Box]], scale: float = 1.0) -> Image.Image:
    """The picture, scaled, with each box of the screen and its number."""
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_FONT_PIXELS)
    boxes = [_scaled(box, scale) for _, box in marks]
    sizes = [_size(pen, font, number) for number, _ in marks]
    tags = place_tags(boxes, sizes, size)
    for index, box in enumerate(boxes):
        outline = (box.x, box.y, box.right - 1, box.bottom - 1)
        pen.rectangle(outline, outline=_COLOURS[index % len(_COLOURS)], width=1)
    for index, ((number, _), tag) in enumerate(zip(marks, tags, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        pen.rectangle((tag.x, tag.y, tag.right - 1, tag.bottom - 1), fill=colour)
        middle = (tag.x + tag.width / 2, tag.y + tag.height / 2)
        pen.text(middle, number, fill="white", font=font, anchor="mm")
    return picture


def _scaled(box: Box, scale: float) -> Box:
    left, top = round(box.x * scale), round(box.y * scale)
    right, bottom = round(box.right * scale), round(box.bottom * scale)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _size(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    number: str,
) -> tuple[int, int]:
    left, top, right, bottom = pen.textbbox((0, 0), number, font=font)
    return round(right - left) + 2 * _PADDING, round(bottom - top) + 2 * _PADDING + 1
