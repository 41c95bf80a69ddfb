"""Pictures as models need them, and their coordinates.

A desktop's picture has the screen's own size, or for a screen of more than ``MAX_SIDE`` pixels
that size divided by the smallest whole number that fits. Models answer in that
picture's pixels, and :class:`View` takes those to the screen and back without loss. A picture of
too many bytes is taken again at a lower quality, never at another size.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from mcp.types import ImageContent

from workspace import actions as a
from workspace.desktop import Desktop
from workspace.errors import OffScreen, TooLarge

MAX_SIDE = 2000
# Some clients refuse a result of more than 1 MB; base64 makes four bytes of three.
MAX_BYTES = 700_000
_QUALITIES = (80, 55, 30, 12, 5)


@dataclass(frozen=True)
class View:
    """A screen of ``screen`` pixels, seen as a picture of ``size`` pixels."""

    screen: tuple[int, int]
    divisor: int

    @classmethod
    def of(cls, width: int, height: int) -> View:
        return cls((width, height), -(-max(width, height) // MAX_SIDE))

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.screen
        return round(width / self.divisor), round(height / self.divisor)

    @property
    def scale(self) -> float:
        return 1 / self.divisor

    def to_screen(self, x: int, y: int) -> a.Point:
        """The screen's pixel in the middle of the picture's.

        Raises:
            OffScreen: it is not in the picture; nothing is clamped.
        """
        width, height = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise OffScreen(f"({x}, {y}) is outside the screen of {width}x{height}.")
        return (
            (2 * x + 1) * self.screen[0] // (2 * width),
            (2 * y + 1) * self.screen[1] // (2 * height),
        )

    def to_picture(self, x: int, y: int) -> a.Point:
        """The picture's pixel that shows the screen's."""
        (width, height), (wide, high) = self.size, self.screen
        return min(x * width // wide, width - 1), min(y * height // high, height - 1)

    def region_to_screen(self, region: a.Region) -> a.Region:
        """The screen's pixels that the picture's region shows, whole."""
        (width, height), (wide, high) = self.size, self.screen
        right, bottom = region.x + region.width, region.y + region.height
        if not (0 <= region.x and right <= width and 0 <= region.y and bottom <= height):
            raise OffScreen(
                f"The region from ({region.x}, {region.y}) to ({right}, {bottom}) is not within "
                f"the screen of {width}x{height}."
            )
        left, top = region.x * wide // width, region.y * high // height
        return a.Region(
            x=left,
            y=top,
            width=-(-right * wide // width) - left,
            height=-(-bottom * high // height) - top,
        )

    def region_to_picture(self, region: a.Region) -> a.Region:
        """The picture's pixels that show something of the screen's region."""
        right, bottom = region.x + region.width - 1, region.y + region.height - 1
        (left, top), (last, lowest) = (
            self.to_picture(region.x, region.y),
            self.to_picture(right, bottom),
        )
        return a.Region(x=left, y=top, width=last - left + 1, height=lowest - top + 1)


async def look(
    desktop: Desktop,
    view: View,
    *,
    region: a.Region | None = None,
    format: a.ImageFormat = "jpeg",
) -> a.Observation:
    """The screen now, in the view's size, or a region of the *screen* enlarged for reading.

    Raises:
        TooLarge: it is too many bytes at any quality.
    """
    for quality in _QUALITIES:
        action: a.Action
        if region is None:
            action = a.Screenshot(format=format, quality=quality, scale=view.scale)
        else:
            width = reading_width(region)
            action = a.Zoom(region=region, width=width, format=format, quality=quality)
        observation = await desktop.act(action, settle_ms=0, observe="none")
        if observation.screenshot is not None and len(observation.screenshot.data) <= MAX_BYTES:
            return observation
        format = "jpeg"  # a PNG has no quality to lower
    raise TooLarge("The picture is too large to send.", hint="Ask for a smaller region.")


async def glance(
    desktop: Desktop,
    view: View,
    *,
    region: a.Region | None = None,
    format: a.ImageFormat = "jpeg",
) -> a.Image:
    """The same for who may only look: it is no use of the desktop, and no action.

    Raises:
        TooLarge: it is too many bytes at any quality.
    """
    scale = view.scale if region is None else reading_width(region) / region.width
    for quality in _QUALITIES:
        image = await desktop.screenshot_since(
            None, format=format, quality=quality, scale=scale, region=region, passive=True
        )
        assert image is not None, "nothing is unchanged since no frame"
        if len(image.data) <= MAX_BYTES:
            return image
        format = "jpeg"
    raise TooLarge("The picture is too large to send.", hint="Ask for a smaller region.")


def reading_width(region: a.Region) -> int:
    """How wide to enlarge a region: twice, as long as no side exceeds ``MAX_SIDE``."""
    longest = max(region.width, region.height)
    return max(1, min(2 * region.width, region.width * MAX_SIDE // longest))


def content(data: bytes, format: a.ImageFormat) -> ImageContent:
    encoded = base64.b64encode(data).decode("ascii")
    return ImageContent(type="image", data=encoded, mime_type=f"image/{format}")
