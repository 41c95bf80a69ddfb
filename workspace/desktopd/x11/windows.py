"""The desktop's windows, through the window manager (EWMH 1.5), and waiting for it to be there.

On failure: a window that is not in the manager's list is ``WindowNotFound``; one that goes away
while it is looked at is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from xcffib import xproto

from workspace.desktopd.x11.display import Display, as_numbers
from workspace.errors import WindowNotFound
from workspace.models import Window, WindowCondition, WindowKind

FROM_A_PAGER = 2  # the source that window managers obey at once (EWMH, "Source indication")
ICONIC = 3  # WM_STATE of a minimised window (ICCCM, 4.1.3.1)
_MAX_BYTES = 4096  # of a title, say
_PROPERTIES = (
    "_NET_WM_NAME",
    "WM_NAME",
    "WM_CLASS",
    "_NET_WM_PID",
    "_NET_WM_STATE",
    "WM_STATE",
    "_NET_WM_WINDOW_TYPE",
    "WM_TRANSIENT_FOR",
)
_KINDS: dict[str, WindowKind] = {
    "NORMAL": "normal",
    "DIALOG": "dialog",
    "DOCK": "panel",
    "DESKTOP": "desktop",
}


def listed(display: Display) -> list[Window]:
    """The windows, from the lowest to the topmost."""
    active = display.numbers(display.root, "_NET_ACTIVE_WINDOW")
    found = (_describe(display, window, active) for window in ids(display))
    there = [window for window in found if window is not None]
    return [window.model_copy(update={"layer": layer}) for layer, window in enumerate(there)]


def one(display: Display, window: int) -> Window:
    """One of them.

    Raises:
        WindowNotFound: there is none of that id.
    """
    known = ids(display)
    found = None
    if window in known:
        active = display.numbers(display.root, "_NET_ACTIVE_WINDOW")
        found = _describe(display, window, active)
    if found is None:
        raise WindowNotFound(f"There is no window {window}.")
    return found.model_copy(update={"layer": known.index(window)})


def ids(display: Display) -> list[int]:
    """The windows that the manager manages, from the lowest to the topmost."""
    clients = display.numbers(display.root, "_NET_CLIENT_LIST")
    # xfwm4 tells the order only from the first time that it changes.
    stacked = display.numbers(display.root, "_NET_CLIENT_LIST_STACKING")
    known = [window for window in stacked if window in clients]
    return known + [window for window in clients if window not in known]


def _describe(display: Display, window: int, active: list[int]) -> Window | None:
    core = display.core
    asked = [core.GetGeometry(window), core.TranslateCoordinates(window, display.root, 0, 0)]
    properties = {name: display.ask(window, name, limit=_MAX_BYTES) for name in _PROPERTIES}
    is_gone = False
    answers: list[Any] = []  # Any: xcffib carries no types
    told: dict[str, tuple[int, bytes] | None] = {}
    # Every answer is taken, or it would be kept for good.
    for cookie in asked:
        try:
            answers.append(display.reply(cookie))
        except (xproto.WindowError, xproto.DrawableError):
            is_gone = True
    for name, cookie in properties.items():
        try:
            told[name] = display.told(cookie)
        except xproto.WindowError:
            is_gone = True
    if is_gone:
        return None
    box, corner = answers
    pids = as_numbers(told["_NET_WM_PID"])
    return Window(
        id=window,
        title=_text(display, told["_NET_WM_NAME"]) or _text(display, told["WM_NAME"]),
        # "instance\0class\0" (ICCCM, 4.1.2.5)
        window_class=_text(display, told["WM_CLASS"]).rstrip("\0").split("\0")[-1],
        pid=pids[0] if pids else None,
        x=corner.dst_x,
        y=corner.dst_y,
        width=box.width,
        height=box.height,
        is_focused=window in active,
        state=_state(display, as_numbers(told["_NET_WM_STATE"]), as_numbers(told["WM_STATE"])),
        kind=_kind(
            display,
            as_numbers(told["_NET_WM_WINDOW_TYPE"]),
            is_transient=told["WM_TRANSIENT_FOR"] is not None,
        ),
    )


def _state(display: Display, states: list[int], wm_state: list[int]) -> list[WindowCondition]:
    names = ("HIDDEN", "SHADED", "MAXIMIZED_VERT", "MAXIMIZED_HORZ", "FULLSCREEN")
    flags = {name for name in names if display.atom(f"_NET_WM_STATE_{name}") in states}
    return conditions(flags, is_iconic=wm_state[:1] == [ICONIC])


def _kind(display: Display, types: list[int], *, is_transient: bool) -> WindowKind:
    names = {display.atom(f"_NET_WM_WINDOW_TYPE_{name}"): name for name in _KINDS}
    return kind([names.get(each, "") for each in types], is_transient=is_transient)


def conditions(flags: Collection[str], *, is_iconic: bool) -> list[WindowCondition]:
    """What the flags of _NET_WM_STATE (without that prefix) and WM_STATE come to."""
    found: list[WindowCondition] = []
    # A window rolled up into its title bar is hidden too.
    if is_iconic or ("HIDDEN" in flags and "SHADED" not in flags):
        found.append("minimised")
    if "MAXIMIZED_VERT" in flags and "MAXIMIZED_HORZ" in flags:
        found.append("maximised")
    if "FULLSCREEN" in flags:
        found.append("fullscreen")
    return found


def kind(types: Sequence[str], *, is_transient: bool) -> WindowKind:
    """The first of its types (best first, as EWMH has them) that is known here.

    Without any type it is a dialog if it belongs to another window, else a normal one.
    """
    if not types:
        return "dialog" if is_transient else "normal"
    return next((_KINDS[name] for name in types if name in _KINDS), "other")


def _text(display: Display, found: tuple[int, bytes] | None) -> str:
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
    display.send_to_root(window, "_NET_ACTIVE_WINDOW", FROM_A_PAGER, 0, 0, 0, 0)


def close(display: Display, window: int) -> None:
    """Ask a window to close, as its close button would.

    Raises:
        WindowNotFound: there is none of that id.
    """
    _check(display, window)
    display.send_to_root(window, "_NET_CLOSE_WINDOW", 0, FROM_A_PAGER, 0, 0, 0)


def _check(display: Display, window: int) -> None:
    # A window manager may list one for a moment longer than it lives.
    if window not in ids(display) or _describe(display, window, []) is None:
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
        return any([_is_dock_shown(display, window, watched) for window in ids(display)]) or None

    await display.until(check, timeout, "The panel did not appear")


def select(display: Display, window: int) -> None:
    """Hear of a window's properties, geometry and visibility from now on."""
    mask = xproto.EventMask
    events = mask.VisibilityChange | mask.PropertyChange | mask.StructureNotify
    display.core.ChangeWindowAttributes(window, xproto.CW.EventMask, [events])


def is_shown(display: Display, window: int) -> bool:
    """Whether a window is mapped, and so is all that it lies in."""
    try:
        attributes = display.reply(display.core.GetWindowAttributes(window))
    except xproto.WindowError:
        return False
    return bool(attributes.map_state == xproto.MapState.Viewable)


def _is_dock_shown(display: Display, window: int, watched: set[int]) -> bool:
    dock = display.atom("_NET_WM_WINDOW_TYPE_DOCK")
    try:
        if window not in watched:
            # Its own events say when it is seen: it lies in the manager's frame, not the root.
            watched.add(window)
            select(display, window)
        if dock not in display.numbers(window, "_NET_WM_WINDOW_TYPE"):
            return False
    except xproto.WindowError:
        return False
    return is_shown(display, window)
