"""What has the keyboard: the window by the window manager's word, the element by accessibility's.

The window costs two round trips to the X server. The element is asked for beside other work and
within :data:`ELEMENT_SECONDS`. On failure (no window manager, no accessibility, a program that
does not answer in time) that part is not known; nothing else fails for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from workspace.actions import FocusedElement, FocusedWindow
from workspace.desktopd.x11 import focus
from workspace.desktopd.x11.display import Display
from workspace.errors import CarrelError

logger = logging.getLogger(__name__)

ELEMENT_SECONDS = 0.03


class TellsFocus(Protocol):
    """Accessibility, as far as it is needed here."""

    async def focused(self) -> FocusedElement | None:
        """The element with the keyboard; None if there is none, or none that is known."""
        ...


@dataclass(frozen=True)
class Holder:
    """Who had the keyboard at a moment."""

    window: FocusedWindow | None
    element: FocusedElement | None
    is_element_known: bool = True  # false: it was not told in time

    def has_moved_from(self, before: Holder) -> bool:
        """Whether another window, or another element as far as both are known, had it before."""
        if (self.window and self.window.id) != (before.window and before.window.id):
            return True
        if self.element is None or not before.is_element_known:
            return False
        return before.element is None or before.element.id != self.element.id


class Keyboard:
    """Says who has it."""

    def __init__(self, display: Display, accessibility: TellsFocus) -> None:
        self._display = display
        self._accessibility = accessibility
        self._heard_of = 0  # the window whose changes of title the display hears of

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[asyncio.Task[Holder]]:
        """Ask what is so now, beside what is done in the block."""
        task = asyncio.create_task(self._holder())
        await asyncio.sleep(0)  # the question is on its way
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _holder(self) -> Holder:
        window = focus.focused(self._display)
        if window is not None and window.id != self._heard_of:
            self._heard_of = window.id
            focus.hear_of_titles(self._display, window.id)
        try:
            element = await asyncio.wait_for(self._accessibility.focused(), ELEMENT_SECONDS)
        except (CarrelError, asyncio.TimeoutError):
            return Holder(window, None, is_element_known=False)
        except Exception:  # what programs say of themselves is no reason for an action to fail
            logger.exception("What has the keyboard could not be asked.")
            return Holder(window, None, is_element_known=False)
        return Holder(window, element)
