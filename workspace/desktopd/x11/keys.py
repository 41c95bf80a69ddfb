"""The one table of key names: what agents call a key, and the X keysym it is.

Pure. It knows the names of X11 and xdotool (``Page_Up``, ``KP_Add``, ``XF86AudioMute``), of
pyautogui, Playwright and browsers' events, OpenAI's upper case, UI-TARS's spaces in place of plus
signs (``ctrl c``) and the loose spellings of other models (``page down``, ``ARROWLEFT``). Names
are compared without case, spaces, ``_`` and ``-``, except where X11 itself tells two keysyms apart
by case (``eacute`` and ``Eacute``). An unknown name is :class:`~workspace.errors.UnknownKey`, with
the nearest names in the hint.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from workspace.errors import UnknownKey

RETURN, TAB, INSERT = 0xFF0D, 0xFF09, 0xFF63
SHIFT, CONTROL, CAPS_LOCK = 0xFFE1, 0xFFE3, 0xFFE5
_COMMAND_KEYS = frozenset((*range(0xFFE3, 0xFFE5), *range(0xFFE7, 0xFFEF)))  # Control, Alt, Super
_FUNCTION_KEYS = range(0xFFBE, 0xFFD6)
_MAX_KEYS = 8

# Alias -> X11's name. Aliases are written as `_plain` leaves them.
_ALIASES: Mapping[str, str] = {
    "enter": "Return",
    "ret": "Return",
    "newline": "Return",
    "esc": "Escape",
    "del": "Delete",
    "ins": "Insert",
    "bksp": "BackSpace",
    "spacebar": "space",
    "pageup": "Prior",
    "pgup": "Prior",
    "pagedown": "Next",
    "pgdn": "Next",
    "pgdown": "Next",
    "arrowleft": "Left",
    "arrowright": "Right",
    "arrowup": "Up",
    "arrowdown": "Down",
    "leftarrow": "Left",
    "rightarrow": "Right",
    "uparrow": "Up",
    "downarrow": "Down",
    "controlormeta": "Control_L",
    "altgr": "ISO_Level3_Shift",
    "altgraph": "ISO_Level3_Shift",
    "apps": "Menu",
    "contextmenu": "Menu",
    "caps": "Caps_Lock",
    "prtscr": "Print",
    "prtsc": "Print",
    "prntscrn": "Print",
    "printscreen": "Print",
    "printscrn": "Print",
    "snapshot": "Print",
    "backquote": "grave",
    "backtick": "grave",
    "hyphen": "minus",
    "dash": "minus",
    "equals": "equal",
    "dot": "period",
    "bracketopen": "bracketleft",
    "bracketclose": "bracketright",
    "quote": "apostrophe",
    "doublequote": "quotedbl",
    "hash": "numbersign",
    "star": "asterisk",
    "add": "KP_Add",
    "subtract": "KP_Subtract",
    "multiply": "KP_Multiply",
    "divide": "KP_Divide",
    "decimal": "KP_Decimal",
    "separator": "KP_Separator",
    "hanguel": "Hangul",
    "kana": "Kana_Lock",
    "convert": "Henkan",
    "nonconvert": "Muhenkan",
    "volumeup": "XF86AudioRaiseVolume",
    "audiovolumeup": "XF86AudioRaiseVolume",
    "volumedown": "XF86AudioLowerVolume",
    "audiovolumedown": "XF86AudioLowerVolume",
    "volumemute": "XF86AudioMute",
    "audiovolumemute": "XF86AudioMute",
    "playpause": "XF86AudioPlay",
    "mediaplaypause": "XF86AudioPlay",
    "stop": "XF86AudioStop",
    "mediastop": "XF86AudioStop",
    "nexttrack": "XF86AudioNext",
    "mediatracknext": "XF86AudioNext",
    "prevtrack": "XF86AudioPrev",
    "mediatrackprevious": "XF86AudioPrev",
    "browserback": "XF86Back",
    "browserforward": "XF86Forward",
    "browserrefresh": "XF86Refresh",
    "browserstop": "XF86Stop",
    "browsersearch": "XF86Search",
    "browserfavorites": "XF86Favorites",
    "browserhome": "XF86HomePage",
    "launchapp1": "XF86MyComputer",
    "launchapp2": "XF86Calculator",
    "launchmail": "XF86Mail",
    "launchmediaselect": "XF86AudioMedia",
    "mediavolumeup": "XF86AudioRaiseVolume",
    "mediavolumedown": "XF86AudioLowerVolume",
    "mediavolumemute": "XF86AudioMute",
    "audiovolup": "XF86AudioRaiseVolume",
    "audiovoldown": "XF86AudioLowerVolume",
    "medianext": "XF86AudioNext",
    "mediaprevious": "XF86AudioPrev",
    "brightnessup": "XF86MonBrightnessUp",
    "brightnessdown": "XF86MonBrightnessDown",
    "power": "XF86PowerOff",
    "compose": "Multi_key",
    "intlbackslash": "less",
    "lang1": "Hangul",
    "lang2": "Hangul_Hanja",
    "kanamode": "Hiragana_Katakana",
    "hanja": "Hangul_Hanja",
    "junja": "Hangul_Jeonja",
    "modechange": "Mode_switch",
    "sleep": "XF86Sleep",
}
# What dialects call the modifiers, and X11's name of them without its side.
_MODIFIERS: Mapping[str, str] = {
    **dict.fromkeys(("ctrl", "ctl", "control"), "Control"),
    **dict.fromkeys(("alt", "option", "opt"), "Alt"),
    "shift": "Shift",
    **dict.fromkeys(("super", "win", "windows", "cmd", "command", "meta", "os"), "Super"),
    "hyper": "Hyper",
}
# The keypad, by what follows KP_ in X11's names.
_KEYPAD: Mapping[str, str] = {
    **{str(digit): str(digit) for digit in range(10)},
    "add": "Add",
    "plus": "Add",
    "subtract": "Subtract",
    "minus": "Subtract",
    "multiply": "Multiply",
    "divide": "Divide",
    "decimal": "Decimal",
    "period": "Decimal",
    "enter": "Enter",
    "equal": "Equal",
    "comma": "Separator",
}
# Keysyms of before Unicode: what their high byte says of the low one (X Window System Protocol,
# appendix A), and where that is not so.
_OLD_CODES = {
    0x01: "iso8859-2",
    0x02: "iso8859-3",
    0x03: "iso8859-4",
    0x05: "iso8859-6",
    0x06: "koi8-u",
    0x07: "iso8859-7",
    0x0C: "iso8859-8",
    0x0D: "tis-620",
}
_OLD_OTHERS = {0x07F2: "\u03c3", 0x07F3: "\u03c2", 0x20AC: "€"}  # both sigmas
_OLD_UNLIKE = range(0x07A1, 0x07C0)  # Greek's accented letters have an order of their own


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


class _Tables(NamedTuple):
    """What is made of X11's names."""

    exact: Mapping[str, int]  # as X11 writes them
    modifiers: Mapping[str, str]  # what dialects call them, and X11's name with its side
    loose: Mapping[str, int]  # all of them, as `_plain` leaves them
    # The first of several names; characters go by themselves, but for those that part a chord.
    names: Mapping[int, str]


