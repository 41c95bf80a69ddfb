"""What is asked of one page beside reading it: scripts, waits, its logs, its picture."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

from workspace import browsing as b
from workspace.desktopd.browser import reading
from workspace.desktopd.browser.tabs import Tab
from workspace.errors import PageFailed, ScriptFailed, TimedOut, TooLarge

MAX_VALUE_BYTES = 4 << 20
PICTURE_SECONDS = PDF_SECONDS = 20.0
_LOOK_SECONDS = 5.0
# The states of loading, as Playwright calls them.
STATES = {"commit": "commit", "dom": "domcontentloaded", "load": "load", "idle": "networkidle"}
_HAS_TEXT = """([text, isThere]) =>
  (document.body?.innerText ?? '').toLowerCase().includes(text.toLowerCase()) === isThere"""


async def evaluate(tab: Tab, wanted: b.Evaluate) -> b.Evaluated:
    """
    Raises:
        ScriptFailed: it threw. StaleRef, DialogOpen, TimedOut, TooLarge.
    """
    work: Any  # Any: JSON values
    if wanted.ref is not None:
        element = await reading.present(tab, wanted.ref, _LOOK_SECONDS)
        work = element.evaluate(wanted.expression)
    else:
        work = tab.page.evaluate(wanted.expression)

    async def run() -> Any:  # Any: as above
        try:
            return await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            text = str(error)
            if "closed" in text or "crashed" in text or "Timeout" in text:
                raise
            raise ScriptFailed(text.partition(": ")[2][:2000] or text[:2000]) from error

    value = await tab.bounded(run(), wanted.seconds, "The script")
    try:
        size = len(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        value, size = str(value)[:MAX_VALUE_BYTES], 0
    if size > MAX_VALUE_BYTES:
        raise TooLarge(f"What it brought is larger than {MAX_VALUE_BYTES} bytes.")
    return b.Evaluated(value=value)


async def wait(tab: Tab, wanted: b.WaitPage) -> None:
    """Return once all that is asked for is so.

    Raises:
        TimedOut: it is not; the message says what. StaleRef, DialogOpen, PageFailed.
    """
    deadline = time.monotonic() + wanted.seconds
    for what, work in _waits(tab, wanted):
        left = max(0.05, deadline - time.monotonic())
        try:
            await tab.bounded(work(left * 1000), left + 0.2, what)
        except TimedOut:
            raise TimedOut(
                f"{what} was waited for, and is not so after {wanted.seconds:g} s. "
                f"The page is {tab.page.url[:300]}.",
                hint="Read the page to see what there is instead.",
            ) from None


def _waits(tab: Tab, wanted: b.WaitPage) -> list[tuple[str, Any]]:  # Any: of Playwright
    page = tab.page
    found: list[tuple[str, Any]] = []
    if (url := wanted.url) is not None:
        found.append((
            f"An address with {url[:100]!r}",
            lambda left: page.wait_for_url(lambda now: url in now, timeout=left,
                                           wait_until="commit"),
        ))  # fmt: skip
    if wanted.load is not None:
        state: Any = STATES[wanted.load]  # Any: one of Playwright's words
        if state != "commit":
            found.append((
                f"The state {wanted.load!r}",
                lambda left: page.wait_for_load_state(state, timeout=left),
            ))  # fmt: skip
    for text, is_there in ((wanted.text, True), (wanted.text_gone, False)):
        if text is not None:
            found.append((
                f"The text {text[:100]!r}{'' if is_there else ' to be gone'}",
                lambda left, text=text, is_there=is_there: page.wait_for_function(
                    _HAS_TEXT, arg=[text, is_there], timeout=left
                ),
            ))  # fmt: skip
    if wanted.ref is not None:
        seen = reading.element(tab, wanted.ref)
        found.append((wanted.ref, lambda left: seen.wait_for(state="visible", timeout=left)))
    if wanted.ref_gone is not None:
        gone = reading.element(tab, wanted.ref_gone)
        found.append((
            f"{wanted.ref_gone} to be gone",
            lambda left: gone.wait_for(state="hidden", timeout=left),
        ))  # fmt: skip
    return found


def log(
    tab: Tab,
    *,
    kind: b.LogKind,
    contains: str | None,
    level: str | None,
    failed: bool,
    after: int,
    limit: int,
) -> b.LogList:
    """Lines of a page's console, or of what it asked for: the first after one, or the last."""

    def fits(line: b.LogLine) -> bool:
        return (
            line.kind == kind
            and line.id > after
            and (contains is None or contains.lower() in line.text.lower())
            and (level is None or line.level.lower() == level.lower())
            and (not failed or _has_failed(line))
        )

    lines = [line for line in tab.lines if fits(line)]
    lines = lines[:limit] if after else lines[-limit:]
    return b.LogList(lines=lines, after=lines[-1].id if lines else after)


def _has_failed(line: b.LogLine) -> bool:
    if line.kind == "console":
        return line.level == "error"
    return line.where != "" or (line.status or 0) >= 400


async def picture(
    tab: Tab, *, ref: str | None, full_page: bool, format: str, quality: int
) -> bytes:
    """A picture of the page, of all of it, or of one element."""
    options: dict[str, Any] = {"type": format, "timeout": PICTURE_SECONDS * 1000}  # Any: its own
    if format == "jpeg":
        options["quality"] = quality
    taking: Any  # Any: of two kinds
    if ref is not None:
        taking = (await reading.present(tab, ref, _LOOK_SECONDS)).screenshot(**options)
    else:
        taking = tab.page.screenshot(full_page=full_page, **options)
    return bytes(await tab.bounded(taking, PICTURE_SECONDS, "The picture"))


async def pdf(tab: Tab) -> bytes:
    """The page as it is printed."""
    if tab.cdp is None:
        raise PageFailed(f"Tab {tab.id} cannot be printed.")
    printing = tab.cdp.send("Page.printToPDF", {"printBackground": True})
    told = await tab.bounded(printing, PDF_SECONDS, "Printing")
    return base64.b64decode(told["data"])
