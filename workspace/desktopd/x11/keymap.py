"""The keyboard's map: which keycode, with or without Shift, gives a keysym; spares for the rest.

XTEST presses keycodes, so a keysym that is on no key has to be put on one first. The map has some
keycodes that carry nothing, and many for keys of rare keyboards (XF86 keysyms); those are given
what is needed, in this order, and keep it for as long as possible.

The hard part is that a program translates a keycode when it comes to it in its queue, by the map
as it then is. Given another keysym while presses of it are still to be read, a keycode would turn
old text into new. So keysyms stay where they are; the least recently used is the first to be
replaced, and not before the program that had the keyboard has read its presses. After a change
nothing is pressed before the program that has the keyboard now has read of it: most do so in
order, but Chromium learns of the map on another connection than of the keys. Both is asked of
the program (see ``readers``); where that cannot be, time has to do.

Whoever else changes the map (setxkbmap, a VNC viewer's keyboard) is noticed by MappingNotify, and
the map is read afresh.

On failure: a program that does not read its keys for :data:`HUNG_SECONDS` keeps its keycodes, and
who needs one of them gets ``TimedOut``; what was pressed before stays right.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xcffib import xproto

from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.keys import canonical
from workspace.desktopd.x11.readers import Readers
from workspace.errors import TimedOut, Unavailable

# For programs that cannot be asked: until they have read of a change, and until they have read
# the presses of a keycode.
NOTICE_SECONDS = 0.05
REUSE_SECONDS = 0.4
# For those that can.
_ANSWER_SECONDS = 2.0
_ROUNDS = 2
HUNG_SECONDS = 8.0  # less than a client waits, which is to be told of it
# A VNC viewer's keyboard takes blank keycodes too; leave it some.
_LEFT_BLANK = 2
_VENDOR = 0x10000000  # keysyms from here on are of special keys, such as XF86's
# Programs act on the keycodes of some special keys whatever they carry: volume, brightness, sleep,
# a browser's back and forward (XF86XK_MonBrightnessUp to XF86XK_BackForward), and Close, Copy, Cut,
# New, Open, Paste, Reload and Save.
_ACTED_ON = frozenset(
    (*range(0x1008FF00, 0x1008FF40), *(0x1008FF00 + n for n in b"\x56\x57\x58\x68\x6b\x6d\x73\x77"))
)
_GROUP_SHIFT = 13  # where the layout's number is in a core key state (XKB protocol, 2.2.2)


@dataclass(frozen=True)
class Stroke:
    """A keycode, and whether Shift has to be down with it."""

    keycode: int
    shift: bool


@dataclass(frozen=True)
class _Press:
    """When a keycode was last pressed, and the window that reads it, if it can be asked."""

    at: float
    reader: int | None


def index(rows: Mapping[int, Sequence[int]], group: int) -> dict[int, Stroke]:
    """Where each keysym is, given each keycode's keysyms in the order of the core protocol.

    Of several places the lowest keycode wins. The second level is Shift's only on keys that
    print: on others (keypad, Print, Pause, function keys) other modifiers choose it. The core
    protocol knows two layouts; what a third one prints is not told.
    """
    found: dict[int, Stroke] = {}
    for keycode in sorted(rows):
        row = rows[keycode]
        levels = row[2:4] if group == 1 and any(row[2:4]) else row[:2]
        for level, keysym in enumerate(levels):
            prints = not 0xFD00 <= keysym <= 0xFFFF and keysym < _VENDOR
            if keysym and (group < 2 if prints else level == 0):
                found.setdefault(canonical(keysym), Stroke(keycode, level == 1))
    return found


def runs(keycodes: Collection[int]) -> Iterator[list[int]]:
    """Consecutive keycodes together: one request changes a run."""
    run: list[int] = []
    for keycode in sorted(keycodes):
        if run and keycode != run[-1] + 1:
            yield run
            run = []
        run.append(keycode)
    if run:
        yield run


class Keymap:
    """The map of one display, and the state of its locks."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._readers = Readers(display)
        self._reader: int | None = None  # of what is pressed next
        self._rows: dict[int, list[int]] = {}
        self._index: dict[int, Stroke] = {}
        self._group = 0
        self._stale = True
        self._modifiers: set[int] = set()
        self._given: dict[int, int] = {}  # spare keycode -> the keysym it was given
        self._before: dict[int, list[int]] = {}  # what a spare keycode carried at first
        self._presses: dict[int, _Press] = {}  # the last of each spare keycode
        display.subscribe(xproto.MappingNotifyEvent, self._on_mapping)

    def _on_mapping(self, event: Any) -> None:  # Any: xcffib carries no types
        if event.request != xproto.Mapping.Pointer:
            self._stale = True

    def refresh(self) -> int:
        """Bring the map up to date; the modifiers and locks that are on now (a core key state)."""
        state: int = self._display.reply(self._display.core.QueryPointer(self._display.root)).mask
        self._display.pump()  # a MappingNotify may have come along
        group = state >> _GROUP_SHIFT & 3
        if self._stale or group != self._group:
            self._read(group)
        return state

    def _read(self, group: int) -> None:
        core, setup = self._display.core, self._display.connection.setup
        first, count = setup.min_keycode, setup.max_keycode - setup.min_keycode + 1
        mapping, modifiers = core.GetKeyboardMapping(first, count), core.GetModifierMapping()
        reply = self._display.reply(mapping)
        width, keysyms = reply.keysyms_per_keycode, list(reply.keysyms)
        self._modifiers = set(self._display.reply(modifiers).keycodes) - {0}
        self._rows = {
            first + n: keysyms[n * width : (n + 1) * width] for n in range(len(keysyms) // width)
        }
        self._given = {k: s for k, s in self._given.items() if self._rows[k][0] == s}
        self._before = {k: row for k, row in self._before.items() if k in self._given}
        self._index = {keysym: Stroke(k, False) for k, keysym in self._given.items()}
        self._index |= index(self._rows, group)
        self._group, self._stale = group, False

    def find(self, keysym: int) -> Stroke | None:
        """Where the keysym is in the map as last read."""
        return self._index.get(keysym)

    def is_fixed(self, keysym: int) -> bool:
        """Whether a key of the keyboard's own gives it, not a spare one."""
        stroke = self._index.get(keysym)
        return stroke is not None and stroke.keycode not in self._given

    def modifiers_down(self) -> list[int]:
        """The keycodes of modifiers that are pressed now, whoever presses them."""
        bits = self._display.reply(self._display.core.QueryKeymap()).keys
        return [keycode for keycode in self._modifiers if bits[keycode >> 3] >> (keycode & 7) & 1]

    def capacity(self) -> int:
        """How many keysyms that are on no key can be provided at a time."""
        return len(self._given) + len(self._spare())

    def _spare(self) -> list[int]:
        """The keycodes that can be given away, the blank ones first."""
        usable = [k for k in self._rows if k not in self._given and k not in self._modifiers]
        blank = [keycode for keycode in usable if not any(self._rows[keycode])]
        rare = [
            keycode
            for keycode in reversed(usable)
            if any(self._rows[keycode])
            and all(k == 0 or k >= _VENDOR for k in self._rows[keycode])
            and _ACTED_ON.isdisjoint(self._rows[keycode])
        ]
        return blank[_LEFT_BLANK:] + rare

    async def provide(self, keysyms: Collection[int]) -> dict[int, Stroke]:
        """Where each of the keysyms is, after putting those that are on no key on spare ones.

        They are pressed at once, for whatever has the keyboard now.

        Raises:
            Unavailable: there are not as many spare keycodes.
            TimedOut: a program has not read what was typed before.
        """
        self.refresh()
        self._reader = self._readers.focused()
        missing = [keysym for keysym in dict.fromkeys(keysyms) if keysym not in self._index]
        if missing:
            await self._give(missing, keep=set(keysyms))
            self.refresh()
        try:
            return {keysym: self._index[keysym] for keysym in keysyms}
        except KeyError:
            raise Unavailable("Something else is changing the keyboard's map.") from None

    async def _give(self, missing: Sequence[int], keep: set[int]) -> None:
        given = [keycode for keycode, keysym in self._given.items() if keysym not in keep]
        given.sort(key=lambda keycode: self._presses[keycode].at if keycode in self._presses else 0)
        chosen = dict(zip(self._spare() + given, missing, strict=False))
        if len(chosen) < len(missing):
            raise Unavailable("The keyboard has no spare key left for those characters.")
        await self._until_translated([self._presses[k] for k in chosen if k in self._presses])
        for keycode in chosen:
            self._presses.pop(keycode, None)
            self._before.setdefault(keycode, self._rows[keycode])
        # Twice the same: Shift, if someone holds it, changes nothing.
        self._change({keycode: [keysym, keysym] for keycode, keysym in chosen.items()})
        self._given |= chosen
        await self.until_read()

    async def _until_translated(self, presses: Sequence[_Press]) -> None:
        for reader in {press.reader for press in presses if press.reader is not None}:
            if not await self._readers.has_read(reader, HUNG_SECONDS):
                raise TimedOut(
                    f"A program has not read what was typed into it for {HUNG_SECONDS:g} s.",
                    hint="Wait until it answers again, or close it.",
                )
        last = max((press.at for press in presses if press.reader is None), default=-math.inf)
        await asyncio.sleep(max(0.0, last + REUSE_SECONDS - asyncio.get_running_loop().time()))

    async def until_read(self) -> None:
        """Return once what has the keyboard has read what it was sent, as far as one can know."""
        self._reader = self._readers.focused()
        if self._reader is None:
            await asyncio.sleep(NOTICE_SECONDS)
            return
        # Its other connections are read in the same round of its loop, or in the next.
        for _ in range(_ROUNDS):
            await self._readers.has_read(self._reader, _ANSWER_SECONDS)

    def _change(self, rows: Mapping[int, Sequence[int]]) -> None:
        """Write rows of one width into the server's map."""
        for run in runs(rows):
            keysyms = [keysym for keycode in run for keysym in rows[keycode]]
            width = len(rows[run[0]])
            self._display.core.ChangeKeyboardMapping(len(run), run[0], width, keysyms)
        self._stale = True
        self._display.sync()

    def close(self) -> None:
        """Give the spare keycodes back as they were."""
        self._change({keycode: self._before[keycode] for keycode in self._given})
        self._given.clear()

    def pressed(self, keycode: int) -> None:
        """Note that the keycode was pressed just now: what a spare one carries has to stay."""
        if keycode in self._given:
            now = asyncio.get_running_loop().time()
            self._presses[keycode] = _Press(now, self._reader)
