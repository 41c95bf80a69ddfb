"""What a person did with mouse and keyboard, told as actions. Pure.

A press and a release where it was pressed are a click, farther away a drag; clicks that follow each
other closely are one with a count; notches of the wheel add up; printable keys become text, and
chords and other keys are keys. At most :data:`MAX_DEEDS` are kept, and :data:`MAX_TEXT` characters:
what follows is only counted.

**Text is told only if it is known to be no secret.** For every run of text somebody asks where the
keyboard is (:meth:`Run.judge`): as it begins, every now and then, and when it has ended. It is told
if the first answer was an element that is neither a password field nor a terminal, and no later
answer was one of those. Of all other text only the length is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from workspace import actions as a
from workspace.control import MAX_DEEDS, Deed, TypeWithheld
from workspace.desktopd.x11.keys import canonical, name_of

MAX_TEXT = 10_000
SECRET_ROLES = frozenset({"password text", "terminal"})
_CLICK_PIXELS = 4
_CLICKS_SECONDS = 0.5
_PATH_POINTS = 50
_MAX_HELD = 64
_MAX_MOVES = 5000  # of one drag
_LARGEST = 32767  # no screen is larger, and no action goes farther

_BUTTONS: dict[int, a.Button] = {0: "left", 1: "middle", 2: "right", 7: "back"}
_WHEEL = {3: (0, -1), 4: (0, 1), 5: (-1, 0), 6: (1, 0)}
_MODIFIERS = {
    **dict.fromkeys((0xFFE3, 0xFFE4), "ctrl"),
    **dict.fromkeys((0xFFE9, 0xFFEA, 0xFFE7, 0xFFE8), "alt"),
    **dict.fromkeys((0xFFEB, 0xFFEC), "super"),
    **dict.fromkeys((0xFFE1, 0xFFE2), "shift"),
}
_ORDER = ("ctrl", "alt", "shift", "super")
# Keys that only change what others mean.
_SILENT = frozenset({0xFE03, 0xFF7E, 0xFFE5, 0xFFE6, 0xFF7F, 0xFF14})


@dataclass
class Run:
    """Text that was typed in one go."""

    text: list[str] = field(default_factory=list)
    is_closed: bool = False
    is_judged: bool = False  # once after its end
    _is_plain: bool | None = None  # what the first answer was
    _is_secret: bool = False

    def judge(self, role: str | None, *, was_closed: bool) -> None:
        """Where the keyboard is: the role of an element, None if nobody could tell."""
        if self._is_plain is None:  # what has the keyboard only afterwards says nothing
            self._is_plain = not was_closed and role is not None and role not in SECRET_ROLES
        self._is_secret |= role in SECRET_ROLES
        self.is_judged |= was_closed

    def told(self) -> Deed:
        if self._is_plain and self.is_judged and not self._is_secret:
            return a.Type(text="".join(self.text))
        return TypeWithheld(length=len(self.text))


@dataclass
class _Press:
    button: a.Button
    bit: int
    path: list[a.Point]
    modifiers: list[str]


class Deeds:
    """What one person did; told from the messages that were passed on."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._done: list[Deed | Run] = []
        self._more = 0
        self._length = 0
        self._buttons = 0
        self._press: _Press | None = None
        self._clicked_at = 0.0
        self._down: dict[int, None] = {}
        self._alone: int | None = None  # a modifier that has been pressed, and nothing since

    # What comes.

    def pointer(self, buttons: int, x: int, y: int) -> None:
        """A pointer message: which buttons are down now, and where."""
        changed, self._buttons = buttons ^ self._buttons, buttons
        x, y = min(x, _LARGEST), min(y, _LARGEST)
        if self._press is not None and len(self._press.path) < _MAX_MOVES:
            self._press.path.append((x, y))
        for bit in range(8):
            if changed >> bit & 1:
                self._end_run()
                self._alone = None
                self._button(bit, bool(buttons >> bit & 1), (x, y))

    def _button(self, bit: int, is_down: bool, point: a.Point) -> None:
        if bit in _WHEEL:
            if is_down:
                self._scroll(*_WHEEL[bit], point)
        elif bit in _BUTTONS and is_down and self._press is None:
            self._press = _Press(_BUTTONS[bit], bit, [point], self._modifiers())
        elif self._press is not None and self._press.bit == bit and not is_down:
            press, self._press = self._press, None
            self._pressed(press)

    def _pressed(self, press: _Press) -> None:
        (x, y), path = press.path[0], press.path
        if any(abs(px - x) > _CLICK_PIXELS or abs(py - y) > _CLICK_PIXELS for px, py in path):
            self._add(a.Drag(path=_thinned(path), button=press.button, modifiers=press.modifiers))
            return
        new = a.Click(x=x, y=y, button=press.button, modifiers=press.modifiers)
        last, now = self._done[-1] if self._done else None, self._now()
        if (
            isinstance(last, a.Click)
            and last.count < 3
            and now - self._clicked_at < _CLICKS_SECONDS
            and last.model_copy(update={"x": x, "y": y, "count": 1}) == new
            and abs((last.x or 0) - x) <= _CLICK_PIXELS
            and abs((last.y or 0) - y) <= _CLICK_PIXELS
        ):
            self._done[-1] = last.model_copy(update={"count": last.count + 1})
        else:
            self._add(new)
        self._clicked_at = now

    def _scroll(self, dx: int, dy: int, point: a.Point) -> None:
        modifiers = self._modifiers()
        last = self._done[-1] if self._done else None
        if (
            isinstance(last, a.Scroll)
            and (last.x, last.y, last.modifiers) == (*point, modifiers)
            and abs(last.dx + dx) <= 100
            and abs(last.dy + dy) <= 100
        ):
            added = {"dx": last.dx + dx, "dy": last.dy + dy}
            self._done[-1] = last.model_copy(update=added)
        else:
            self._add(a.Scroll(x=point[0], y=point[1], dx=dx, dy=dy, modifiers=modifiers))

    def key(self, keysym: int, is_down: bool) -> None:
        """A key message."""
        if not is_down:
            self._down.pop(keysym, None)
            if self._alone == keysym:  # it opens a menu, say
                self._alone = None
                if _MODIFIERS[keysym] != "shift":
                    self._end_run()
                    self._chord(_MODIFIERS[keysym])
            return
        if len(self._down) < _MAX_HELD:
            self._down[keysym] = None
        self._alone = keysym if keysym in _MODIFIERS else None
        if keysym in _MODIFIERS or keysym in _SILENT:
            return
        modifiers = self._modifiers()
        character = _character(keysym)
        if character and not {"ctrl", "alt", "super"} & set(modifiers):
            self._type(character)
            return
        self._end_run()
        name = name_of(keysym)
        if name is None:
            return
        if character.isalpha():
            name = character.lower()  # its case is told by Shift
        elif character:
            modifiers = [each for each in modifiers if each != "shift"]
        self._chord("+".join([*modifiers, name]))

    def _type(self, character: str) -> None:
        self._length += 1
        last = self._done[-1] if self._done else None
        if self._length > MAX_TEXT:
            self._more += 1
        elif isinstance(last, Run) and not last.is_closed:
            last.text.append(character)
        else:
            self._add(Run([character]))

    def _chord(self, chord: str) -> None:
        last = self._done[-1] if self._done else None
        if isinstance(last, a.Key) and last.chord == chord and last.repeat < 100:
            self._done[-1] = last.model_copy(update={"repeat": last.repeat + 1})
        else:
            self._add(a.Key(chord=chord))

    def _add(self, deed: Deed | Run) -> None:
        if len(self._done) < MAX_DEEDS:
            self._done.append(deed)
        else:
            self._more += 1

    def _modifiers(self) -> list[str]:
        down = {_MODIFIERS[keysym] for keysym in self._down if keysym in _MODIFIERS}
        return [name for name in _ORDER if name in down]

    def _end_run(self) -> None:
        last = self._done[-1] if self._done else None
        if isinstance(last, Run):
            last.is_closed = True

    def close(self) -> None:
        """Nothing more comes."""
        self._end_run()

    # What is told.

    def unjudged(self) -> Run | None:
        """The first run of text of which is not known yet whether it may be told."""
        runs = (deed for deed in self._done if isinstance(deed, Run) and not deed.is_judged)
        return next(runs, None)

    def told(self) -> tuple[list[Deed], int]:
        """What was done, and how much more there was that is not kept."""
        deeds = [deed.told() if isinstance(deed, Run) else deed for deed in self._done]
        return deeds, self._more


def _character(keysym: int) -> str:
    """The character that a key types; "" for one that types none."""
    keysym = canonical(keysym)
    if 0xFFB0 <= keysym <= 0xFFB9:  # the keypad's digits
        return chr(keysym - 0xFFB0 + ord("0"))
    if keysym >> 24 == 1:
        code = keysym & 0xFFFFFF
    elif 0x20 <= keysym <= 0x7E or 0xA0 <= keysym <= 0xFF:
        code = keysym
    else:
        return ""
    printable = code < 0x110000 and not 0xD800 <= code < 0xE000 and chr(code).isprintable()
    return chr(code) if printable else ""


def _thinned(path: list[a.Point]) -> list[a.Point]:
    """The path with at most some hundred points, its first and its last among them."""
    whole = [path[0], *(point for at, point in enumerate(path[1:]) if point != path[at])]
    if len(whole) < 2:
        return [path[0], path[-1]]
    step = max(1, -(-len(whole) // _PATH_POINTS))
    return [*whole[:-1:step], whole[-1]]
