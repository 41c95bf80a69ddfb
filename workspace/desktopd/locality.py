"""Where a desktop seems to be: its locale, its time zone, its keyboard's layout.

:func:`check` refuses what this machine does not have, and says what there is; backends that know
the desktop's ``/usr`` ask it before they start anything. A locale that is not installed is made
from its source where that is there (``localedef``, about a second), into a folder that ``LOCPATH``
names: ``/usr`` is read-only in a desktop. Only the standard library: it runs before much is loaded.

On failure: ``InvalidRequest``, with what there is; ``StartFailed`` when ``localedef`` or
``setxkbmap`` fails on what was checked.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from workspace.errors import InvalidRequest

ZONES = Path("/usr/share/zoneinfo")
SOURCES = Path("/usr/share/i18n")
LAYOUTS = Path("/usr/share/X11/xkb/rules/base.lst")
PLAIN_LOCALE = "C.UTF-8"  # every C library has it
DEFAULT_KEYBOARD = "us"
_LC_ALL_MASK = 0x1FBF  # locale.h: every category
_SHOWN = 40


class Making(NamedTuple):
    """A locale to be made: the command, and the variables that let programs find it."""

    command: list[str]
    environment: dict[str, str]


def check(*, locale: str, timezone: str | None, keyboard: str) -> None:
    """
    Raises:
        InvalidRequest: this machine does not have one of them.
    """
    if not is_installed(locale):
        _check_source(locale)
    if timezone is not None:
        _check_zone(timezone)
    if keyboard != DEFAULT_KEYBOARD:
        _check_keyboard(keyboard)


def environment(*, locale: str, timezone: str | None) -> dict[str, str]:
    """The variables that programs read them from."""
    return {"LANG": locale} | ({"TZ": timezone} if timezone is not None else {})


# Locales.


def is_installed(locale: str) -> bool:
    """Whether the C library has it."""
    if locale == PLAIN_LOCALE:
        return True
    libc = ctypes.CDLL(None)
    libc.newlocale.restype = ctypes.c_void_p
    libc.newlocale.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    libc.freelocale.argtypes = (ctypes.c_void_p,)
    found = libc.newlocale(_LC_ALL_MASK, locale.encode(), None)
    if found is None:
        return False
    libc.freelocale(found)
    return True


def making(locale: str, folder: str) -> Making | None:
    """How to have the locale made in ``folder``; None for one that is installed."""
    if is_installed(locale):
        return None
    name, _, modifier = locale.partition("@")
    source = name.removesuffix(".UTF-8") + (f"@{modifier}" if modifier else "")
    target = os.path.join(folder, locale)
    command = ["localedef", "--no-archive", "-i", source, "-f", "UTF-8", target]
    return Making(command, {"LOCPATH": folder})


def is_made(locale: str, folder: str) -> bool:
    """Whether the command of :func:`making` did it."""
    return os.path.exists(os.path.join(folder, locale, "LC_CTYPE"))


def _check_source(locale: str) -> None:
    known = {f"{_named(path.name)}" for path in SOURCES.glob("locales/[a-z]*_[A-Z]*")}
    has_charmap = any(SOURCES.glob("charmaps/UTF-8*"))
    if not known or not has_charmap:
        raise InvalidRequest(
            f"The locale {locale} is not installed where the desktop runs, nor is its source.",
            hint="On that machine: apt-get install locales. Without it there is C.UTF-8.",
        )
    if locale not in known:
        raise _unknown("locale", locale, known)


def _named(source: str) -> str:
    name, _, modifier = source.partition("@")
    return f"{name}.UTF-8" + (f"@{modifier}" if modifier else "")


# Time zones.


def _check_zone(timezone: str) -> None:
    try:
        with (ZONES / timezone).open("rb") as file:
            is_zone = file.read(4) == b"TZif"
    except OSError:
        is_zone = False
    if is_zone:
        return
    known = set(_zones())
    if not known:
        raise InvalidRequest(
            "There are no time zones where the desktop runs.",
            hint="On that machine: apt-get install tzdata.",
        )
    raise _unknown("time zone", timezone, known)


def _zones() -> Iterable[str]:
    for folder, folders, files in os.walk(ZONES):
        folders[:] = [name for name in folders if name[:1].isupper()]  # not posix, right
        for name in files:
            if name[:1].isupper() and "." not in name:
                yield os.path.relpath(os.path.join(folder, name), ZONES)


# Keyboards.


def split_keyboard(keyboard: str) -> tuple[str, str]:
    """Layout and variant: ``us(intl)`` is ("us", "intl")."""
    layout, _, variant = keyboard.partition("(")
    return layout, variant.removesuffix(")")


def setting_keyboard(keyboard: str) -> list[str] | None:
    """The command that has the X server use it; None for the one that it starts with."""
    if keyboard == DEFAULT_KEYBOARD:
        return None
    layout, variant = split_keyboard(keyboard)
    return ["setxkbmap", "-layout", layout, *(["-variant", variant] if variant else [])]


def _check_keyboard(keyboard: str) -> None:
    layouts = read_layouts(LAYOUTS)
    layout, variant = split_keyboard(keyboard)
    if not layouts:
        raise InvalidRequest(
            "There are no keyboard layouts where the desktop runs.",
            hint="On that machine: apt-get install xkb-data.",
        )
    if layout not in layouts:
        raise _unknown("keyboard layout", layout, layouts)
    if variant and variant not in layouts[layout]:
        raise _unknown(f"variant of the keyboard layout {layout}", variant, layouts[layout])


def read_layouts(path: Path) -> Mapping[str, set[str]]:
    """Layouts and their variants, from XKB's list of them; empty if there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    layouts: dict[str, set[str]] = {}
    section = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["!"]:
            section = words[1] if len(words) > 1 else ""
        elif section == "layout" and words:
            layouts.setdefault(words[0], set())
        elif section == "variant" and len(words) > 1:  # "intl   us: English (US, intl.)"
            layouts.setdefault(words[1].removesuffix(":"), set()).add(words[0])
    return layouts


def _unknown(kind: str, name: str, known: Iterable[str]) -> InvalidRequest:
    from difflib import get_close_matches  # needed by few

    near = get_close_matches(name, known, n=5, cutoff=0.5)
    if near:
        hint = f"The nearest: {', '.join(near)}."
    else:
        ordered = sorted(known)
        more = f", and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
        hint = f"There are: {', '.join(ordered[:_SHOWN])}{more}." if ordered else "There is none."
    return InvalidRequest(f"There is no {kind} {name!r}.", hint=hint)
