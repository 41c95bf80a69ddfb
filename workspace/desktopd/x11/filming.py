"""The screen as a film: its pixels whenever they have changed, and nothing while they have not.

Apart from who takes screenshots: the memory that a frame lies in is written by the next frame of
the film and by nothing else.

On failure: as :class:`~workspace.desktopd.x11.capture.Capture`.
"""

from __future__ import annotations

import PIL.Image

from workspace.desktopd.x11.capture import Capture
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.paints import Paints

_Seen = tuple[int, tuple[int, int], tuple[int, int]]  # version, where the pointer is, screen size


class Film:
    """Frames of one display, all of the size that the screen had at :meth:`begin`."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._capture = Capture(display)
        self._paints: Paints | None = None  # the server reports nothing before the first film
        self._seen: _Seen | None = None
        self.size = display.size

    def close(self) -> None:
        self._capture.close()

    def begin(self) -> tuple[int, int]:
        """The size of the frames from now on; the next frame is new, whatever it shows."""
        self.size = self._display.size
        self.again()
        return self.size

    def again(self) -> None:
        """Have the next frame be one whatever it shows."""
        self._seen = None

    def end(self) -> None:
        """Give back the memory of the last frame, which must not be in use any more."""
        self._capture.close()

    def frame(self) -> memoryview | None:
        """The screen now with the pointer, rows of blue, green, red, unused; None if as before.

        It is good until the next call. A screen that has another size by now is made to fit.

        Raises:
            Unavailable: not at this moment. DesktopLost: the X server went away.
        """
        with self._display.talking():
            if self._paints is None:
                self._paints = Paints(self._display)
            place = self._display.reply(self._display.core.QueryPointer(self._display.root))
            seen = (self._paints.version(), (place.root_x, place.root_y), self._display.size)
            if seen == self._seen:
                return None
            pixels = self._capture.read(self._capture.check(None), self._capture.pointer())
            self._seen = seen
            return pixels.data if pixels.size == self.size else self._fitted(pixels.picture())

    def _fitted(self, picture: PIL.Image.Image) -> memoryview:
        """The picture as large as it can be in the middle of a black frame."""
        width, height = self.size
        factor = min(width / picture.width, height / picture.height)
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        frame = PIL.Image.new("RGB", self.size)
        frame.paste(picture.resize(size), ((width - size[0]) // 2, (height - size[1]) // 2))
        return memoryview(frame.tobytes("raw", "BGRX"))
