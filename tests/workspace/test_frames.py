from __future__ import annotations

import pytest

from workspace import frames
from workspace.actions import Image


@pytest.mark.parametrize(
    ("since", "tag", "expected"),
    [
        ("a-1", None, "a-1"), ("a-1", '"b-2"', "a-1"), (None, '"b-2"', "b-2"),
        (None, ' W/"b-2" ', "b-2"), (None, None, None), (None, "", None), (None, "*", None),
        (None, '"', None), (None, '""', None), (None, "b-2", None), (None, '"a", "b"', None),
        (None, f'"{"x" * 65}"', None), (None, '"a\r\nb"', None), (None, '"é"', None),
    ],
)  # fmt: skip
def test_the_frame_that_the_asker_has(
    since: str | None, tag: str | None, expected: str | None
) -> None:
    given = {} if tag is None else {"if-none-match": tag}
    assert frames.known(since, given) == expected


def test_a_picture_there_and_back() -> None:
    sent = Image.model_construct(format="png", width=3, height=40, data=b"pixels", frame="a-1")
    assert frames.image("png", frames.headers(sent), b"pixels") == sent
    nameless = sent.model_copy(update={"frame": None})
    assert frames.headers(nameless) == {"X-Carrel-Size": "3x40"}
    assert frames.image("png", frames.headers(nameless), b"pixels") == nameless


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Carrel-Size": "3"}, {"X-Carrel-Size": "3x-4"}, {"X-Carrel-Size": "999999x1"},
     {"X-Carrel-Size": "3x4", "X-Carrel-Frame": ""},
     {"X-Carrel-Size": "3x4", "X-Carrel-Frame": "x" * 65},
     {"X-Carrel-Size": "3x4", "X-Carrel-Frame": 'a"b'}],
)  # fmt: skip
def test_what_no_desktop_says(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="headers"):
        frames.image("png", headers, b"")
