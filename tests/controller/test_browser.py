"""What the log tells of the browser."""

from __future__ import annotations

import pytest

from controller.routes.browser import _bare, _told
from workspace import browsing as b


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://ada:secret@example.org:8443/a/b?key=1#x", "https://example.org:8443/a/b"),
        ("http://localhost:8000/", "http://localhost:8000/"),
        ("data:text/html,secret", "data:"),
        ("about:blank", "about:blank"),
        ("http://[::1", "?"),
        (None, None),
    ],
)
def test_addresses_are_told_without_what_may_be_secret(url: str | None, told: str | None) -> None:
    assert _bare(url) == told


def test_what_is_typed_is_told_by_its_length() -> None:
    assert _told(b.FillRef(ref="r1", text="secret")) == {"type": "fill", "ref": "r1", "length": 6}
    assert _told(b.PressRef(key="s")) == {"type": "press", "length": 1}
    assert _told(b.PressRef(key="Shift+s")) == {"type": "press", "length": 1}
    assert _told(b.PressRef(key="Control+s")) == {"type": "press", "key": "Control+s"}
    assert _told(b.PressRef(key="Enter")) == {"type": "press", "key": "Enter"}
    assert "secret" not in str(_told(b.AnswerDialog(text="secret")))
