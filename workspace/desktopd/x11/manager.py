"""Waiting until the window manager has caught up: a click may have given the keyboard elsewhere.

A click on another window goes to the manager first, which then moves the focus; a key that is
pressed meanwhile goes to the window that had it. The manager is asked for the size of a frame
(``_NET_REQUEST_FRAME_EXTENTS``, EWMH 1.5) and comes to that after the click.

On failure: a manager that does not answer within :data:`ANSWER_SECONDS` is not waited for.
"""

from __future__ import annotations

from typing import Any

from xcffib import xproto

from workspace.desktopd.x11.display import Display
from workspace.errors import TimedOut

ANSWER_SECONDS = 0.5
_ASK, _ANSWER = "_NET_REQUEST_FRAME_EXTENTS", "_NET_FRAME_EXTENTS"


class Manager:
    """The window manager, as far as it moves the focus."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._answers = 0
        self._window = display.hidden_window()
        display.subscribe(xproto.PropertyNotifyEvent, self._on_property)

    def _on_property(self, event: Any) -> None:  # Any: xcffib carries no types
        if event.window == self._window and event.atom == self._display.atom(_ANSWER):
            self._answers += 1

    async def catch_up(self) -> None:
        """Return once the manager has dealt with all that came before."""
        display = self._display
        if display.atom(_ASK) not in display.numbers(display.root, "_NET_SUPPORTED"):
            return
        before = self._answers
        display.send_to_root(self._window, _ASK, 0, 0, 0, 0, 0)
        display.pump()
        try:
            await display.until(
                lambda: self._answers > before or None, ANSWER_SECONDS, "The manager did not answer"
            )
        except TimedOut:
            return
