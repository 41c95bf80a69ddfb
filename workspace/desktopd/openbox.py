"""Openbox's settings for the light desktop: its frames, its keys and mouse, and a root menu.

The keys are those of the XFCE desktop; no plain or Ctrl key is taken from the programs, and no
button with a modifier. The menu offers the programs that are installed. Everything is flat: frames
are drawn by every window, and a desktop is seen through compressed pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from html import escape

from workspace.models import Theme

_NAME = "Carrel"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_KEYS: Mapping[str, Sequence[str]] = {
    "A-F4": ("Close",),
    "A-F9": ("Iconify",),
    "A-F10": ("ToggleMaximize",),
    "A-F11": ("ToggleFullscreen",),
    "A-Tab": ("NextWindow",),
    "A-S-Tab": ("PreviousWindow",),
    "A-space": ("ShowMenu client-menu",),
    "C-A-d": ("ToggleShowDesktop",),
    "W-Up": ("Maximize",),
    "W-Down": ("Unmaximize",),
    "W-Left": ("Tile 0",),
    "W-Right": ("Tile -0",),
}
_RAISE = ("Focus", "Raise")
_EDGES: Mapping[str, str] = {
    "Top": "top", "Bottom": "bottom", "Left": "left", "Right": "right",
    "TLCorner": "", "TRCorner": "", "BLCorner": "", "BRCorner": "",
}  # fmt: skip
# Context, button, what it does to it, and what is done.
_MOUSE: Sequence[tuple[str, str, str, Sequence[str]]] = (
    ("Titlebar", "Left", "Press", _RAISE),
    ("Titlebar", "Left", "Drag", ("Move",)),
    ("Titlebar", "Left", "DoubleClick", ("ToggleMaximize",)),
    ("Titlebar", "Right", "Press", (*_RAISE, "ShowMenu client-menu")),
    ("Icon", "Left", "Press", (*_RAISE, "ShowMenu client-menu")),
    ("Client", "Left", "Press", _RAISE),
    ("Client", "Middle", "Press", _RAISE),
    ("Client", "Right", "Press", _RAISE),
    ("Close", "Left", "Press", _RAISE),
    ("Close", "Left", "Click", ("Close",)),
    ("Maximize", "Left", "Press", _RAISE),
    ("Maximize", "Left", "Click", ("ToggleMaximize",)),
    ("Iconify", "Left", "Press", _RAISE),
    ("Iconify", "Left", "Click", ("Iconify",)),
    ("Root", "Left", "Press", ("ShowMenu root-menu",)),
    ("Root", "Right", "Press", ("ShowMenu root-menu",)),
    ("Root", "Middle", "Press", ("ShowMenu client-list-combined-menu",)),
    *((context, "Left", "Press", _RAISE) for context in _EDGES),
    *((context, "Left", "Drag", (f"Resize {edge}".strip(),)) for context, edge in _EDGES.items()),
)
# A title, and the programs that can be meant by it.
_PROGRAMS: Sequence[tuple[str, Sequence[str]]] = (
    ("Terminal", ("xfce4-terminal", "xterm")),
    ("Web browser", ("chromium", "google-chrome", "google-chrome-stable", "firefox")),
    ("Files", ("thunar", "pcmanfm")),
    ("Text editor", ("mousepad", "featherpad")),
    ("Spreadsheet", ("localc",)),
)
# Frame and text of the active window, of the others; menu, text, chosen entry, and the line round.
_COLOURS: Mapping[Theme, Mapping[str, str]] = {
    "light": {
        "active": "#e3e7ea", "title": "#1d2429", "line": "#9aa6ae",
        "inactive": "#f3f5f6", "faint": "#6d777e",
        "menu": "#ffffff", "text": "#1d2429", "disabled": "#8d969c",
        "chosen": "#2f6f95", "over": "#ffffff", "hover": "#c9d2d8", "press": "#aebac2",
    },
    "dark": {
        "active": "#39434b", "title": "#f2f4f5", "line": "#0d1114",
        "inactive": "#262d32", "faint": "#99a3aa",
        "menu": "#262d32", "text": "#e4e7ea", "disabled": "#7b858c",
        "chosen": "#2f6f95", "over": "#ffffff", "hover": "#55626c", "press": "#1d2429",
    },
}  # fmt: skip
_THEME = """\
border.width: 1
window.handle.width: 0
window.client.padding.width: 0
padding.width: 6
padding.height: 4
window.label.text.justify: left
window.active.border.color: {line}
window.inactive.border.color: {line}
window.active.title.separator.color: {line}
window.inactive.title.separator.color: {line}
window.active.title.bg: flat solid
window.active.title.bg.color: {active}
window.inactive.title.bg: flat solid
window.inactive.title.bg.color: {inactive}
window.*.label.bg: parentrelative
window.active.label.text.color: {title}
window.inactive.label.text.color: {faint}
window.*.button.*.bg: parentrelative
window.active.button.*.image.color: {title}
window.inactive.button.*.image.color: {faint}
window.*.button.hover.bg: flat solid
window.*.button.hover.bg.color: {hover}
window.*.button.pressed.bg: flat solid
window.*.button.pressed.bg.color: {press}
window.*.button.disabled.image.color: {disabled}
menu.border.width: 1
menu.border.color: {line}
menu.overlap: 0
menu.title.bg: flat solid
menu.title.bg.color: {active}
menu.title.text.color: {title}
menu.title.text.justify: left
menu.items.bg: flat solid
menu.items.bg.color: {menu}
menu.items.text.color: {text}
menu.items.disabled.text.color: {disabled}
menu.items.active.bg: flat solid
menu.items.active.bg.color: {chosen}
menu.items.active.text.color: {over}
menu.separator.color: {line}
osd.border.width: 1
osd.border.color: {line}
osd.bg: flat solid
osd.bg.color: {active}
osd.label.bg: parentrelative
osd.label.text.color: {title}
osd.hilight.bg: flat solid
osd.hilight.bg.color: {chosen}
osd.unhilight.bg: flat solid
osd.unhilight.bg.color: {press}
"""
# The title bar's buttons; openbox's own are six pixels wide.
_BUTTONS: Mapping[str, Sequence[str]] = {
    "close": (
        "##......##", "###....###", ".###..###.", "..######..", "...####...",
        "...####...", "..######..", ".###..###.", "###....###", "##......##",
    ),
    "max": (
        "##########", "##########", *("#........#",) * 7, "##########",
    ),
    "max_toggled": (
        "..########", "..########", "..#......#", "########.#", "########.#",
        "#......#.#", "#......#.#", "#......###", "#......#..", "########..",
    ),
    "iconify": (*("..........",) * 8, "##########", "##########"),
}  # fmt: skip
_FONTS: Mapping[str, tuple[int, str]] = {
    "ActiveWindow": (10, "Bold"),
    "InactiveWindow": (10, "Bold"),
    "MenuHeader": (10, "Bold"),
    "MenuItem": (10, "Normal"),
    "ActiveOnScreenDisplay": (10, "Bold"),
    "InactiveOnScreenDisplay": (10, "Normal"),
}


def files(theme: Theme) -> dict[str, str]:
    """The settings' files by their paths in the home folder."""
    folder = f".local/share/themes/{_NAME}/openbox-3"
    return {
        ".config/openbox/rc.xml": _settings(),
        ".config/openbox/menu.xml": menu(lambda name: shutil.which(name) is not None),
        f"{folder}/themerc": _THEME.format(**_COLOURS[theme]),
        **{f"{folder}/{name}.xbm": _bitmap(name, rows) for name, rows in _BUTTONS.items()},
    }


