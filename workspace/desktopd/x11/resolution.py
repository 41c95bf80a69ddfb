"""The screen's size and dots per inch, while the desktop runs (RandR 1.2).

Xtigervnc has one output on one CRTC and takes modes of any size, so a size is a mode made for it.
The server is grabbed meanwhile: no program sees the steps in between, and the windows, the panel
and the viewers hear of one change.

On failure: the size is as it was, and it is said why: ``Unsupported`` for a server without RandR,
``InvalidRequest`` for a size that it refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import xcffib
import xcffib.randr

from workspace.desktopd.x11.display import Display
from workspace.errors import InvalidRequest, TimedOut, Unsupported

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 2.0
_NAME = "RANDR"
_UNROTATED = xcffib.randr.Rotation.Rotate_0

Size = tuple[int, int]


class Resolution:
    """Changes the size of one display's screen."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._made: int | None = None  # the mode that we made, while it is shown

    async def set(self, size: Size, dpi: int) -> None:
        """Make the screen that large; returns once the window manager has followed.

        Raises:
            Unsupported: the X server cannot. InvalidRequest: it refuses that size.
        """
        display = self._display
        if not display.reply(display.core.QueryExtension(len(_NAME), _NAME)).present:
            raise Unsupported("This X server's screen has a fixed size: it has no RandR.")
        randr: Any = display.connection(xcffib.randr.key)  # Any: xcffib carries no types
        self._check_range(randr, size)
        try:
            with self._grabbed():
                self._change(randr, size, dpi)
        except xcffib.Error as error:
            raise InvalidRequest(
                f"The X server refuses a screen of {size[0]}x{size[1]}: {type(error).__name__}."
            ) from error
        display.sync()
        display.pump()  # brings the new size
        await self._until_followed(size)

    def _check_range(self, randr: Any, size: Size) -> None:
        allowed = self._display.reply(randr.GetScreenSizeRange(self._display.root))
        least = (allowed.min_width, allowed.min_height)
        most = (allowed.max_width, allowed.max_height)
        if not all(low <= side <= high for low, side, high in zip(least, size, most, strict=True)):
            raise InvalidRequest(
                f"The screen can be from {least[0]}x{least[1]} to {most[0]}x{most[1]} pixels, "
                f"not {size[0]}x{size[1]}."
            )

    @contextmanager
    def _grabbed(self) -> Iterator[None]:
        self._display.core.GrabServer()
        try:
            yield
        finally:
            self._display.core.UngrabServer()
            self._display.connection.flush()

    def _change(self, randr: Any, size: Size, dpi: int) -> None:
        """The screen holds the CRTC at every step: it grows before that, and shrinks after."""
        display = self._display
        output, crtc, modes = self._output(randr)
        mode = modes.get(size)
        made = self._make_mode(randr, output, size) if mode is None else None
        now = display.reply(display.core.GetGeometry(display.root))
        largest = (max(now.width, size[0]), max(now.height, size[1]))
        try:
            if largest != (now.width, now.height):
                self._set_screen(randr, largest, dpi)
            self._show(randr, output, crtc, mode or made, size)
            self._set_screen(randr, size, dpi)
        except (xcffib.Error, InvalidRequest):
            self._set_screen(randr, (now.width, now.height), dpi)
            self._drop_mode(randr, output, made)
            raise
        if mode is None or mode != self._made:
            self._drop_mode(randr, output, self._made)
            self._made = made

    def _show(self, randr: Any, output: int, crtc: int, mode: int | None, size: Size) -> None:
        done = self._display.reply(
            randr.SetCrtcConfig(crtc, 0, 0, 0, 0, mode, _UNROTATED, 1, [output])
        )
        if done.status != xcffib.randr.SetConfig.Success:
            raise InvalidRequest(f"The X server does not show {size[0]}x{size[1]} pixels.")

    def _output(self, randr: Any) -> tuple[int, int, dict[Size, int]]:
        """What shows the screen: the output, its CRTC, and its modes by their sizes."""
        resources = self._display.reply(randr.GetScreenResourcesCurrent(self._display.root))
        for output in resources.outputs:
            told = self._display.reply(randr.GetOutputInfo(output, 0))
            if told.crtc:
                own = set(told.modes)
                modes = {(m.width, m.height): m.id for m in resources.modes if m.id in own}
                return output, told.crtc, modes
        raise Unsupported("This X server shows its screen on no output.")

    def _make_mode(self, randr: Any, output: int, size: Size) -> int:
        width, height = size
        name = f"carrel-{width}x{height}"
        # No beam is steered: all of each line and frame is visible, sixty times a second.
        synthetic: Any = xcffib.randr.ModeInfo.synthetic  # Any: as above
        mode = synthetic(
            0, width, height, width * height * 60, 0, 0, width, 0, 0, 0, height, len(name), 0
        )
        cookie = randr.CreateMode(self._display.root, mode, len(name), name)
        made: int = self._display.reply(cookie).mode
        randr.AddOutputMode(output, made, is_checked=True).check()
        return made

    def _drop_mode(self, randr: Any, output: int, mode: int | None) -> None:
        if mode is not None:
            randr.DeleteOutputMode(output, mode)
            randr.DestroyMode(mode)

    def _set_screen(self, randr: Any, size: Size, dpi: int) -> None:
        millimetres = [max(1, round(pixels * 25.4 / dpi)) for pixels in size]
        randr.SetScreenSize(self._display.root, *size, *millimetres, is_checked=True).check()

    async def _until_followed(self, size: Size) -> None:
        """The window manager tells that it knows the new size (EWMH, _NET_DESKTOP_GEOMETRY)."""
        display = self._display

        def has_followed() -> bool | None:
            known = display.numbers(display.root, "_NET_DESKTOP_GEOMETRY")
            return known in ([], list(size)) or None  # without a window manager nobody tells

        try:
            await display.until(has_followed, _FOLLOW_SECONDS, "No window manager took the size")
        except TimedOut as error:
            logger.info("%s", error.message)
