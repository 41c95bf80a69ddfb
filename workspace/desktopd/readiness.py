"""Whether an XFCE desktop can be used: its parts are there, painted, and paint no more.

A panel that is mapped but not painted does not take clicks yet, and the backdrop is painted over
soon after the first time. Whoever waits here has a deadline of its own.
"""

from __future__ import annotations

import asyncio

from workspace.actions import Region
from workspace.desktopd.screen import Screen

_POLL_SECONDS = 0.01
_REST_SECONDS = 0.06
_MOST_UNREST_SECONDS = 1.0


async def until_painted(screen: Screen) -> None:
    """Return once backdrop and panel are there and no longer X's black."""
    while not _is_painted(screen):  # noqa: ASYNC110  # painting tells nobody of itself
        await asyncio.sleep(_POLL_SECONDS)


async def until_rest(screen: Screen) -> None:
    """Return once nothing paints any more; what goes on painting is not waited for."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _MOST_UNREST_SECONDS
    with screen.watching.watch(None) as watch:
        while clock() < deadline:
            changed = await watch.change(_REST_SECONDS)
            if changed is None and clock() - (watch.painted or 0.0) >= _REST_SECONDS:
                return


def _is_painted(screen: Screen) -> bool:
    there = screen.windows.listed()
    panel = next((window for window in there if window.kind == "panel"), None)
    if panel is None or not any(window.window_class == "Xfdesktop" for window in there):
        return False
    width, height = screen.size
    places = ((width // 2, height - 8), (panel.x, panel.y))  # the backdrop's last rows
    return all(screen.is_lit(Region(x=x, y=y, width=8, height=8)) for x, y in places)
