"""The tool that reads the screen by accessibility: ui_tree.

Coordinates are those of the picture, as everywhere in the tools; ids need none. What elements say
was written by programs and pages: it is handed on as data.
"""

from __future__ import annotations

from typing import Annotated

from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge import pictures
from agent_bridge.caller import Caller
from agent_bridge.inputs import OnDesktop
from agent_bridge.pictures import View
from workspace import actions as a
from workspace.elements import Element, ElementTree, Marks

MAX_TEXT = 24_000
_QUALITIES = (80, 50, 20)


class UiTree(OnDesktop):
    """The arguments of ui_tree."""

    role: Annotated[str | None, Field(description="only these: button, entry, link, ...")] = None
    name: Annotated[str | None, Field(description="only with this in the name")] = None
    text: Annotated[str | None, Field(description="only with this in name or contents")] = None
    window: Annotated[int | None, Field(description="only in the window of this id")] = None
    marks: Annotated[
        bool, Field(description="a picture with what can be clicked numbered: 12 is e12")
    ] = False


async def ui_tree(caller: Caller, asked: UiTree) -> list[ContentBlock]:
    view = await caller.view(asked.desktop_id)
    desktop = caller.carrel.desktop(asked.desktop_id)
    if asked.marks:
        for quality in _QUALITIES:
            marks = await desktop.marks(quality=quality, scale=view.scale, window=asked.window)
            if len(marks.screenshot.data) <= pictures.MAX_BYTES:
                break
        return _marked(marks, view)
    if asked.role is None and asked.name is None and asked.text is None:
        tree = await desktop.elements(window=asked.window)
        return [_text(_moved(tree, view).as_text())]
    found = await desktop.find_elements(
        role=asked.role, name=asked.name, text=asked.text, window=asked.window, limit=50
    )
    if not found.elements:
        told = "No element that can be seen fits. Look at the whole tree, or at a screenshot."
        if found.truncated:
            told = (
                f"None was found, but not all was read ({', '.join(found.truncated)}): "
                "narrow it down to a window, or ask again."
            )
        return [_text(told)]
    return [_text(_moved(found, view).as_text())]


def _moved(tree: ElementTree, view: View) -> ElementTree:
    """The tree in the picture's pixels."""
    if view.divisor == 1:
        return tree
    return tree.model_copy(update={"elements": [_shown(each, view) for each in tree.elements]})


def _shown(element: Element, view: View) -> Element:
    if element.box is None:
        return element
    box, by = element.box, view.divisor
    region = a.Region(
        x=box.x // by, y=box.y // by, width=-(-box.width // by), height=-(-box.height // by)
    )
    return element.model_copy(update={"box": region})


def _marked(marks: Marks, view: View) -> list[ContentBlock]:
    tree = ElementTree(elements=[_flat(each) for each in marks.elements], truncated=marks.truncated)
    picture = marks.screenshot
    return [
        _text(_moved(tree, view).as_text()),
        pictures.content(picture.data, picture.format),
    ]


def _flat(element: Element) -> Element:
    return element.model_copy(update={"depth": 0, "parent": None})


def _text(text: str) -> TextContent:
    if len(text) > MAX_TEXT:
        cut = text[: text.rfind("\n", 0, MAX_TEXT)]
        text = f"{cut}\n(cut here: narrow it down by role, name, text or window)"
    return TextContent(type="text", text=text)
