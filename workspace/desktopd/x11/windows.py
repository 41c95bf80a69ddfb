"""The desktop's windows, through the window manager (EWMH 1.5), and waiting for it to be there.

On failure: a window that is not in the manager's list is ``WindowNotFound``; one that goes away
while it is looked at is left out.
"""

from __future__ import annotations

from xcffib import xproto

from workspace.desktopd.x11.display import Display
from workspace.errors import WindowNotFound
from workspace.models import Window

_FROM_A_PAGER = 2  # the source that window managers obey at once (EWMH, "Source indication")
_MAX_TITLE_BYTES = 4096


def listed(display: Display) -> list[Window]:
    """The windows, from the lowest to the topmost."""
    active = display.numbers(display.root, "_NET_ACTIVE_WINDOW")
    found = (_describe(display, window, active) for window in _ids(display))
    return [window for window in found if window is not None]


def _ids(display: Display) -> list[int]:
    clients = display.numbers(display.root, "_NET_CLIENT_LIST")
    # xfwm4 tells the order only from the first time that it changes.
    stacked = display.numbers(display.root, "_NET_CLIENT_LIST_STACKING")
    known = [window for window in stacked if window in clients]
    return known + [window for window in clients if window not in known]


def _describe(display: Display, window: int, active: list[int]) -> Window | None:
    core = display.core
    try:
        geometry = core.GetGeometry(window)
        origin = core.TranslateCoordinates(window, display.root, 0, 0)
        box, corner = display.reply(geometry), display.reply(origin)
        pids = display.numbers(window, "_NET_WM_PID")
        return Window(
            id=window,
            title=_text(display, window, "_NET_WM_NAME") or _text(display, window, "WM_NAME"),
            # "instance\0class\0" (ICCCM, 4.1.2.5)
            window_class=_text(display, window, "WM_CLASS").rstrip("\0").split("\0")[-1],
            pid=pids[0] if pids else None,
            x=corner.dst_x,
            y=corner.dst_y,
            width=box.width,
            height=box.height,
            is_focused=window in active,
        )
    except (xproto.WindowError, xproto.DrawableError):
        return None


def _text(display: Display, window: int, name: str) -> str:
    found = display.property(window, name, limit=_MAX_TITLE_BYTES)
    if found is None:
        return ""
    kind, data = found
    # The old types, STRING and COMPOUND_TEXT, are Latin-1 as far as most titles go.
    return data.decode("utf-8" if kind == display.atom("UTF8_STRING") else "latin-1", "replace")


def focus(display: Display, window: int) -> None:
    """Activate a window, raising it.

    Raises:
        WindowNotFound: there is none of that id.
    """
    _check(display, window)
    display.send_to_root(window, "_NET_ACTIVE_WINDOW", _FROM_A_PAGER, 0, 0, 0, 0)


def close(display: Display, window: int) -> None:
    """Ask a window to close, as its close button would.

    Raises:
        WindowNotFound: there is none of that id.
    """
    _check(display, window)
    display.send_to_root(window, "_NET_CLOSE_WINDOW", 0, _FROM_A_PAGER, 0, 0, 0)


def _check(display: Display, window: int) -> None:
    if window not in _ids(display):
        raise WindowNotFound(f"There is no window {window}.")


async def wait_for_window_manager(display: Display, timeout: float) -> None:
    """Return once a window manager that speaks EWMH runs.

    Raises:
        TimedOut: none came.
    """

    def check() -> bool | None:
        try:
            for window in display.numbers(display.root, "_NET_SUPPORTING_WM_CHECK")[:1]:
                # A manager that died leaves the root's property, but not the window's own.
                if display.numbers(window, "_NET_SUPPORTING_WM_CHECK")[:1] == [window]:
                    return True
        except xproto.WindowError:
            pass
        return None

    await display.until(check, timeout, "The window manager did not start")


async def wait_for_panel(display: Display, timeout: float) -> None:
    """Return once a panel (a window of type dock) is on the screen.

    Raises:
        TimedOut: none came.
    """
    watched: set[int] = set()

    def check() -> bool | None:
        return any([_is_dock_shown(display, window, watched) for window in _ids(display)]) or None

    await display.until(check, timeout, "The panel did not appear")


def _is_dock_shown(display: Display, window: int, watched: set[int]) -> bool:
    dock = display.atom("_NET_WM_WINDOW_TYPE_DOCK")
    try:
        if window not in watched:
            # Its own events say when it is seen: it lies in the manager's frame, not the root.
            watched.add(window)
            events = xproto.EventMask.VisibilityChange | xproto.EventMask.PropertyChange
            display.core.ChangeWindowAttributes(window, xproto.CW.EventMask, [events])
        if dock not in display.numbers(window, "_NET_WM_WINDOW_TYPE"):
            return False
        attributes = display.reply(display.core.GetWindowAttributes(window))
    except xproto.WindowError:
        return False
    return bool(attributes.map_state == xproto.MapState.Viewable)
