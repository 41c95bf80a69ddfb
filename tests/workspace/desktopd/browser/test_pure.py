"""What of the browser needs none."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest
from pydantic import ValidationError

from workspace import browsing as b
from workspace import errors
from workspace.desktopd.browser import outline
from workspace.desktopd.browser.acting import _key
from workspace.desktopd.browser.chromium import FLAGS, endpoint_of
from workspace.desktopd.browser.pages import Pages, _address
from workspace.desktopd.browser.tabs import translated
from workspace.desktopd.files import Files
from workspace.desktopd.hands import Hands
from workspace.desktopd.programs import Programs


def test_where_a_page_is_in_its_window() -> None:
    # 1280 wide, 85 pixels of tabs and address above the page.
    where = outline.frame_of((0, 30, 1280, 770), [1280, 685, 1])
    assert (where.x, where.y) == (0, 115)
    assert where.point([10, 20, 100, 40]) == (60, 155)
    assert where.point([0, 700, 10, 10]) is None
    # Borders of 4 pixels, zoomed to 200 %.
    zoomed = outline.frame_of((100, 50, 808, 600), [400, 250, 2])
    assert (zoomed.x, zoomed.y, zoomed.scale) == (104, 146, 2)
    assert zoomed.point([10, 10, 10, 10]) == (134, 176)
    inner = zoomed.within([100, 50, 80, 60])
    assert inner.point([0, 0, 10, 10]) == (314, 256)
    assert inner.point([79, 0, 10, 10]) is None  # scrolled out of its frame


LINES = [
    [0, 1, "button", "Go", "disabled", None, [0, 0, 10, 10]],
    [1, 0, "text", 'a "b"\n[r9] button', "", None, None],
    [0, 2, "combobox", "C", "", "x", [0, 900, 10, 10], ["x", "y"]],
]


def test_lines() -> None:
    where = outline.frame_of((0, 0, 100, 100), [100, 100, 1])
    assert outline.lines_of(LINES, where, "f2") == [
        '[f2r1] button "Go" (disabled) at 5,5',
        '  text "a \\"b\\"\\n[r9] button"',
        '[f2r2] combobox "C" value="x" options="x", "y" below',
    ]
    assert outline.lines_of(LINES, None)[0] == '[r1] button "Go" (disabled)'


@pytest.mark.parametrize(
    "told",
    [
        None,
        5,
        [],
        ["a"] * 7,
        [0, "r1", "a", "", "", None, None],
        {"depth": 0},
        [0, 1, 2, "", "", 0],
    ],
)
def test_what_a_page_may_tell_that_is_no_line(told: object) -> None:
    assert outline.lines_of([told], None) == []


def test_what_has_room() -> None:
    assert outline.fitting(["abc", "abc", "abc"], 8) == 2
    assert outline.fitting(["abc" * 100], 8) == 1
    assert outline.fitting([], 8) == 0


def test_only_this_ports_own_endpoint_is_taken() -> None:
    def answer(url: object, status: str = "200 OK") -> bytes:
        return f"HTTP/1.1 {status}\r\n\r\n{json.dumps({'webSocketDebuggerUrl': url})}".encode()

    own = "ws://127.0.0.1:9222/devtools/browser/1"
    assert endpoint_of(answer(own)) == own
    for other in ("ws://10.0.0.1:9222/devtools/browser/1", "ws://127.0.0.1:80/x", 5, None, ""):
        assert endpoint_of(answer(other)) is None
    for wrong in (answer(own, "500 No"), b"", b"HTTP/1.1 200 OK\r\n\r\n[]", b"\r\n\r\n{"):
        assert endpoint_of(wrong) is None
    assert not [flag for flag in FLAGS if "sandbox" in flag or " " in flag]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Page.goto: net::ERR_NAME_NOT_RESOLVED at http://a/", errors.PageFailed),
        ("Locator.click: x\n - <div> intercepts pointer events", errors.NotActionable),
        ("Locator.click: x\n  - element is not visible", errors.NotActionable),
        ("Page.evaluate: Target page, context or browser has been closed", errors.PageFailed),
        ("Page.evaluate: Page crashed", errors.PageFailed),
        ("anything else", errors.NotActionable),
    ],
)
def test_what_playwright_says_is_told_as_ours(said: str, kind: type[Exception]) -> None:
    assert type(translated(Exception(said), "It")) is kind


def test_keys_and_addresses() -> None:
    assert [_key(each) for each in ("Enter", "ctrl+a", "+", "ctrl++", "Control+Shift+T")] == [
        *("Enter", "Control+a", "+", "Control++", "Control+Shift+T")
    ]
    assert [_address(each) for each in ("example.org/a", "localhost:8000", "about:blank")] == [
        *("https://example.org/a", "http://localhost:8000", "about:blank")
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"url": "http://a/", "history": "back"},
        {"url": "JavaScript:alert(1)"},
        {"url": "http://a/\n"},
        {"history": "back", "new_tab": True},
        {"url": "http://a/", "tab": "1"},
        {"url": "http://a/", "seconds": 1000},
    ],
)
def test_navigations_that_are_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        b.Navigate.model_validate(wanted)


@pytest.mark.parametrize("ref", ["e1", "r0", "r", "f0r1", "r1r2", "r12345678901", "f1000r1"])
def test_refs_that_are_none(ref: str) -> None:
    with pytest.raises(ValidationError):
        b.ClickRef(ref=ref)


@pytest.mark.anyio
async def test_javascript_is_the_templates_to_permit() -> None:
    home = SimpleNamespace(home="/nowhere", environment={})
    pages = Pages(
        cast(Programs, home),
        Files("/nowhere"),
        Hands(),
        "/nowhere",
        b.BrowserSettings(javascript=False),
        oom_score_adj=500,
    )
    with pytest.raises(errors.Forbidden, match="does not permit JavaScript"):
        await pages.evaluate(b.Evaluate(expression="1"))