@functools.cache
def _tables() -> _Tables:
    """Made when the first key is named: a MiB that desktops at rest do without."""
    exact = _x11_names()
    modifiers = _modifier_names(exact)
    names = {
        keysym: name
        for name, keysym in reversed(exact.items())
        if name in ("plus", "space") or not (0x20 <= keysym <= 0xFF or keysym >> 24 == 1)
    }
    return _Tables(exact, modifiers, _loose_names(exact, modifiers), names)


def _x11_names() -> dict[str, int]:
    from xcffib import keysymdef, xf86keysym

    names = {
        name.removeprefix("XK_"): value
        for name, value in vars(keysymdef).items()
        if name.startswith("XK_") and not name.startswith("XK_3270")
    }
    for name, value in vars(xf86keysym).items():
        if name.startswith("XF86XK_"):
            names["XF86" + name.removeprefix("XF86XK_")] = value
    return names


def _modifier_names(exact: Mapping[str, int]) -> dict[str, str]:
    """Each modifier with its side before or after it, as in ``LeftControl`` and ``cmd_r``."""
    names: dict[str, str] = {}
    for word, name in _MODIFIERS.items():
        names[word] = f"{name}_L"
        for side in ("Left", "Right"):
            spelled = {word + side.lower(), side.lower() + word}
            # Meta_L is X11's own, and another key than what agents call meta.
            if f"{word.title()}_{side[0]}" not in exact:
                spelled.add(word + side[0].lower())
            names |= dict.fromkeys(spelled, f"{name}_{side[0]}")
    return names


def _loose_names(exact: Mapping[str, int], modifiers: Mapping[str, str]) -> dict[str, int]:
    # Keys of rare keyboards go without XF86 too, unless that is the name of another.
    loose = {_plain(name.removeprefix("XF86")): exact[name] for name in sorted(exact)[::-1]}
    # Sorted, upper case comes first: of `Eacute` and `eacute` the latter is kept.
    loose |= {_plain(name): exact[name] for name in sorted(exact)}
    for word, name in _KEYPAD.items():
        for prefix in ("numpad", "num", "keypad"):
            loose[prefix + word] = exact["KP_" + name]
    loose["numlock"] = exact["Num_Lock"]
    for digit in "0123456789":
        loose["digit" + digit] = ord(digit)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        loose["key" + letter] = ord(letter)
    aliases = {**_ALIASES, **modifiers}
    return loose | {alias: exact[name] for alias, name in aliases.items()}


