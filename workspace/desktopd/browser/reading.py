"""Reading a page: its tree with refs, its text, or the Markdown of its main part."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from workspace import browsing as b
from workspace.desktopd.browser import outline
from workspace.desktopd.browser.outline import Frame as Where
from workspace.desktopd.browser.tabs import Tab
from workspace.errors import PageFailed, StaleRef

if TYPE_CHECKING:
    from playwright.async_api import Frame, Locator

SECONDS = 8.0  # a page of very many elements is laid out first, which takes its time
_FRAME_SECONDS = 1.0
MAX_FRAMES = 10
_MIN_LINE = 6  # characters
_MAX_TOLD = 8 << 20


def element(tab: Tab, ref: str) -> Locator:
    """What acts on the element of a ref."""
    frame, own = tab.place(ref)
    return frame.locator(f"{tab.engine}={own}")


async def present(tab: Tab, ref: str, seconds: float) -> Locator:
    """The same, of one that is there.

    Raises:
        StaleRef: it is not in the page any more, or never was.
    """
    found = element(tab, ref)
    if await tab.bounded(found.count(), seconds, f"Looking for {ref}") == 0:
        raise StaleRef(f"{ref} is not in the page of tab {tab.id} any more.")
    return found


async def ask(engine: str, frame: Frame, asked: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What the walker tells of a frame. Any: JSON, of which nothing is taken for granted."""
    words = quote(json.dumps(asked), safe="")
    # Its own timeout: what Playwright is not told to give up goes on for half a minute.
    text = await frame.locator(f"{engine}=j{words}").text_content(timeout=seconds * 1000)
    if text is None or len(text) > _MAX_TOLD:
        raise PageFailed("The page tells nothing, or too much, of itself.")
    told = json.loads(text)
    if not isinstance(told, dict):
        raise PageFailed("The page tells nothing of itself.")
    return told


async def tree(
    tab: Tab,
    window: tuple[int, int, int, int] | None,
    *,
    limit: int,
    after: int,
    ref: str | None = None,
    find: str | None = None,
    role: str | None = None,
    everything: bool = False,
) -> b.PageText:
    """The elements from the line ``after`` on, in at most ``limit`` characters.

    ``window`` is where the browser's window is, to say where elements are on the screen.

    Raises:
        StaleRef, DialogOpen, TimedOut, PageFailed.
    """
    frame, own = (tab.page.main_frame, None) if ref is None else tab.place(ref)
    asked = {
        "do": "tree",
        "after": after,
        "most": limit // _MIN_LINE,
        "longest": 500,
        "find": find,
        "role": role,
        "all": everything,
        "ref": None if own is None else int(own[1:]),
    }
    told = await tab.bounded(
        ask(tab.engine, frame, asked, SECONDS), SECONDS + 1, "Reading the page"
    )
    if told.get("gone"):
        raise StaleRef(f"{ref} is not in the page of tab {tab.id} any more.")
    where = None
    if window is not None and frame is tab.page.main_frame and _is_view(told.get("view")):
        where = outline.frame_of(window, told["view"])
    prefix = "" if frame is tab.page.main_frame else f"f{tab.number(frame)}"
    lines, counts = await _with_frames(tab, frame, told, where, prefix, asked)
    fits = outline.fitting(lines, limit)
    next_ = told.get("next") if isinstance(told.get("next"), int) else None
    if fits < len(lines):
        next_ = after + sum(counts[:fits])
    return b.PageText(
        tab=tab.id,
        url=str(told.get("url", ""))[:4096],
        title=str(told.get("title", ""))[:300],
        text="\n".join(lines[:fits]),
        next=next_,
        is_cut=bool(told.get("cut")),
    )


async def _with_frames(
    tab: Tab,
    frame: Frame,
    told: dict[str, Any],  # Any: what the walker told
    where: Where | None,
    prefix: str,
    asked: dict[str, Any],  # Any: what it was asked
) -> tuple[list[str], list[int]]:
    """The lines, each frame's after the frame; and how many of the page's own each stands for.

    What is in frames counts for nothing there: it comes whole with its frame, cut short if it is
    long, and is read on by the frame's own ref.
    """
    lines: list[str] = []
    counts: list[int] = []
    inner = {} if asked["find"] or asked["role"] else await _frames_by_box(frame)
    own = told.get("lines")
    for each in own if isinstance(own, list) else []:
        line = outline.line_of(each, where, prefix, 0)
        if line is None:
            continue
        lines.append(line)
        counts.append(1)
        if each[2] != "frame" or not outline.is_box(each[6]):
            continue
        child = inner.get((each[6][0], each[6][1]))
        if child is None:
            continue
        number = tab.number(child)
        with suppress(Exception):  # it may be gone, or held up: the page around it is told
            inside = await asyncio.wait_for(
                ask(
                    tab.engine,
                    child,
                    {**asked, "after": 0, "most": 150, "ref": None},
                    _FRAME_SECONDS,
                ),
                _FRAME_SECONDS + 0.2,
            )
            placed = None if where is None else where.within(each[6])
            more = outline.lines_of(inside.get("lines", []), placed, f"f{number}", each[0] + 1)
            lines += more
            counts += [0] * len(more)
    if asked["find"] or asked["role"]:
        for child in frame.child_frames[:MAX_FRAMES]:
            with suppress(Exception):  # as above
                found = await asyncio.wait_for(
                    ask(
                        tab.engine,
                        child,
                        {**asked, "after": 0, "most": 50, "ref": None},
                        _FRAME_SECONDS,
                    ),
                    _FRAME_SECONDS + 0.2,
                )
                more = outline.lines_of(found.get("lines", []), None, f"f{tab.number(child)}")
                lines += more
                counts += [0] * len(more)
    return lines, counts


async def _frames_by_box(frame: Frame) -> dict[tuple[int, int], Frame]:
    """The frames of a page, by where they lie in it."""
    found: dict[tuple[int, int], Frame] = {}
    for child in frame.child_frames[:MAX_FRAMES]:
        with suppress(Exception):  # one that is not laid out, or just went
            holder = await asyncio.wait_for(child.frame_element(), _FRAME_SECONDS)
            box = await asyncio.wait_for(holder.bounding_box(), _FRAME_SECONDS)
            if box is not None:
                found[round(box["x"]), round(box["y"])] = child
    return found


async def text(
    tab: Tab, format: b.ReadFormat, *, limit: int, after: int, ref: str | None
) -> b.PageText:
    """Text or Markdown from the character ``after`` on. Raises like :func:`tree`."""
    frame, own = (tab.page.main_frame, None) if ref is None else tab.place(ref)
    asked = {
        "do": format,
        "after": after,
        "most": limit,
        "ref": None if own is None else int(own[1:]),
    }
    told = await tab.bounded(
        ask(tab.engine, frame, asked, SECONDS), SECONDS + 1, "Reading the page"
    )
    if told.get("gone"):
        raise StaleRef(f"{ref} is not in the page of tab {tab.id} any more.")
    return b.PageText(
        tab=tab.id,
        url=str(told.get("url", ""))[:4096],
        title=str(told.get("title", ""))[:300],
        format=format,
        text=str(told.get("text", ""))[:limit],
        next=told.get("next") if isinstance(told.get("next"), int) else None,
        is_cut=bool(told.get("cut")),
    )


def _is_view(view: object) -> bool:
    return (
        isinstance(view, list)
        and len(view) == 3
        and all(isinstance(each, int | float) and each > 0 for each in view)
    )
