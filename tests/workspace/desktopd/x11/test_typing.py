"""Text as keys: what is typed, what is refused, and whatever the keyboard is like meanwhile."""

from __future__ import annotations

import pytest

from workspace.desktopd.x11.typing import keysyms_of, parts
from workspace.errors import UntypableText


def test_text_is_split_by_what_spare_keys_hold() -> None:
    text = [ord(c) for c in "aXbYcXZaWX"]
    fixed = {ord(c) for c in "abc"}
    split = list(parts(text, fixed, 2))
    assert ["".join(map(chr, part)) for part in split] == ["aXbYcX", "ZaW", "X"]
    assert list(parts([], fixed, 2)) == []


def test_line_ends_are_return() -> None:
    assert keysyms_of("a\r\nb\rc\nd\t") == [
        *(0x61, 0xFF0D, 0x62, 0xFF0D, 0x63, 0xFF0D, 0x64, 0xFF09),
    ]


@pytest.mark.parametrize(("text", "named"), [("ab\x1b", "U+001B"), ("\0", "U+0000")])
def test_control_characters_are_untypable(text: str, named: str) -> None:
    with pytest.raises(UntypableText) as caught:
        keysyms_of(text)
    assert f"Character {len(text)} of the text is {named}" in str(caught.value)
