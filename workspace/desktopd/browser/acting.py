"""Playing actions on a page, by ref.

Playwright waits until an element can be used (there, still, shown, not covered), scrolls it into
view, and sends its input by CDP: the person who watches sees what comes of it. One that opens a
dialog is over when the dialog is there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from workspace import browsing as b
from workspace.desktopd.browser.reading import present
from workspace.desktopd.browser.tabs import Tab
from workspace.desktopd.programs import resolve
from workspace.errors import CarrelError, DialogOpen, FileMissing, InvalidRequest

_GRACE_SECONDS = 0.5
_CHOOSER_SECONDS = 3.0
_Key = Literal["Control", "Shift", "Alt", "Meta"]
_MODIFIERS: dict[str, _Key] = {
    "ctrl": "Control",
    "shift": "Shift",
    "alt": "Alt",
    "super": "Meta",
}


async def play(tab: Tab, actions: Sequence[b.BrowserAction], home: str, *, seconds: float) -> None:
    """Play them in order.

    Raises:
        StaleRef, NotActionable, DialogOpen, TimedOut, PageFailed, FileMissing, InvalidRequest: of
            the first that fails; ``details`` say which it was, and how many were done.
    """
    for number, action in enumerate(actions):
        try:
            await _play(tab, action, home, seconds)
        except CarrelError as error:
            message = error.message
            if len(actions) > 1:
                message = f"action {number + 1} of {len(actions)} ({action.type}): {message}"
            details = {**error.details, "index": number, "completed": number}
            raise type(error)(message, hint=error.hint, details=details) from error.__cause__


async def _play(tab: Tab, action: b.BrowserAction, home: str, seconds: float) -> None:
    if isinstance(action, b.AnswerDialog):
        return await tab.answer(action)
    if tab.dialog is not None:
        await tab.look_for_dialog()
    work = _work(tab, action, home, seconds)
    limit = 3 * seconds + _GRACE_SECONDS  # a few things with a timeout each
    before = tab.dialog
    try:
        await tab.bounded(
            work, limit, f"{action.type} {getattr(action, 'ref', None) or ''}".strip()
        )
    except DialogOpen:
        if before is not None or tab.dialog is None:
            raise
        # It came of this action: that is what it did.


async def _work(tab: Tab, action: b.BrowserAction, home: str, seconds: float) -> None:
    milliseconds = seconds * 1000
    page = tab.page
    ref = getattr(action, "ref", None)
    if ref is None:
        match action:
            case b.PressRef(key=key):
                await page.keyboard.press(_key(key))
            case b.ScrollRef(dx=dx, dy=dy):
                await page.evaluate("([x, y]) => scrollBy({left: x, top: y})", [dx, dy])
        return
    found = await present(tab, ref, seconds)
    match action:
        case b.ClickRef(button=button, count=count, modifiers=modifiers):
            await found.click(
                button=button,
                click_count=count,
                modifiers=[_MODIFIERS[each] for each in modifiers],
                timeout=milliseconds,
            )
        case b.HoverRef():
            await found.hover(timeout=milliseconds)
        case b.FillRef(text=text, submit=submit):
            await found.fill(text, timeout=milliseconds)
            if submit:
                await found.press("Enter", timeout=milliseconds)
        case b.SelectRef(values=values):
            await found.select_option(values, timeout=milliseconds)
        case b.PressRef(key=key):
            await found.press(_key(key), timeout=milliseconds)
        case b.ScrollRef():
            await found.scroll_into_view_if_needed(timeout=milliseconds)
        case b.UploadRef(paths=paths):
            files = [_file(path, home) for path in paths]
            if await found.evaluate("element => element.type === 'file'", timeout=milliseconds):
                await found.set_input_files(files, timeout=milliseconds)
                return
            async with page.expect_file_chooser(timeout=_CHOOSER_SECONDS * 1000) as choosing:
                await found.click(timeout=milliseconds)
            chooser = await choosing.value
            if len(files) > 1 and not chooser.is_multiple():
                raise InvalidRequest("It takes one file.")
            await chooser.set_files(files, timeout=milliseconds)


def _key(key: str) -> str:
    """A key as Playwright calls it; ``ctrl+a`` is understood too."""
    held, plus, last = key[:-1].rpartition("+")
    if not plus:
        return key
    named = [_MODIFIERS.get(part.lower(), part) for part in held.split("+")]
    return "+".join([*named, last + key[-1]])


def _file(path: str, home: str) -> str:
    full = resolve(path, home)
    if not os.path.isfile(full) or not os.access(full, os.R_OK):
        raise FileMissing(f"There is no file {full} in the desktop that can be read.")
    return full


async def until_calm(tab: Tab, seconds: float) -> None:
    """Return once the page has loaded, if an action has had it navigate; at the latest then."""
    with suppress(Exception):
        await asyncio.wait_for(tab.page.wait_for_load_state("domcontentloaded"), seconds)
