"""Text pasted through the clipboard, for where the keyboard's map has no spare keycodes.

It is the last resort, since programs differ in how they paste, and some do more than insert; and
it is slow, since nothing tells when a program has pasted. What the clipboard held is saved before
and offered again afterwards, by us: X has no way to make its former owner the owner again.

On failure the clipboard is as before, too; a program that takes no paste is ``TimedOut``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from workspace.desktopd.x11 import focus, keys
from workspace.desktopd.x11.clipboard import Clipboard
from workspace.desktopd.x11.contents import Contents
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.input import Input
from workspace.desktopd.x11.keymap import Keymap
from workspace.errors import TimedOut
from workspace.models import Selection

_TAKE_SECONDS = 5.0
_QUIET_SECONDS = 0.5
_MAX_TAKEN = 10
# Terminals give Control+V to what runs in them; Shift+Insert pastes, of which selection varies.
_TERMINAL = re.compile("term|konsole|kitty|rxvt|tilix", re.IGNORECASE)


async def paste(
    display: Display, keymap: Keymap, user_input: Input, clipboard: Clipboard, text: str
) -> None:
    """Make the program that has the focus paste ``text``.

    Raises:
        TimedOut: it took none, or the clipboard's owner did not give what is to be saved.
        TooLarge: the clipboard holds more than can be saved.
    """
    focused = focus.focused(display)
    in_terminal = focused is not None and _TERMINAL.search(focused.window_class) is not None
    selections: list[Selection] = ["clipboard", "primary"] if in_terminal else ["clipboard"]
    chord = [keys.SHIFT, keys.INSERT] if in_terminal else [keys.CONTROL, ord("v")]
    saved = {selection: await clipboard.contents(selection) for selection in selections}
    try:
        offers = [clipboard.offer(Contents.of(text=text), each) for each in selections]
        # Whoever owned the clipboard pastes its own until it has read that it no longer does.
        await keymap.until_read()
        await user_input.key(chord, 1)
        await _until_taken([offer.taken for offer in offers])
    finally:
        for selection, contents in saved.items():
            clipboard.offer(contents, selection)


async def _until_taken(taken: Sequence[asyncio.Event]) -> None:
    """Return once somebody has taken what is offered, and nobody asks for it any more.

    Chromium looks at what is new in the clipboard at once, and takes it again when its page comes
    to the key.
    """
    if not await _any(taken, _TAKE_SECONDS):
        raise TimedOut(
            f"The program did not paste within {_TAKE_SECONDS:g} s.",
            hint="Give the keyboard to a place that takes text.",
        )
    for _ in range(_MAX_TAKEN):
        for event in taken:
            event.clear()
        if not await _any(taken, _QUIET_SECONDS):
            return


async def _any(events: Sequence[asyncio.Event], seconds: float) -> bool:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return bool(done)
