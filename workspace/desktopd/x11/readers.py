"""Whether the program with the keyboard has read the events that it was sent.

A program answers ``_NET_WM_PING`` (EWMH 1.5) when it comes to it in its queue, so by then it has
read everything that was sent before: keys, and the news that the keyboard's map has changed. GTK,
Qt, Chromium and LibreOffice take part; the likes of xterm do not, and there is no telling.

On failure: a window that goes away has nothing left to read. One that does not answer in time is
the caller's to judge.
"""

from __future__ import annotations

import itertools
import struct
from typing import Any

from xcffib import xproto

from workspace.desktopd.x11.display import Display
from workspace.errors import TimedOut

_MAX_DEPTH = 8  # from a window with the focus up to the one that its manager knows


class Readers:
    """The windows that read what is typed."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._numbers = itertools.cycle(range(1, 1 << 31))
        self._answered = 0
        self._known: tuple[int, int | None] = (0, None)  # a focus, and who answers for it
        # Answers go to the root, to those who hear of its children.
        root = display.reply(display.core.GetWindowAttributes(display.root))
        events = root.your_event_mask | xproto.EventMask.SubstructureNotify
        display.core.ChangeWindowAttributes(display.root, xproto.CW.EventMask, [events])
        display.subscribe(xproto.ClientMessageEvent, self._on_message)

    def _on_message(self, event: Any) -> None:  # Any: xcffib carries no types
        if event.format == 32 and event.type == self._display.atom("WM_PROTOCOLS"):
            kind, number = event.data.data32[:2]
            if kind == self._display.atom("_NET_WM_PING"):
                self._answered = number

    def focused(self) -> int | None:
        """The window that answers for what has the keyboard; None if none does."""
        focus = self._display.reply(self._display.core.GetInputFocus()).focus
        if focus != self._known[0]:
            self._known = (focus, self._answering(focus))
        return self._known[1]

    def _answering(self, window: int) -> int | None:
        display, ping = self._display, self._display.atom("_NET_WM_PING")
        try:
            for _ in range(_MAX_DEPTH):
                if window <= xproto.InputFocus.PointerRoot or window == display.root:
                    return None
                if ping in display.numbers(window, "WM_PROTOCOLS"):
                    return window
                window = display.reply(display.core.QueryTree(window)).parent
        except xproto.WindowError:
            pass
        return None

    async def has_read(self, window: int, seconds: float) -> bool:
        """Whether it has come to the end of its events within that time."""
        display, number = self._display, next(self._numbers)
        data = (display.atom("_NET_WM_PING"), number, window, 0, 0)
        message = struct.pack("=BBHII5I", 33, 32, 0, window, display.atom("WM_PROTOCOLS"), *data)
        try:
            display.core.SendEvent(False, window, 0, message, is_checked=True).check()
        except xproto.WindowError:
            return True
        display.pump()  # the answer may have come along already
        try:
            await display.until(
                lambda: self._answered == number or None, seconds, "The program did not answer"
            )
        except TimedOut:
            return False
        return True
