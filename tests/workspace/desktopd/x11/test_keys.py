from __future__ import annotations

import pytest

from workspace.desktopd.x11.keys import canonical, keysym_of, parse_chord, parse_chords
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
        ("ctrlright Control_R ControlRight RightControl ctrl_r", 0xFFE4),
        ("super_right RightCmd cmd_r MetaRight", 0xFFEC),
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
        ("XF86AudioMute volumemute AudioVolumeMute AudioMute media_volume_mute", 0x1008FF12),
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


# All that each dialect calls a key, beside single characters.
DIALECTS = {
    # Of its list not `accept` and `final`: X11 has no such keys.
    "pyautogui": """add alt altleft altright apps backspace browserback browserfavorites
        browserforward browserhome browserrefresh browsersearch browserstop capslock clear convert
        ctrl ctrlleft ctrlright decimal del delete divide down end enter esc escape execute fn
        hanguel hangul hanja help home insert junja kana kanji launchapp1 launchapp2 launchmail
        launchmediaselect left modechange multiply nexttrack nonconvert numlock pagedown pageup
        pause pgdn pgup playpause prevtrack print printscreen prntscrn prtsc prtscr return right
        scrolllock select separator shift shiftleft shiftright sleep space stop subtract tab up
        volumedown volumemute volumeup win winleft winright yen command option optionleft
        optionright""".split()
    + [f"f{n}" for n in range(1, 25)]
    + [f"num{n}" for n in range(10)],
    "playwright": """Escape Backquote Minus Equal Backslash Backspace Tab BracketLeft BracketRight
        CapsLock Semicolon Quote Enter ShiftLeft Comma Period Slash ShiftRight ControlLeft MetaLeft
        AltLeft Space AltRight AltGraph MetaRight ContextMenu ControlRight PrintScreen ScrollLock
        Pause PageUp PageDown Insert Delete Home End ArrowLeft ArrowUp ArrowRight ArrowDown
        AudioVolumeMute AudioVolumeDown AudioVolumeUp MediaTrackNext MediaTrackPrevious
        MediaPlayPause NumLock NumpadDivide NumpadMultiply NumpadSubtract NumpadAdd NumpadDecimal
        NumpadEnter Shift Control Meta Alt Clear ControlOrMeta""".split()
    + [f"F{n}" for n in range(1, 13)]
    + [f"{kind}{n}" for kind in ("Digit", "Numpad") for n in range(10)]
    + [f"Key{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"],
    "openai": """ALT ARROWDOWN ARROWLEFT ARROWRIGHT ARROWUP BACKSPACE CAPSLOCK CMD COMMAND CONTROL
        CTRL DEL DELETE DOWN END ENTER ESC ESCAPE HOME INSERT LEFT META MINUS OPTION PAGEDOWN
        PAGEUP PGDN PGUP PLUS RETURN RIGHT SHIFT SPACE SUPER TAB UP WIN F1 F12""".split(),
    "gemini": """backspace tab return enter shift control alt escape space pageup pagedown end home
        left up right down insert delete semicolon equals multiply add separator subtract decimal
        divide command option windows""".split(),
    "ui-tars": """ctrl alt shift enter esc space tab backspace delete up down left right arrowup
        arrowdown arrowleft arrowright home end pageup pagedown page_up insert win cmd""".split(),
    "e2b": """alt alt_left alt_right backspace break caps_lock cmd command control control_left
        control_right ctrl del delete down end enter esc escape home insert left menu meta num_lock
        page_down page_up pause print right scroll_lock shift shift_left shift_right space super
        super_left super_right tab up win windows""".split(),
    "pynput": """alt alt_l alt_r alt_gr backspace caps_lock cmd cmd_l cmd_r ctrl ctrl_l ctrl_r
        delete down end enter esc home left page_down page_up right shift shift_l shift_r space tab
        up media_play_pause media_volume_mute media_volume_down media_volume_up media_previous
        media_next insert menu num_lock pause print_screen scroll_lock""".split(),
    "nut": """LeftControl RightControl LeftAlt RightAlt LeftShift RightShift LeftSuper RightSuper
        LeftCmd RightCmd LeftWin RightWin NumPad0 NumPadDecimal Grave AudioVolUp AudioVolDown
        AudioMute AudioPlay AudioNext AudioPrev AudioStop AudioPause Num0 Fn Clear""".split(),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_name_of_a_dialect_is_one_key(dialect: str) -> None:
    assert [name for name in DIALECTS[dialect] if len(parse_chord(name)) != 1] == []


@pytest.mark.parametrize(
    ("keysym", "character"),
    [
        *((0x06C6, "ф"), (0x06E6, "Ф"), (0x06A7, "ї"), (0x07E2, "β"), (0x07D9, "Ω")),
        *((0x07F2, "\u03c3"), (0x07F3, "ς"), (0x0CE0, "א"), (0x05C8, "ب"), (0x01B1, "ą")),
        *((0x0DA1, "ก"), (0x20AC, "€"), (0xE9, "é")),
    ],
)
def test_keysyms_of_before_unicode(keysym: int, character: str) -> None:
    assert canonical(keysym) == keysym_of(character)


@pytest.mark.parametrize("keysym", [0xFF0D, 0x07B6, 0x06A1, 0xFE51, 0x1008FF11, 0x01000430])
def test_other_keysyms_are_left_alone(keysym: int) -> None:
    assert canonical(keysym) == keysym


@pytest.mark.parametrize(
    ("chord", "keysyms"),
    [
        ("ctrl+shift+t", [CTRL, SHIFT, ord("t")]),
        ("ctrl c", [CTRL, ord("c")]),
        ("ctrl shift page down", [CTRL, SHIFT, 0xFF56]),
        ("left control a", [CTRL, ord("a")]),
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
        ("ctrl escpae", "escape"),
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
