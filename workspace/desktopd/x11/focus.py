"""Which window has the keyboard, by the window manager's word (EWMH 1.5), in two round trips.

On failure: without a window manager, or with a window that goes away meanwhile, there is none.
"""

from __future__ import annotations

from xcffib import xproto

from workspace.actions import FocusedWindow
from workspace.desktopd.x11.display import Display

_PROPERTIES = ("_NET_WM_NAME", "WM_NAME", "WM_CLASS")
_MAX_BYTES = 1024  # of a title, say


def focused(display: Display) -> FocusedWindow | None:
    """The window that has the keyboard."""
    window = next(iter(display.numbers(display.root, "_NET_ACTIVE_WINDOW")), 0)
    if not window:
        return None
    asked = [display.ask(window, name, limit=_MAX_BYTES) for name in _PROPERTIES]
    told: list[tuple[int, bytes] | None] = []
    for cookie in asked:  # every answer is taken, or it would be kept for good
        try:
            told.append(display.told(cookie))
        except xproto.WindowError:
            told.append(None)
    if told == [None, None, None]:
        return None
    utf8 = display.atom("UTF8_STRING")
    name, old_name, both = (_text(each, utf8) for each in told)
    # "instance\0class\0" (ICCCM, 4.1.2.5)
    return FocusedWindow(
        id=window, title=name or old_name, window_class=both.rstrip("\0").split("\0")[-1]
    )


def hear_of_titles(display: Display, window: int) -> None:
    """Be sent the events of a window's properties, beside what was asked for already."""
    try:
        mask = display.reply(display.core.GetWindowAttributes(window)).your_event_mask
    except xproto.WindowError:
        return
    if not mask & xproto.EventMask.PropertyChange:
        mask |= xproto.EventMask.PropertyChange
        display.core.ChangeWindowAttributes(window, xproto.CW.EventMask, [mask])


def _text(found: tuple[int, bytes] | None, utf8: int) -> str:
    kind, data = found or (0, b"")
    # The old types, STRING and COMPOUND_TEXT, are Latin-1 as far as most titles go.
    return data.decode("utf-8" if kind == utf8 else "latin-1", "replace")
