from __future__ import annotations

import pytest

from workspace.desktopd.x11.keys import keysym_of, parse_chord, parse_chords
from workspace.errors import UnknownKey

CTRL, SHIFT, ALT, SUPER = 0xFFE3, 0xFFE1, 0xFFE9, 0xFFEB


@pytest.mark.parametrize(
    ("names", "keysym"),
    [
        ("Return enter ENTER return ret", 0xFF0D),
        ("Escape esc ESC", 0xFF1B),
        ("Page_Up pageup Prior page_up PAGEUP pgup page-up PageUp", 0xFF55),
        ("Page_Down pagedown Next pgdn PageDown", 0xFF56),
        ("Left left ArrowLeft ARROWLEFT arrow_left leftarrow", 0xFF51),
        ("Home HOME", 0xFF50),
        ("ctrl CTRL control Control_L ctl ControlLeft ctrlleft", CTRL),
        ("ctrlright Control_R ControlRight", 0xFFE4),
        ("shift Shift Shift_L ShiftLeft", SHIFT),
        ("alt option Alt_L AltLeft", ALT),
        ("altgr AltGraph ISO_Level3_Shift", 0xFE03),
        ("super cmd command win meta Super_L windows MetaLeft winleft", SUPER),
        ("Meta_L", 0xFFE7),
        ("print PrintScreen prtscr prtsc print_screen", 0xFF61),
        ("space Space spacebar SPACE", 0x20),
        ("Delete del DEL", 0xFFFF),
        ("Insert ins", 0xFF63),
        ("BackSpace backspace Backspace BACKSPACE", 0xFF08),
        ("Caps_Lock capslock CAPSLOCK CapsLock", 0xFFE5),
        ("Num_Lock numlock", 0xFF7F),
        ("Scroll_Lock scrolllock", 0xFF14),
        ("F1 f1", 0xFFBE),
        ("F24 f24", 0xFFD5),
        ("KP_0 num0 Numpad0 numpad_0", 0xFFB0),
        ("KP_Enter NumpadEnter", 0xFF8D),
        ("KP_Add add NumpadAdd", 0xFFAB),
        ("Menu apps ContextMenu", 0xFF67),
        ("plus", ord("+")),
        ("minus - hyphen", ord("-")),
        ("underscore _", ord("_")),
        ("Slash slash /", ord("/")),
        ("BracketLeft bracketleft [", ord("[")),
        ("Backquote grave `", ord("`")),
        ("Quote apostrophe '", ord("'")),
        ("a KeyA", ord("a")),
        ("A", ord("A")),
        ("7 Digit7", ord("7")),
        ("XF86AudioMute volumemute AudioVolumeMute", 0x1008FF12),
        ("eacute é", 0xE9),
        ("Eacute É", 0xC9),
        ("世", 0x01004E16),
        ("🚀", 0x0101F680),
    ],
)
def test_names(names: str, keysym: int) -> None:
    assert {name: parse_chord(name) for name in names.split()} == {
        name: [keysym] for name in names.split()
    }


@pytest.mark.parametrize(
    ("chord", "keysyms"),
    [
        ("ctrl+shift+t", [CTRL, SHIFT, ord("t")]),
        ("Control+Shift+T", [CTRL, SHIFT, ord("t")]),
        ("CTRL+S", [CTRL, ord("s")]),
        ("shift+A", [SHIFT, ord("A")]),
        ("ctrl++", [CTRL, ord("+")]),
        ("ctrl+plus", [CTRL, ord("+")]),
        ("+", [ord("+")]),
        ("shift++", [SHIFT, ord("+")]),
        ("ctrl+-", [CTRL, ord("-")]),
        ("ctrl + s", [CTRL, ord("s")]),
        (" ", [0x20]),
        ("ctrl+ ", [CTRL, 0x20]),
        ("page down", [0xFF56]),
        ("ctrl+ctrl", [CTRL]),
        ("alt+F4", [ALT, 0xFFC1]),
    ],
)
def test_chords(chord: str, keysyms: list[int]) -> None:
    assert parse_chord(chord) == keysyms


def test_modifiers_of_an_action() -> None:
    assert parse_chords(["ctrl", "Shift", "ctrl"]) == [CTRL, SHIFT]
    assert parse_chords([]) == []


@pytest.mark.parametrize(
    ("chord", "hint"),
    [
        ("entr", "enter"),
        ("ctrl+escpae", "escape"),
        ("ctrl-c", "ctrl"),
        ("pagedwn", "pagedown"),
        ("ctrl+", "plus"),
        ("+a", "plus"),
        ("a+++b", "plus"),
        ("\x07", "Name keys"),
        ("qqqqqqqqqq", "Name keys"),
        ("a+b+c+d+e+f+g+h+i", "at most 8"),
    ],
)
def test_unknown_keys_offer_the_nearest(chord: str, hint: str) -> None:
    with pytest.raises(UnknownKey) as caught:
        parse_chord(chord)
    assert hint in caught.value.hint


def test_keysyms_of_characters() -> None:
    assert [keysym_of(c) for c in "\n\ta~ÿĀ"] == [0xFF0D, 0xFF09, 0x61, 0x7E, 0xFF, 0x01000100]
