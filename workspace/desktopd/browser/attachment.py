"""The one connection to the browser: made when it is first needed, kept, and made again.

Who only looks says so: then a browser that is not there is ``NoBrowser``. One that ends other than
by being closed is started once again with the address that was shown, and the next answer says so;
if that one ends too within a minute, the next call says why there is none.

Pages cannot fill a desktop with tabs: beyond :data:`MAX_TABS` a new one is closed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workspace.desktopd.browser import chromium
from workspace.desktopd.browser.chromium import Chromium
from workspace.desktopd.browser.downloads import Downloads
from workspace.desktopd.browser.driver import Attached, Driver
from workspace.desktopd.browser.tabs import Tab, translated
from workspace.desktopd.files import Files
from workspace.desktopd.programs import Programs
from workspace.errors import (
    CarrelError,
    Conflict,
    NoBrowser,
    PageFailed,
    TabNotFound,
    TimedOut,
    Unavailable,
)

if TYPE_CHECKING:
    from playwright.async_api import Page

logger = logging.getLogger(__name__)

MAX_TABS = 30
MAX_NOTES = 50
FOLDER = ".cache/carrel"
_AGAIN_SECONDS = 60.0
_LOOK_SECONDS = 0.3
_END_SECONDS = 1.0


class Attachment:
    """The browser, its tabs, and what happened to them. ``folder`` is the daemon's own."""

    def __init__(
        self, programs: Programs, files: Files, folder: str, *, oom_score_adj: int
    ) -> None:
        self._chromium = Chromium(programs)
        self._driver = Driver(
            folder, oom_score_adj=oom_score_adj, artifacts=os.path.join(programs.home, FOLDER)
        )
        self.downloads = Downloads(files, self.note)
        self._attached: Attached | None = None
        self._attaching = asyncio.Lock()
        self.tabs: dict[Page, Tab] = {}
        self._next_tab = 1
        self.current: Tab | None = None
        self._last: Tab | None = None  # the same, though it may be gone
        self._notes: deque[str] = deque(maxlen=MAX_NOTES)
        self._restarted_at = float("-inf")
        self._why_none = ""
        self.is_tracing = False
        self.has_just_started = False  # and nobody has waited for its first picture yet
        self._is_closed = False
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: what they bring is of no use

    async def aclose(self) -> None:
        """Let the browser end in order, so that what it keeps is kept; then the driver."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        self.downloads.close()
        for tab in self.tabs.values():
            tab.close()
        if self._attached is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._attached.cdp.send("Browser.close"), _END_SECONDS)
            with suppress(Exception):
                await asyncio.wait_for(self._attached.lost.wait(), _END_SECONDS)
        await self._driver.aclose()

    async def need(self, *, starts: bool = False, url: str = "about:blank") -> Attached:
        """The browser.

        Raises:
            NoBrowser: there is none, and this does not start one.
            Unavailable: it does not start, or cannot be attached to.
        """
        if self._attached is not None and not self._attached.lost.is_set():
            return self._attached
        async with self._attaching:
            if self._attached is not None and not self._attached.lost.is_set():
                return self._attached
            if self._is_closed:
                raise Unavailable("The desktop is ending.")
            return await self._attach(starts=starts, url=url)

    async def _attach(self, *, starts: bool, url: str) -> Attached:
        endpoint = await chromium.endpoint()
        if endpoint is None and not starts:
            raise NoBrowser(self._why_none or "No browser is open in this desktop.")
        if endpoint is None:
            starting = asyncio.ensure_future(self._driver.start())  # while the browser does
            self.has_just_started = True
            try:
                endpoint, _ = await self._chromium.ready(url)
            finally:
                await asyncio.gather(starting, return_exceptions=True)
        attached = await self._driver.attach(endpoint)
        self.tabs.clear()
        self.current = None
        self.is_tracing = False
        self._why_none = ""
        attached.context.on("page", lambda page: self._on_page(attached, page))
        for page in attached.context.pages:
            self._know(attached, page)
        try:
            await asyncio.wait_for(self.downloads.follow(attached.cdp), 5)
            await asyncio.wait_for(self._sessions(attached), 5)
        except Exception as error:
            logger.warning("The browser is attached to in part: %s", error)
        self._attached = attached
        self._start(self._watch(attached))
        return attached

    async def _sessions(self, attached: Attached) -> None:
        await asyncio.gather(*(self._session(attached, tab) for tab in self.tabs.values()))

    async def _session(self, attached: Attached, tab: Tab) -> None:
        """What can still stop a script when the page itself does not answer."""
        if tab.cdp is None:
            tab.cdp = await attached.context.new_cdp_session(tab.page)
            tab.cdp.on("Page.javascriptDialogClosed", lambda _: tab.dialog_closed())
            await tab.cdp.send("Page.enable")

    async def _watch(self, attached: Attached) -> None:
        """Wait for the browser's end; start it again if it was not closed."""
        await attached.lost.wait()
        if self._is_closed:
            return
        last = self._last.address if self._last is not None else "about:blank"
        self.tabs.clear()
        self.current = None
        if await self._chromium.ended_well():
            self._why_none = "The browser was closed."
            return
        if time.monotonic() - self._restarted_at < _AGAIN_SECONDS:
            self._why_none = "The browser ended unexpectedly again, and stays ended."
            return
        self._restarted_at = time.monotonic()
        self.note("The browser had ended unexpectedly and was started again.")
        try:
            await self.need(starts=True, url=last)
        except CarrelError as error:
            self._why_none = f"The browser ended unexpectedly. {error}"

    def _on_page(self, attached: Attached, page: Page) -> None:
        if len(self.tabs) >= MAX_TABS:
            self.note(f"A page opened more than {MAX_TABS} tabs: the new ones are closed.")
            self._start(_closed(page))
            return
        tab = self._know(attached, page)
        self.note(f"Tab {tab.id} was opened.")
        self._start(self._session(attached, tab))

    def _know(self, attached: Attached, page: Page) -> Tab:
        tab = Tab(f"t{self._next_tab}", page, attached.engine, self.note)
        self._next_tab += 1
        self.tabs[page] = tab
        page.on("close", self._on_close)
        return tab

    def _on_close(self, page: Page) -> None:
        tab = self.tabs.pop(page, None)
        if tab is None:
            return
        tab.close()
        if tab is self.current:
            self.current = None

    # Tabs.

    async def tab(self, id_: str | None, *, starts: bool = False) -> Tab:
        """A tab by its id, or the one that is shown.

        Raises:
            NoBrowser, TabNotFound, Unavailable.
        """
        await self.need(starts=starts)
        if id_ is not None:
            found = next((tab for tab in self.tabs.values() if tab.id == id_), None)
            if found is None:
                known = ", ".join(tab.id for tab in self.tabs.values())
                raise TabNotFound(f"There is no tab {id_}. There are: {known or 'none'}.")
            return found
        shown = await self.shown()
        if shown is None:
            if not starts:
                raise NoBrowser("No tab is open.")
            shown = await self.new_tab()
        self.current = self._last = shown
        return shown

    async def shown(self) -> Tab | None:
        """The tab that a person sees: that of before, unless it is hidden and another is not."""
        tabs = list(self.tabs.values())
        if self.current is not None and self.current in tabs:
            tabs.remove(self.current)
            tabs.insert(0, self.current)
        for tab in tabs:
            if tab.dialog is not None or await self._is_shown(tab):
                return tab
        return tabs[0] if tabs else None

    async def _is_shown(self, tab: Tab) -> bool:
        if tab.is_crashed:
            return False
        try:
            state = tab.page.evaluate("document.visibilityState")
            return bool(await asyncio.wait_for(state, _LOOK_SECONDS) == "visible")
        except Exception:
            return tab is self.current  # it is held up, and still the one that was shown

    async def new_tab(self) -> Tab:
        attached = await self.need(starts=True)
        if len(self.tabs) >= MAX_TABS:
            raise Conflict(f"There are {MAX_TABS} tabs.", hint="Close some of them.")
        page = await within(attached.context.new_page(), 10, "A new tab")
        tab = self.tabs.get(page) or self._know(attached, page)
        with suppress(Exception):
            await asyncio.wait_for(self._session(attached, tab), 2)
        self.current = self._last = tab
        return tab

    async def replace(self, tab: Tab) -> Tab:
        """Another in place of one that has crashed."""
        new = await self.new_tab()
        with suppress(CarrelError):
            await self.close_tab(tab)
        self.note(f"Tab {tab.id} had crashed; {new.id} is in its place.")
        if tab.address.startswith(("http", "file")):
            with suppress(Exception):  # the navigation that follows matters more
                await asyncio.wait_for(new.page.goto(tab.address, wait_until="commit"), 3)
        return new

    async def close_tab(self, tab: Tab) -> None:
        assert self._attached is not None
        try:
            await asyncio.wait_for(tab.page.close(), 3)
        except Exception as error:
            raise PageFailed(f"Tab {tab.id} does not close: {error}") from error

    # Notes.

    def note(self, text: str) -> None:
        if not self._notes or self._notes[-1] != text:
            self._notes.append(text)

    def told(self) -> list[str]:
        notes = list(self._notes)
        self._notes.clear()
        return notes

    def _start(self, work: Any) -> None:  # Any: a coroutine
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:  # Any: as above
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("Following the browser: %s", error)


async def within(work: Any, seconds: float, what: str) -> Any:  # Any: Playwright's own types
    """What ``work`` brings, or TimedOut, or what Playwright said as an error of ours."""
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError as error:
        raise TimedOut(f"{what} was not done after {seconds:g} s.") from error
    except Exception as error:
        raise translated(error, what) from error


async def _closed(page: Page) -> None:
    with suppress(Exception):
        await asyncio.wait_for(page.close(), 3)
