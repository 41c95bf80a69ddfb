"""Text as keys: what is typed, what is refused, and whatever the keyboard is like meanwhile."""

from __future__ import annotations

import pytest

from workspace.desktopd.x11.typing import check, parts
from workspace.errors import UntypableText


def test_text_is_split_by_what_spare_keys_hold() -> None:
    text = [ord(c) for c in "aXbYcXZaWX"]
    fixed = {ord(c) for c in "abc"}
    split = list(parts(text, fixed, 2))
    assert ["".join(map(chr, part)) for part in split] == ["aXbYcX", "ZaW", "X"]
    assert list(parts([], fixed, 2)) == []


@pytest.mark.parametrize(("text", "named"), [("ab\x1b", "U+001B"), ("\0", "U+0000")])
def test_control_characters_are_untypable(text: str, named: str) -> None:
    with pytest.raises(UntypableText) as caught:
        check(text)
    assert f"Character {len(text)} of the text is {named}" in str(caught.value)
