"""Waiting for a text on the screen, by what programs tell assistive ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workspace import waits as w
from workspace.errors import Unsupported

if TYPE_CHECKING:  # X11 is loaded while the X server starts
    from workspace.desktopd.screen import Screen


async def wait(screen: Screen, wanted: w.TextAppears | w.TextGone) -> w.Waited:
    """Return once it is shown, with where that is; or once it is not."""
    raise Unsupported("This desktop tells of no texts.")
