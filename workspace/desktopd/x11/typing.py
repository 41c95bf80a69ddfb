"""Typing text, any Unicode: as keys as far as possible, else pasted.

What is on no key is put on spare keycodes (see ``keymap``), as many at a time as there are, and
struck in bursts. What programs do not take as a key is pasted (see ``pasting``), and so is all
that is on no key where the map has no spare keycodes. Whatever would turn keys into others, Caps
Lock and modifiers that are held, is off for the duration.

On failure: a character that cannot be typed refuses the whole text before anything of it is typed
(:class:`~workspace.errors.UntypableText`). A text that is cut short stays as far as it went.
"""

from __future__ import annotations

import asyncio
import itertools
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


def is_refused(character: str) -> bool:
    """Whether some programs take the character when it is pasted, but not as a key.

    Qt takes no key whose character is not assigned (of those beyond U+FFFF it does not ask), nor
    the byte order mark.
    """
    if character == "\ufeff":
        return True
    return ord(character) <= 0xFFFF and unicodedata.category(character) == "Cn"


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
        state = self._keymap.refresh()
        # Spare keycodes come and go with the map: only what real keys give counts as mapped.
        mapped = {each for each in set(text) if self._keymap.is_fixed(keys.keysym_of(each))}
        has_spares = self._keymap.capacity() > 0
        pasted = 0
        async with self._undisturbed(is_locked=bool(state & xproto.ModMask.Lock)):
            for is_pasted, run in itertools.groupby(
                text, lambda each: each not in mapped and (is_refused(each) or not has_spares)
            ):
                if is_pasted:
                    pasted += await self._paste("".join(run))
                else:
                    await self._strike(list(map(keys.keysym_of, run)))
        on_keys = sum(each in mapped for each in text)
        return Typed(keys=on_keys, remapped=len(text) - on_keys - pasted, pasted=pasted)

    async def _strike(self, keysyms: Sequence[int]) -> None:
        mapped = {keysym for keysym in set(keysyms) if self._keymap.is_fixed(keysym)}
        for part in parts(keysyms, mapped, self._keymap.capacity()):
            strokes = await self._keymap.provide([*part, keys.SHIFT])
            shift = strokes[keys.SHIFT].keycode
            for start in range(0, len(part), _BURST):
                if start:
                    await asyncio.sleep(_PAUSE_SECONDS)
                burst = part[start : start + _BURST]
                self._input.strike((strokes[keysym] for keysym in burst), shift)

    async def _paste(self, text: str) -> int:
        await paste(self._display, self._keymap, self._input, self._clipboard, text)
        return len(text)

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
