"""Typing text, any Unicode, as keys.

The text is split so that each part needs no more spare keycodes than there are (see ``keymap``);
a part's characters are put on keys in one go and then struck in bursts. Whatever would turn them
into others, Caps Lock and modifiers that are held, is off for the duration.

On failure: a character that no keyboard types refuses the whole text before anything of it is
typed (:class:`~workspace.errors.UntypableText`). A text that is cut short stays as far as it went.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager

from xcffib import xproto

from workspace.actions import Typed
from workspace.desktopd.x11 import keys
from workspace.desktopd.x11.input import Input
from workspace.desktopd.x11.keymap import Keymap
from workspace.errors import UntypableText

# A burst is what a program surely reads in one go; the pause lets it (and this loop) run.
_BURST = 40
_PAUSE_SECONDS = 0.004


def keysyms_of(text: str) -> list[int]:
    """The keysyms to strike for a text; line ends of any kind are Return.

    Raises:
        UntypableText: it has a control character or half of a surrogate pair.
    """
    for position, character in enumerate(text):
        if character not in "\r\n\t" and unicodedata.category(character) in ("Cc", "Cs"):
            raise UntypableText(
                f"Character {position + 1} of the text is U+{ord(character):04X}, "
                "which no keyboard types; nothing was typed."
            )
    return [keys.keysym_of(character) for character in text.replace("\r\n", "\n")]


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


async def type_text(keymap: Keymap, user_input: Input, text: str) -> Typed:
    """Type ``text`` into whatever has the focus; by which way each of its characters went.

    Raises:
        UntypableText: nothing was typed.
        TimedOut: the program does not read what is typed; it has got the beginning.
    """
    keysyms = keysyms_of(text)
    state = keymap.refresh()
    # Spare keycodes come and go with the map: only what real keys give counts as mapped.
    mapped = {keysym for keysym in set(keysyms) if keymap.is_fixed(keysym)}
    async with _undisturbed(keymap, user_input, bool(state & xproto.ModMask.Lock)):
        for part in parts(keysyms, mapped, keymap.capacity()):
            strokes = await keymap.provide([*part, keys.SHIFT])
            shift = strokes[keys.SHIFT].keycode
            for start in range(0, len(part), _BURST):
                if start:
                    await asyncio.sleep(_PAUSE_SECONDS)
                burst = part[start : start + _BURST]
                user_input.strike((strokes[keysym] for keysym in burst), shift)
    on_keys = sum(keysym in mapped for keysym in keysyms)
    return Typed(keys=on_keys, remapped=len(keysyms) - on_keys)


@asynccontextmanager
async def _undisturbed(keymap: Keymap, user_input: Input, is_locked: bool) -> AsyncIterator[None]:
    """Without Caps Lock and without modifiers that are held, which come back afterwards."""
    caps_lock = keymap.find(keys.CAPS_LOCK) if is_locked else None
    with user_input.lifted(keymap.modifiers_down()):
        if caps_lock is not None:
            user_input.strike([caps_lock], 0)
        try:
            yield
        finally:
            if caps_lock is not None:
                user_input.strike([caps_lock], 0)