def _bitmap(name: str, rows: Sequence[str]) -> str:
    """An X bitmap: each row in whole bytes, its first pixel the lowest bit."""
    width = len(rows[0])
    numbers = [int(row[::-1].replace("#", "1").replace(".", "0"), 2) for row in rows]
    data = b"".join(number.to_bytes((width + 7) // 8, "little") for number in numbers)
    return (
        f"#define {name}_width {width}\n#define {name}_height {len(rows)}\n"
        f"static unsigned char {name}_bits[] = {{\n{', '.join(map(hex, data))}\n}};\n"
    )


def _settings() -> str:
    fonts = "".join(
        f'<font place="{place}"><name>Sans</name><size>{size}</size>'
        f"<weight>{weight}</weight><slant>Normal</slant></font>"
        for place, (size, weight) in _FONTS.items()
    )
    keys = "".join(
        f'<keybind key="{key}">{"".join(map(_action, actions))}</keybind>\n'
        for key, actions in _KEYS.items()
    )
    return (
        f'{_HEAD}<openbox_config xmlns="http://openbox.org/3.4/rc">\n'
        "<focus><focusNew>yes</focusNew><followMouse>no</followMouse></focus>\n"
        "<placement><policy>Smart</policy><center>yes</center></placement>\n"
        f"<theme><name>{_NAME}</name><titleLayout>NLIMC</titleLayout><keepBorder>yes</keepBorder>"
        f"<animateIconify>no</animateIconify>{fonts}</theme>\n"
        "<desktops><number>1</number><popupTime>0</popupTime></desktops>\n"
        "<resize><drawContents>yes</drawContents><popupShow>Never</popupShow></resize>\n"
        # Typing puts characters on spare keys for a moment: none of these is one of them.
        f"<keyboard><rebindOnMappingNotify>no</rebindOnMappingNotify>{keys}</keyboard>\n"
        "<mouse><dragThreshold>4</dragThreshold><doubleClickTime>400</doubleClickTime>"
        "<screenEdgeWarpTime>0</screenEdgeWarpTime>\n"
        f"{_mouse()}</mouse>\n"
        "<menu><file>menu.xml</file><showIcons>no</showIcons></menu>\n"
        "</openbox_config>\n"
    )


def _mouse() -> str:
    contexts: dict[str, str] = {}
    for context, button, how, actions in _MOUSE:
        done = "".join(map(_action, actions))
        bind = f'<mousebind button="{button}" action="{how}">{done}</mousebind>'
        contexts[context] = contexts.get(context, "") + bind
    return "".join(
        f'<context name="{name}">{binds}</context>\n' for name, binds in contexts.items()
    )


def _action(words: str) -> str:
    """An action and its argument, as openbox reads them."""
    name, _, argument = words.partition(" ")
    match name:
        case "ShowMenu":
            return f'<action name="ShowMenu"><menu>{argument}</menu></action>'
        case "Resize" if argument:
            return f'<action name="Resize"><edge>{argument}</edge></action>'
        case "Tile":
            return (
                '<action name="Unmaximize"/><action name="MoveResizeTo">'
                f"<x>{argument}</x><y>0</y><width>50%</width><height>100%</height></action>"
            )
    return f'<action name="{name}"/>'


def menu(is_there: Callable[[str], bool]) -> str:
    """The root menu, with the programs that are there."""
    items = ""
    for title, programs in _PROGRAMS:
        found = next((program for program in programs if is_there(program)), None)
        if found is not None:
            items += (
                f'<item label="{escape(title)}"><action name="Execute">'
                f"<command>{found}</command></action></item>\n"
            )
    return (
        f'{_HEAD}<openbox_menu xmlns="http://openbox.org/3.4/menu">\n'
        f'<menu id="root-menu" label="Desktop">\n{items}<separator/>\n'
        '<menu id="client-list-combined-menu"/>\n</menu>\n</openbox_menu>\n'
    )
