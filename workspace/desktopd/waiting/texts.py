"""Waiting for a text on the screen, by what programs tell assistive ones.

A text that comes is heard of by their events; for one to go, the screen is read again a few times
a second. What could not be read whole in time is no proof that a text is not in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workspace import waits as w
from workspace.elements import ElementTree
from workspace.errors import TimedOut

if TYPE_CHECKING:  # X11 is loaded while the X server starts
    from workspace.desktopd.accessibility.tree import Accessibility

_POLL_SECONDS = 0.25
_READ_SECONDS = 1.0
_MAX_TOLD, _MAX_COMPARED, _MAX_LENGTH = 12, 500, 80


async def appears(accessibility: Accessibility, wanted: w.TextAppears) -> w.Waited:
    """Return once it is shown, with the element that shows it."""
    if not await accessibility.wait_for_text(wanted.text, wanted.seconds):
        there = await accessibility.texts(seconds=_READ_SECONDS)
        raise TimedOut(
            f"The text {_cut(wanted.text)!r} was not shown within {wanted.seconds:g} s.",
            hint=f"Shown are, the most alike first: {_told(wanted.text, there)}. Not every "
            "program tells of its texts: a screenshot shows all.",
        )
    found = await accessibility.find(text=wanted.text, limit=20, seconds=_READ_SECONDS)
    return _at(found)


async def is_gone(accessibility: Accessibility, wanted: w.TextGone) -> w.Waited:
    """Return once it is not shown."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + wanted.seconds
    while True:
        found = await accessibility.find(text=wanted.text, limit=1, seconds=_READ_SECONDS)
        if not found.elements and "seconds" not in found.truncated:
            return w.Waited()
        left = deadline - clock()
        if left <= 0:
            raise TimedOut(
                f"The text {_cut(wanted.text)!r} was still shown after {wanted.seconds:g} s.",
                hint=_still(found),
            )
        await asyncio.sleep(min(left, _POLL_SECONDS))


def _at(found: ElementTree) -> w.Waited:
    """The first that has a place on the screen, if one has."""
    placed = [element for element in found.elements if element.box is not None]
    for element in placed or found.elements:
        said = element.name or element.text or ""
        return w.Waited(element=element.id, text=said[:1000], region=element.box)
    return w.Waited()  # it has gone again


def _still(found: ElementTree) -> str:
    for element in found.elements:
        place = "" if element.box is None else f" at ({element.box.x}, {element.box.y})"
        return f"{element.id} shows it, a {element.role}{place}."
    return "The screen could not be read in time: take a screenshot."


def _told(text: str, there: Sequence[str]) -> str:
    import difflib  # only for who waits in vain

    short = [_cut(each) for each in there[:_MAX_COMPARED]]
    alike = difflib.get_close_matches(_cut(text), short, n=5, cutoff=0.4)
    first = list(dict.fromkeys([*alike, *short]))[:_MAX_TOLD]
    return ", ".join(repr(each) for each in first) or "no texts"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."
