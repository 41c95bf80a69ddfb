"""Arranging windows: moved, resized, minimised and so on, and waiting for one to come.

A window manager answers no request: it does what it was asked, in part or not at all. So each
change here is sent, and then the window is looked at again whenever an event tells of it, until it
is as asked, or has come to rest otherwise, or :data:`DEADLINE_SECONDS` have passed. What comes back
is the window as it is then. A window that closes meanwhile is ``WindowNotFound``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from xcffib import xproto

from workspace.desktopd.x11 import windows
from workspace.desktopd.x11.display import Display
from workspace.errors import TimedOut
from workspace.models import Window, WindowChange

DEADLINE_SECONDS = 2.0
# How long a window must have kept still: once it is as asked, and when it is not.
_DONE_SECONDS = 0.03
_REFUSED_SECONDS = 0.3
_STATIC_GRAVITY = 10  # the coordinates are the window's own, not its frame's (ICCCM, 4.1.2.3)
_PAGER = windows.FROM_A_PAGER << 12
_HAS_PLACE, _HAS_SIZE = 0b0011 << 8, 0b1100 << 8
_REMOVE, _ADD = 0, 1
_TOLD_TITLES = 20

T = TypeVar("T")


class Windows:
    """The windows of one display: listed, changed, waited for."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._changes = 0  # how many events told of a window
        for event in (
            xproto.PropertyNotifyEvent,
            xproto.ConfigureNotifyEvent,
            xproto.MapNotifyEvent,
            xproto.UnmapNotifyEvent,
            xproto.VisibilityNotifyEvent,
            xproto.DestroyNotifyEvent,
        ):
            display.subscribe(event, self._on_change)

    def _on_change(self, event: Any) -> None:  # Any: xcffib carries no types
        self._changes += 1

    def listed(self) -> list[Window]:
        """The top-level windows, from the lowest to the topmost."""
        with self._display.talking():
            return windows.listed(self._display)

    def focus(self, window: int) -> None:
        """Activate a window; WindowNotFound if there is none of that id."""
        with self._display.talking():
            windows.focus(self._display, window)

    def close(self, window: int) -> None:
        """Ask a window to close; WindowNotFound if there is none of that id."""
        with self._display.talking():
            windows.close(self._display, window)

    async def move(self, window: int, x: int, y: int) -> Window:
        """Put the top left corner of a window's box at (x, y)."""
        with self._display.talking():
            before = self._begin(window)
            self._move_resize(window, _HAS_PLACE, x, y, 0, 0)
            return await self._settled(before, lambda now: (now.x, now.y) == (x, y))

    async def resize(self, window: int, width: int, height: int) -> Window:
        """Give a window's box that size; some keep to steps or limits of their own."""
        with self._display.talking():
            before = self._begin(window)
            self._move_resize(window, _HAS_SIZE, 0, 0, width, height)
            # xfwm4 shifts a resized window whose frame reaches over the edge: back where it was.
            self._move_resize(window, _HAS_PLACE, before.x, before.y, 0, 0)
            wanted = (before.x, before.y, width, height)
            return await self._settled(before, lambda now: (now.x, now.y, *_size(now)) == wanted)

    def _move_resize(self, window: int, given: int, *box: int) -> None:
        # A client message carries 32 bits a value; a coordinate may be negative.
        values = (value & 0xFFFFFFFF for value in box)
        flags = _STATIC_GRAVITY | given | _PAGER
        self._display.send_to_root(window, "_NET_MOVERESIZE_WINDOW", flags, *values)

    async def set_state(self, window: int, change: WindowChange) -> Window:
        """Make a window normal, minimised, maximised or fullscreen."""
        with self._display.talking():
            before = self._begin(window)
            wanted = change.state
            if wanted == "minimised":
                self._display.send_to_root(window, "WM_CHANGE_STATE", windows.ICONIC, 0, 0, 0, 0)
                return await self._settled(before, lambda now: "minimised" in now.state)
            if "minimised" in before.state:
                windows.focus(self._display, window)  # which brings it back
                before = await self._settled(before, lambda now: "minimised" not in now.state)
            if wanted != "fullscreen":
                self._change_state(window, _REMOVE, "FULLSCREEN")
            if wanted == "normal":
                self._change_state(window, _REMOVE, "MAXIMIZED_VERT", "MAXIMIZED_HORZ")
                return await self._settled(before, lambda now: not now.state)
            if wanted == "maximised":
                self._change_state(window, _ADD, "MAXIMIZED_VERT", "MAXIMIZED_HORZ")
                return await self._settled(before, lambda now: now.state == ["maximised"])
            self._change_state(window, _ADD, "FULLSCREEN")
            return await self._settled(before, lambda now: "fullscreen" in now.state)

    def _change_state(self, window: int, action: int, *names: str) -> None:
        atoms = [self._display.atom(f"_NET_WM_STATE_{name}") for name in names]
        data = (action, *atoms, *[0] * (2 - len(atoms)), windows.FROM_A_PAGER, 0)
        self._display.send_to_root(window, "_NET_WM_STATE", *data)

    def _begin(self, window: int) -> Window:
        before = windows.one(self._display, window)
        windows.select(self._display, window)
        return before

    async def _settled(self, before: Window, is_done: Callable[[Window], bool]) -> Window:
        """The window once it is as asked, or rests otherwise, or the deadline has passed."""
        clock = asyncio.get_running_loop().time
        last, since = before, clock()
        deadline = since + DEADLINE_SECONDS
        while True:
            seen = self._changes
            now = windows.one(self._display, before.id)
            if _shape(now) != _shape(last):
                last, since = now, clock()
            rest = deadline
            if is_done(now):
                rest = since + _DONE_SECONDS
            elif _shape(now) != _shape(before):
                rest = since + _REFUSED_SECONDS
            left = min(rest, deadline) - clock()
            if left <= 0:
                return now
            await self._next_change(seen, left)

    async def _next_change(self, seen: int, seconds: float) -> None:
        """Return when an event has told of a window, or after ``seconds``."""
        try:
            await self._display.until(
                lambda: True if self._changes != seen else None, seconds, "Nothing changed"
            )
        except TimedOut:
            pass

    # Waiting for a window to come.

    async def wait_for(self, title: str | None, window_class: str | None, seconds: float) -> Window:
        """The topmost window that is on the screen and whose title and class hold those texts.

        Raises:
            TimedOut: none came; the message has the titles that there are.
        """
        with self._display.talking():
            found = await self.choose(lambda there: _matching(there, title, window_class), seconds)
            if found is not None:
                return found
            wanted = _told(title, window_class)
            raise TimedOut(
                f"No window with {wanted} was on the screen within {seconds:g} s.",
                hint=self._titles(),
            )

    async def wait_until_gone(
        self, title: str | None, window_class: str | None, seconds: float
    ) -> None:
        """Return once no window, shown or minimised, has those texts in its title and class.

        Raises:
            TimedOut: one stayed; the hint has the titles that there are.
        """

        def are_gone(_: list[Window]) -> bool | None:
            there = windows.listed(self._display)
            return True if _matching(there, title, window_class) is None else None

        if not await self.choose(are_gone, seconds):
            raise TimedOut(
                f"A window with {_told(title, window_class)} was still there after {seconds:g} s.",
                hint=f"{self._titles()} A dialog may ask whether to save.",
            )

    def _titles(self) -> str:
        with self._display.talking():
            there = [repr(each.title[:100]) for each in windows.listed(self._display)]
        return f"The windows there are: {', '.join(there[-_TOLD_TITLES:]) or 'none'}."

    async def choose(self, choice: Callable[[list[Window]], T | None], seconds: float) -> T | None:
        """What ``choice`` makes of the windows on the screen, once it is something.

        It is asked again whenever one has changed; None if it never chose in that time.
        """
        with self._display.talking():
            clock = asyncio.get_running_loop().time
            deadline = clock() + seconds
            while True:
                seen = self._changes
                # All of them anew: a window may have the id of one that was there before.
                for window in windows.ids(self._display):
                    windows.select(self._display, window)
                there = windows.listed(self._display)
                found = choice([each for each in there if windows.is_shown(self._display, each.id)])
                if found is not None or clock() >= deadline:
                    return found
                await self._next_change(seen, deadline - clock())


def _size(window: Window) -> tuple[int, int]:
    return window.width, window.height


def _shape(window: Window) -> tuple[object, ...]:
    return window.x, window.y, _size(window), window.state


def _told(title: str | None, window_class: str | None) -> str:
    asked = [("title", title), ("class", window_class)]
    return " and ".join(f"{text!r} in its {part}" for part, text in asked if text is not None)


def _matching(there: list[Window], title: str | None, window_class: str | None) -> Window | None:
    def holds(text: str, part: str | None) -> bool:
        return part is None or part.casefold() in text.casefold()

    fitting = [w for w in there if holds(w.title, title) and holds(w.window_class, window_class)]
    return fitting[-1] if fitting else None