def keysym_of(character: str) -> int:
    """The keysym of one character: Return and Tab, Latin-1 as it is, else Unicode's plane.

    Source: X Window System Protocol, appendix A, "KEYSYM Encoding".
    """
    if character in "\r\n":
        return RETURN
    if character == "\t":
        return TAB
    code = ord(character)
    return code if code <= 0xFF else 0x01000000 | code


def canonical(keysym: int) -> int:
    """The keysym of the same character as :func:`keysym_of` gives it.

    Layouts have keysyms of before Unicode: the low byte is a character of an older code.
    """
    code = _OLD_CODES.get(keysym >> 8)
    character = _OLD_OTHERS.get(keysym, "")
    if code is not None and not character and keysym not in _OLD_UNLIKE:
        character = bytes([keysym & 0xFF]).decode(code, "replace")
    return keysym_of(character) if character.isalpha() or character == "€" else keysym


def parse_key(name: str) -> int:
    """The keysym of one key's name or of one character.

    Raises:
        UnknownKey: the hint has the nearest names.
    """
    if name in ("\r", "\n", "\t") or (
        len(name) == 1 and unicodedata.category(name) not in ("Cc", "Cs")
    ):
        return keysym_of(name)
    plain, tables = _plain(name), _tables()
    if (
        plain in _ALIASES or plain in tables.modifiers
    ):  # before X11's own: "Super" and "Meta" mean the same key to an agent
        return tables.loose[plain]
    if name in tables.exact:
        return canonical(tables.exact[name])
    if plain in tables.loose:
        return canonical(tables.loose[plain])
    raise UnknownKey(f"There is no key named {name!r}.", hint=_nearest(plain))


def name_of(keysym: int) -> str | None:
    """What a key is called in a chord; None if it has no name that :func:`parse_key` knows."""
    if (name := _tables().names.get(keysym)) is not None:
        return name
    code = keysym & 0xFFFFFF if keysym >> 24 == 1 else keysym
    if (keysym >> 24 == 1 or 0x20 <= keysym <= 0xFF) and code < 0x110000:
        character = chr(code)
        if character not in "+ " and unicodedata.category(character) not in ("Cc", "Cs"):
            return character
    return None


def parse_chord(chord: str) -> list[int]:
    """The keysyms of ``ctrl+shift+t``, in the order to press them.

    ``+`` or a space between keys joins; the plus key is ``plus``, ``+`` alone, or the last of
    ``ctrl++``.
    Beside Control, Alt or Super a letter's case means nothing (``ctrl+S`` is what menus write).

    Raises:
        UnknownKey: one of them is not known, none is given, or there are more than eight.
    """
    names = [name for part in _split(chord) for name in _words(part)]
    if len(names) > _MAX_KEYS:
        raise UnknownKey(
            f"{chord!r} has {len(names)} keys.", hint=f"Press at most {_MAX_KEYS} keys at once."
        )
    keysyms = [parse_key(name) for name in names]
    if any(keysym in _COMMAND_KEYS for keysym in keysyms):
        keysyms = [
            keysym_of(name.lower()) if len(name) == 1 and len(name.lower()) == 1 else keysym
            for name, keysym in zip(names, keysyms, strict=True)
        ]
    return list(dict.fromkeys(keysyms))


def is_command(keysyms: Iterable[int]) -> bool:
    """Whether a chord tells a program to do something, as Control+L and F2 do."""
    return any(keysym in _COMMAND_KEYS or keysym in _FUNCTION_KEYS for keysym in keysyms)


def parse_chords(chords: Iterable[str]) -> list[int]:
    """The keysyms of several chords together, as in an action's ``modifiers``."""
    return list(dict.fromkeys(keysym for chord in chords for keysym in parse_chord(chord)))


def _words(part: str) -> list[str]:
    """Keys with spaces between them; a key's own name may have some, too."""
    if _is_known(part):
        return [part]
    words = part.split()
    for end in range(min(len(words), _MAX_KEYS) - 1, 0, -1):
        if _is_known(" ".join(words[:end])):
            return [" ".join(words[:end]), *_words(" ".join(words[end:]))]
    return [part]


def _is_known(name: str) -> bool:
    return len(name) == 1 or name in _tables().exact or _plain(name) in _tables().loose


def _split(chord: str) -> list[str]:
    if chord == "+":
        return ["+"]
    if chord.endswith("++"):
        return [*(_split(chord[:-2]) if chord != "++" else []), "+"]
    names = [part.strip(" ") or part for part in chord.split("+")]
    if "" in names:
        raise UnknownKey(
            f"A key is missing in {chord!r}.",
            hint="Join keys as in 'ctrl+s'; write plus as 'plus'.",
        )
    return names


def _nearest(plain: str) -> str:
    import difflib  # only for who is wrong

    close = difflib.get_close_matches(plain, list(_tables().loose), n=4, cutoff=0.6)
    if not close:
        return "Name keys as in 'Return', 'ctrl+s', 'Page_Up', 'F5', or give one character."
    return f"Did you mean {', '.join(close)}?"
