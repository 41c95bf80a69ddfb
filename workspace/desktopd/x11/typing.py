"""Typing text, any Unicode: as keys as far as possible, else pasted.

What is on no key is put on spare keycodes (see ``keymap``), as many at a time as there are, and
struck in bursts. Only where the map has no spare keycodes, lines that need one are pasted (see
``pasting``). Whatever would turn keys into others, Caps Lock and modifiers that are held, is off
for the duration.

On failure: a character that cannot be typed refuses the whole text before anything of it is typed
(:class:`~workspace.errors.UntypableText`). A text that is cut short stays as far as it went.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager

from xcffib import xproto

from workspace.actions import Typed
from workspace.desktopd.x11 import keys
from workspace.desktopd.x11.clipboard import Clipboard
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.input import Input
from workspace.desktopd.x11.keymap import Keymap
from workspace.desktopd.x11.pasting import paste
from workspace.errors import UntypableText

# A burst is what a program surely reads in one go; the pause lets it (and this loop) run.
_BURST = 40
_PAUSE_SECONDS = 0.004
_LINES = re.compile("([\r\n\t])")  # what is between them is pasted at once, if at all


def check(text: str) -> None:
    """Refuse what no keyboard types and no program takes.

    Raises:
        UntypableText: it has a control character or half of a surrogate pair.
    """
    for position, character in enumerate(text):
        if character not in "\r\n\t" and unicodedata.category(character) in ("Cc", "Cs"):
            raise UntypableText(
                f"Character {position + 1} of the text is U+{ord(character):04X}, "
                "which no keyboard types; nothing was typed."
            )


def parts(keysyms: Sequence[int], mapped: Collection[int], capacity: int) -> Iterator[list[int]]:
    """Split so that each part has at most ``capacity`` different keysyms that are not mapped."""
    part: list[int] = []
    unmapped: set[int] = set()
    for keysym in keysyms:
        if keysym not in mapped and keysym not in unmapped and len(unmapped) == capacity:
            yield part
            part, unmapped = [], set()
        if keysym not in mapped:
            unmapped.add(keysym)
        part.append(keysym)
    if part:
        yield part


class Typist:
    """Types text on one display."""

    def __init__(
        self, display: Display, keymap: Keymap, user_input: Input, clipboard: Clipboard
    ) -> None:
        self._display = display
        self._keymap = keymap
        self._input = user_input
        self._clipboard = clipboard

    async def type(self, text: str) -> Typed:
        """Type ``text`` into whatever has the focus; how many of its characters went which way.

        Raises:
            UntypableText: nothing was typed.
            TimedOut: the program does not read what is typed; it has got the beginning.
        """
        check(text)
        text = text.replace("\r\n", "\n")
        await self._input.catch_up(anyway=True)
        state = self._keymap.refresh()
        # Spare keycodes come and go with the map: only what real keys give counts as mapped.
        fixed = {each for each in set(text) if self._keymap.is_fixed(keys.keysym_of(each))}
        has_spares = self._keymap.capacity() > 0
        on_keys = remapped = pasted = 0
        async with self._undisturbed(is_locked=bool(state & xproto.ModMask.Lock)):
            for run in [text] if has_spares else filter(None, _LINES.split(text)):
                count = sum(each in fixed for each in run)
                if has_spares or count == len(run):
                    await self._strike(run, fixed)
                    on_keys += count
                    remapped += len(run) - count
                else:
                    await paste(self._display, self._keymap, self._input, self._clipboard, run)
                    pasted += len(run)
        return Typed(keys=on_keys, remapped=remapped, pasted=pasted)

    async def _strike(self, text: str, fixed: Collection[str]) -> None:
        keysyms = list(map(keys.keysym_of, text))
        mapped = set(map(keys.keysym_of, fixed))
        for part in parts(keysyms, mapped, self._keymap.capacity()):
            strokes = await self._keymap.provide([*part, keys.SHIFT])
            shift = strokes[keys.SHIFT].keycode
            for start in range(0, len(part), _BURST):
                if start:
                    await asyncio.sleep(_PAUSE_SECONDS)
                burst = part[start : start + _BURST]
                self._input.strike((strokes[keysym] for keysym in burst), shift)

    @asynccontextmanager
    async def _undisturbed(self, *, is_locked: bool) -> AsyncIterator[None]:
        """Without Caps Lock and modifiers that are held; they come back afterwards."""
        caps_lock = self._keymap.find(keys.CAPS_LOCK) if is_locked else None
        with self._input.lifted(self._keymap.modifiers_down()):
            if caps_lock is not None:
                self._input.strike([caps_lock], 0)
            try:
                yield
            finally:
                if caps_lock is not None:
                    self._input.strike([caps_lock], 0)
