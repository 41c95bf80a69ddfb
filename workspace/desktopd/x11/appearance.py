"""How large and in which colours the screen shows: its size, its dots per inch, its backdrop.

Size and dots per inch change while the desktop runs; toolkits follow by XSETTINGS, other programs
from their next start. The theme is that of the start: toolkits read the choice between light and
dark from files (:mod:`workspace.desktopd.look`).

On failure: as :mod:`~workspace.desktopd.x11.resolution`.
"""

from __future__ import annotations

from xcffib import xproto

from workspace.desktopd import look
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.resolution import Resolution
from workspace.desktopd.x11.xsettings import XSettings
from workspace.models import Screen, ScreenChange, Theme


class Appearance:
    """The appearance of one display; ``dress`` it once before it is changed."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._resolution = Resolution(display)
        self._xsettings = XSettings(display)
        self._theme: Theme = "light"
        self._dpi = Screen().dpi

    def dress(self, theme: Theme, dpi: int) -> None:
        """Tell programs which theme to show, and how large."""
        self._theme, self._dpi = theme, dpi
        with self._display.talking():
            self._xsettings.tell(look.xsettings(dpi), look.resources(theme, dpi))
            self._tell_visuals()

    def _tell_visuals(self) -> None:
        """Say which visuals GTK 3 is to use.

        Else the first of its programs loads OpenGL to find out, as does each that starts beside
        it: a software renderer and a compiler, 50 ms and 16 MB a program.
        """
        display, screen = self._display, self._display.connection.setup.roots[0]
        deep = (depth.visuals for depth in screen.allowed_depths if depth.depth == 32)
        with_alpha = next((visual.visual_id for visuals in deep for visual in visuals), 0)
        display.core.ChangeProperty(
            xproto.PropMode.Replace, display.root, display.atom("GDK_VISUALS"),
            xproto.Atom.INTEGER, 32, 2, [screen.root_visual, with_alpha],
        )  # fmt: skip

    def paint_root(self) -> None:
        """A flat backdrop, for a desktop without a program that draws one."""
        display, core = self._display, self._display.core
        colour = [look.BACKDROPS[self._theme]]
        with display.talking():
            core.ChangeWindowAttributes(display.root, xproto.CW.BackPixel, colour)
            core.ClearArea(False, display.root, 0, 0, 0, 0)
            display.sync()

    async def change(self, change: ScreenChange) -> Screen:
        """The screen as it then is; see :meth:`Resolution.set`."""
        width, height = self._display.size
        size = (change.width or width, change.height or height)
        dpi = change.dpi or self._dpi
        if (*size, dpi) != (width, height, self._dpi):
            with self._display.talking():
                await self._resolution.set(size, dpi)
        if dpi != self._dpi:
            self.dress(self._theme, dpi)
        width, height = self._display.size
        return Screen(width=width, height=height, dpi=dpi)
