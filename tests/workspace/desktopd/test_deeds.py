"""What a person did, told as actions: tables of messages and what they are."""

from __future__ import annotations

import pytest

from workspace import actions as a
from workspace.control import DEEDS, TypeWithheld
from workspace.desktopd.deeds import MAX_DEEDS, MAX_TEXT, Deeds

SHIFT, CTRL, ALT, SUPER, RETURN, TAB, BACKSPACE = (
    0xFFE1, 0xFFE3, 0xFFE9, 0xFFEB, 0xFF0D, 0xFF09, 0xFF08,
)  # fmt: skip


class Person:
    def __init__(self) -> None:
        self.now = 0.0
        self.deeds = Deeds(lambda: self.now)

    def click(self, x: int, y: int, mask: int = 1) -> None:
        self.deeds.pointer(0, x, y)
        self.deeds.pointer(mask, x, y)
        self.deeds.pointer(0, x, y)

    def press(self, *keysyms: int) -> None:
        for keysym in keysyms:
            self.deeds.key(keysym, True)
        for keysym in reversed(keysyms):
            self.deeds.key(keysym, False)

    def type(self, text: str, *roles: str | None) -> None:
        for number, character in enumerate(text):
            self.press(ord(character) if ord(character) < 256 else 0x01000000 | ord(character))
            if number < len(roles):
                self.judge(roles[number])

    def judge(self, role: str | None) -> None:
        run = self.deeds.unjudged()
        assert run is not None
        run.judge(role, was_closed=run.is_closed)

    def end(self, role: str | None) -> None:
        self.deeds.close()
        self.judge(role)

    @property
    def told(self) -> list[object]:
        return list(self.deeds.told()[0])


@pytest.fixture
def person() -> Person:
    return Person()


def test_clicks(person: Person) -> None:
    person.click(10, 20)
    person.now += 0.2
    person.click(11, 21)
    person.now += 2
    person.click(11, 21)
    person.click(11, 21, mask=4)
    person.click(300, 21, mask=2)
    assert person.told == [
        a.Click(x=10, y=20, count=2),
        a.Click(x=11, y=21),
        a.Click(x=11, y=21, button="right"),
        a.Click(x=300, y=21, button="middle"),
    ]


def test_a_click_with_modifiers_and_no_key_of_theirs(person: Person) -> None:
    person.deeds.key(CTRL, True)
    person.deeds.key(SHIFT, True)
    person.click(5, 6)
    person.deeds.key(SHIFT, False)
    person.deeds.key(CTRL, False)
    assert person.told == [a.Click(x=5, y=6, modifiers=["ctrl", "shift"])]


def test_a_drag_keeps_its_way(person: Person) -> None:
    person.deeds.pointer(1, 10, 10)
    for x in range(11, 2000):
        person.deeds.pointer(1, x, 10)
    person.deeds.pointer(0, 1999, 12)
    (drag,) = person.told
    assert isinstance(drag, a.Drag)
    assert (drag.path[0], drag.path[-1]) == ((10, 10), (1999, 12))
    assert len(drag.path) <= 52


def test_a_trembling_click_is_none(person: Person) -> None:
    person.deeds.pointer(1, 10, 10)
    person.deeds.pointer(1, 12, 11)
    person.deeds.pointer(0, 12, 11)
    assert person.told == [a.Click(x=10, y=10)]


def test_the_wheel_adds_up(person: Person) -> None:
    for _ in range(3):
        person.click(7, 8, mask=1 << 4)
    person.click(7, 8, mask=1 << 3)
    person.click(9, 8, mask=1 << 6)
    assert person.told == [a.Scroll(x=7, y=8, dy=2), a.Scroll(x=9, y=8, dx=1)]


def test_keys_and_chords(person: Person) -> None:
    person.press(CTRL, ord("s"))
    person.press(CTRL, SHIFT, ord("T"))
    person.press(CTRL, SHIFT, ord("+"))
    person.press(ALT, 0xFFC1)
    person.press(RETURN)
    for _ in range(3):
        person.press(BACKSPACE)
    person.press(SUPER)
    person.press(SHIFT)
    person.press(SHIFT, TAB)
    person.press(CTRL, ord(" "))
    person.press(0xABCDEF)
    assert person.told == [
        a.Key(chord="ctrl+s"),
        a.Key(chord="ctrl+shift+t"),
        a.Key(chord="ctrl+plus"),
        a.Key(chord="alt+F4"),
        a.Key(chord="Return"),
        a.Key(chord="BackSpace", repeat=3),
        a.Key(chord="super"),
        a.Key(chord="shift+Tab"),
        a.Key(chord="ctrl+space"),
    ]


def test_text_in_a_plain_field_is_told(person: Person) -> None:
    person.type("Grüße ", "entry")
    person.press(SHIFT, ord("W"))
    person.type("elt 世")
    person.press(RETURN)
    person.judge("document web")
    assert person.told == [a.Type(text="Grüße Welt 世"), a.Key(chord="Return")]


@pytest.mark.parametrize(
    ("roles", "last"),
    [
        (["password text"], "entry"),
        (["terminal"], "terminal"),
        ([None], "entry"),  # nobody could tell
        (["entry", "password text"], "entry"),  # the focus went there by itself
        (["entry"], "password text"),
        ([], "entry"),  # judged only when it was over: it may have been typed elsewhere
    ],
)
def test_what_may_be_a_secret_is_not_told(
    person: Person, roles: list[str | None], last: str
) -> None:
    person.type("hunter2", *roles)
    if not roles:
        assert person.told == [TypeWithheld(length=7)]
        return
    person.end(last)
    assert person.told == [TypeWithheld(length=7)]


def test_until_it_is_judged_it_is_not_told(person: Person) -> None:
    person.type("ada", "entry")
    assert person.told == [TypeWithheld(length=3)]
    person.end(None)
    assert person.told == [a.Type(text="ada")]


def test_a_field_and_then_a_password(person: Person) -> None:
    person.type("ada", "entry")
    person.press(TAB)
    person.type("secret")
    person.judge("entry")  # of the first, told before the keyboard moved
    person.judge("password text")
    person.end("password text")
    assert person.told == [
        a.Type(text="ada"), a.Key(chord="Tab"), TypeWithheld(length=6),
    ]  # fmt: skip


def test_it_is_bounded(person: Person) -> None:
    for number in range(MAX_DEEDS + 50):
        person.click(number % 100 * 10, 5)
    deeds, more = person.deeds.told()
    assert (len(deeds), more) == (MAX_DEEDS, 50)
    person = Person()
    person.type("x" * (MAX_TEXT + 10), "entry")
    person.end("entry")
    deeds, more = person.deeds.told()
    assert more == 10
    assert deeds == [a.Type(text="x" * MAX_TEXT)]
    person = Person()
    for number in range(100_000):
        person.deeds.pointer(1, number % 65536, 65535)
    person.deeds.pointer(0, 0, 0)
    (drag,), _ = person.deeds.told()
    assert DEEDS.validate_json(DEEDS.dump_json([drag])) == [drag]
