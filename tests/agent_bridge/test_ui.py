"""The tool that reads the screen by accessibility, and acting on what it told."""

from __future__ import annotations

import base64
import io

import pytest
from mcp import Client
from PIL import Image as Pillow

from tests.agent_bridge.conftest import pictures_of, text_of
from tests.agent_bridge.fake import FakeController
from tests.agent_bridge.test_windows import on
from workspace import actions as a
from workspace.elements import Element

pytestmark = pytest.mark.anyio


def _button(number: int) -> Element:
    box = a.Region(x=20, y=20 * number, width=100, height=30)
    return Element(id=f"e{number}", role="button", name=f"Press {number}", box=box, depth=1)


async def test_a_tree_is_read_and_its_elements_acted_on(
    client: Client, controller: FakeController
) -> None:
    call, desktop = await on(client, controller, "desktop")
    assert "no program says" in text_of(await call("ui_tree"))
    desktop.elements = [_button(1), _button(2)]
    told = '  [e1] button "Press 1" at 70,35\n  [e2] button "Press 2" at 70,55'
    assert text_of(await call("ui_tree")) == told
    assert text_of(await call("ui_tree", name="2")) == told.split("\n")[1]
    assert "No element" in text_of(await call("ui_tree", name="3"))

    done = await call("computer", action="click", element="e2", screenshot="none")
    assert "click e2" in text_of(done)
    await call("computer", action="set_value", element="e1", value="new", screenshot="none")
    assert desktop.actions == [a.Click(element="e2"), a.SetValue(element="e1", value="new")]
    for arguments in ({"element": "12"}, {"element": "e2", "x": 1, "y": 2}):
        refused = await call("computer", action="click", **arguments)
        assert refused.is_error
        assert "invalid_request" in text_of(refused)


async def test_marks_and_places_are_in_the_pixels_of_the_picture(
    client: Client, controller: FakeController
) -> None:
    call, desktop = await on(client, controller, "large")  # 3840 pixels wide, shown as 1920
    desktop.elements = [_button(1)]
    assert "at 35,17" in text_of(await call("ui_tree"))
    marked = await call("ui_tree", marks=True)
    assert "[e1]" in text_of(marked)
    data = base64.b64decode(pictures_of(marked)[0].data)
    assert Pillow.open(io.BytesIO(data)).size == (1920, 1080)


async def test_a_long_tree_is_cut_and_says_so(client: Client, controller: FakeController) -> None:
    call, desktop = await on(client, controller, "desktop")
    desktop.elements = [_button(number) for number in range(1, 1500)]
    told = text_of(await call("ui_tree"))
    assert len(told) < 25_000
    assert "narrow it down" in told
