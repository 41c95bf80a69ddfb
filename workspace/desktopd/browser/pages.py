"""The browser of a desktop as one thing: its tabs, and all that is asked of them.

It is attached to when it is first needed: one connection, kept. Only navigating, opening a tab and
loading cookies start a browser; everything else says ``NoBrowser`` where there is none. One that
ends other than by being closed is started once again with the address that was shown, and the next
answer says so; if that one ends too within a minute, the next call says why there is none.

Pages cannot fill a desktop with tabs: beyond :data:`MAX_TABS` a new one is closed again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workspace import actions as a
from workspace import browsing as b
from workspace.desktopd.browser import acting, reading
from workspace.desktopd.browser.chromium import Chromium
from workspace.desktopd.browser.downloads import Downloads
from workspace.desktopd.browser.driver import Attached, Driver
from workspace.desktopd.browser.tabs import Tab, translated
from workspace.desktopd.files import Files
from workspace.desktopd.hands import Hands
from workspace.desktopd.programs import Programs
from workspace.errors import (
    CarrelError,
    Conflict,
    DialogOpen,
    Forbidden,
    InvalidRequest,
    NoBrowser,
    PageFailed,
    ScriptFailed,
    StaleRef,
    TabNotFound,
    TimedOut,
    TooLarge,
    Unavailable,
)

if TYPE_CHECKING:
    from playwright.async_api import Page

    from workspace.desktopd.screen import Screen

logger = logging.getLogger(__name__)

MAX_TABS = 30
MAX_NOTES = 50
MAX_VALUE_BYTES = 4 << 20
MAX_PDF_SECONDS = MAX_PICTURE_SECONDS = 20.0
_AGAIN_SECONDS = 60.0
_CALM_SECONDS = 2.0
_LOOK_SECONDS = 0.3
_STATES = {"commit": "commit", "dom": "domcontentloaded", "load": "load", "idle": "networkidle"}
FOLDER = ".cache/carrel"


class Pages:
    """The browser's tabs. ``folder`` is the daemon's own, for what it runs."""

    def __init__(
        self,
        programs: Programs,
        files: Files,
        hands: Hands,
        folder: str,
        settings: b.BrowserSettings,
        *,
        oom_score_adj: int,
    ) -> None:
        self._home = programs.home
        self._hands = hands
        self._settings = settings
        self._chromium = Chromium(programs)
        self._driver = Driver(
            folder, oom_score_adj=oom_score_adj, artifacts=os.path.join(programs.home, FOLDER)
        )
        self._downloads = Downloads(files, self._note)
        self._attached: Attached | None = None
        self._attaching = asyncio.Lock()
        self._tabs: dict[Page, Tab] = {}
        self._next_tab = 1
        self._current: Tab | None = None
        self._last: Tab | None = None  # the same, though it may be gone
        self._notes: deque[str] = deque(maxlen=MAX_NOTES)
        self._restarted_at = float("-inf")
        self._why_none = ""
        self._is_tracing = False
        self._is_closed = False
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: what they bring is of no use

    async def aclose(self) -> None:
        """Let the browser end in order, so that what it keeps is kept; then the driver."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        self._downloads.close()
        for tab in self._tabs.values():
            tab.close()
        if self._attached is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._attached.cdp.send("Browser.close"), 1.0)
            with suppress(Exception):
                await asyncio.wait_for(self._attached.lost.wait(), 1.0)
        await self._driver.aclose()

    # Navigating, and tabs.

    async def navigate(self, wanted: b.Navigate) -> b.PageState:
        """Go to an address, or in the history; its page as it then is.

        Raises:
            HumanInControl, NoBrowser, TabNotFound, PageFailed, DialogOpen, TimedOut, Unavailable.
        """
        await self._hands.agents_turn()
        if wanted.history is not None:
            tab = await self._tab(wanted.tab)
        elif wanted.new_tab:
            tab = await self._new_tab()
        else:
            tab = await self._tab(wanted.tab, starts=True)
        if tab.is_crashed:
            tab = await self._replace(tab)
        with self._hands.acting():
            status = await self._go(tab, wanted)
        return await tab.state(status=status, notes=self._told())

    async def _go(self, tab: Tab, wanted: b.Navigate) -> int | None:
        page, until, limit = tab.page, _STATES[wanted.until], wanted.seconds * 1000
        options: dict[str, Any] = {"wait_until": until, "timeout": limit}  # Any: Playwright's
        if wanted.url is not None:
            going: Any = page.goto(_address(wanted.url), **options)  # Any: of three kinds
        elif wanted.history == "back":
            going = page.go_back(**options)
        elif wanted.history == "forward":
            going = page.go_forward(**options)
        else:
            going = page.reload(**options)
        what = f"Going to {wanted.url[:200]}" if wanted.url else f"Going {wanted.history}"
        try:
            answer = await tab.bounded(going, wanted.seconds + 1, what)
        except TimedOut as error:
            with suppress(Exception):
                if tab.cdp is not None:
                    await asyncio.wait_for(tab.cdp.send("Page.stopLoading"), 1)
            error.message = f"{what} was not over after {wanted.seconds:g} s; a part may be there."
            raise
        except PageFailed as error:
            if "ERR_ABORTED" in error.message and not tab.is_crashed:  # a file to be saved
                self._note("The address brought no page. If it is a file, see the downloads.")
                return None
            # Its error page comes a moment later, and would break off what is asked next.
            with suppress(Exception):
                await page.wait_for_url("chrome-error://**", wait_until="commit", timeout=1000)
            raise
        return None if answer is None else int(answer.status)

    async def tabs(self) -> b.TabList:
        """The pages that are open."""
        await self._need()
        shown = await self._shown()
        found = [
            b.Tab(
                id=tab.id,
                url=tab.page.url[:4096],
                title=await tab.title(),
                is_shown=tab is shown,
                is_crashed=tab.is_crashed,
            )
            for tab in list(self._tabs.values())
        ]
        return b.TabList(tabs=found, notes=self._told())

    async def change_tab(self, wanted: b.TabChange) -> b.TabList:
        """Open one, show one, or close one. Raises as :meth:`navigate`."""
        await self._hands.agents_turn()
        if wanted.do == "new":
            tab = await self._new_tab()
            if wanted.url is not None:
                await self._go(tab, b.Navigate(url=wanted.url, tab=tab.id))
        elif wanted.do == "switch":
            tab = await self._tab(wanted.tab)
            with suppress(Exception):  # a page that is held up is shown all the same
                await asyncio.wait_for(tab.page.bring_to_front(), 2)
            self._current = tab
        else:
            tab = await self._tab(wanted.tab)
            await self._close_tab(tab)
        return await self.tabs() if self._tabs else b.TabList(tabs=[], notes=self._told())

    async def _close_tab(self, tab: Tab) -> None:
        assert self._attached is not None
        try:
            await asyncio.wait_for(tab.page.close(), 3)
        except Exception as error:
            raise PageFailed(f"Tab {tab.id} does not close: {error}") from error

    # Reading.

    async def read(
        self,
        *,
        tab: str | None = None,
        format: b.ReadFormat = "tree",
        limit: int = b.DEFAULT_CHARS,
        after: int = 0,
        ref: str | None = None,
        find: str | None = None,
        role: str | None = None,
        all: bool = False,
        screen: Screen | None = None,
    ) -> b.PageText:
        """What a page says; with an open dialog only that.

        Raises:
            NoBrowser, TabNotFound, StaleRef, TimedOut, PageFailed.
        """
        began = time.monotonic()
        found = await self._tab(tab)
        try:
            if format == "tree":
                told = await reading.tree(
                    found,
                    await self._window(found, screen),
                    limit=limit,
                    after=after,
                    ref=ref,
                    find=find,
                    role=role,
                    everything=all,
                )
            else:
                told = await reading.text(found, format, limit=limit, after=after, ref=ref)
        except DialogOpen:
            told = b.PageText(tab=found.id, url=found.page.url[:4096], format=format, text="")
        except (StaleRef, TimedOut, PageFailed):
            raise
        except CarrelError as error:
            raise PageFailed(error.message) from error
        return told.model_copy(
            update={
                "dialog": found.dialog,
                "notes": self._told(),
                "elapsed_ms": round((time.monotonic() - began) * 1000, 1),
            }
        )

    async def _window(self, tab: Tab, screen: Screen | None) -> tuple[int, int, int, int] | None:
        """Where the window of a page is on the screen."""
        if screen is None:
            return None
        found = [
            each
            for each in screen.windows.listed()
            if "chrom" in each.window_class.lower() and each.kind == "normal"
        ]
        if len(found) > 1 and tab.cdp is not None:
            with suppress(Exception):
                told = await asyncio.wait_for(tab.cdp.send("Browser.getWindowForTarget"), 0.5)
                box = told["bounds"]
                found.sort(key=lambda it: abs(it.x - box["left"]) + abs(it.y - box["top"]))
        if not found:
            return None
        window = found[0]
        return window.x, window.y, window.width, window.height

    async def log(
        self, *, tab: str | None, kind: b.LogKind, contains: str | None, level: str | None,
        failed: bool, after: int, limit: int,
    ) -> b.LogList:  # fmt: skip
        """Lines of a page's console, or of what it asked for. Raises NoBrowser, TabNotFound."""
        found = await self._tab(tab)
        lines = [
            line
            for line in found.lines
            if line.kind == kind
            and line.id > after
            and (contains is None or contains.lower() in line.text.lower())
            and (level is None or line.level.lower() == level.lower())
            and (not failed or line.level == "error" or (line.where != "" and kind == "network")
                 or (line.status or 0) >= 400)
        ]  # fmt: skip
        lines = lines[:limit] if after else lines[-limit:]
        return b.LogList(lines=lines, after=lines[-1].id if lines else after)

    async def picture(
        self, *, tab: str | None, ref: str | None, full_page: bool, format: str, quality: int
    ) -> bytes:
        """A picture of the page, of all of it, or of one element."""
        found = await self._tab(tab)
        options: dict[str, Any] = {"type": format, "timeout": MAX_PICTURE_SECONDS * 1000}
        if format == "jpeg":
            options["quality"] = quality
        taking: Any  # Any: of two kinds
        if ref is not None:
            taking = (await reading.present(found, ref, 5)).screenshot(**options)
        else:
            taking = found.page.screenshot(full_page=full_page, **options)
        data = await found.bounded(taking, MAX_PICTURE_SECONDS, "The picture")
        return bytes(data)

    async def pdf(self, *, tab: str | None) -> bytes:
        """The page as it is printed."""
        import base64

        found = await self._tab(tab)
        if found.cdp is None:
            raise PageFailed(f"Tab {found.id} cannot be printed.")
        options = {"printBackground": True}
        printing = found.cdp.send("Page.printToPDF", options)
        told = await found.bounded(printing, MAX_PDF_SECONDS, "Printing")
        return base64.b64decode(told["data"])

    # Acting.

    async def act(
        self,
        wanted: b.BrowserActions,
        screen: Screen,
        *,
        settle_ms: int = 0,
        observe: a.Observe = "none",
    ) -> b.Acted:
        """Play actions on a page, and see what came of it on the screen.

        Raises:
            HumanInControl, NoBrowser, TabNotFound; and as :func:`acting.play`.
        """
        tab = await self._tab(wanted.tab)

        async def work() -> None:
            await acting.play(tab, wanted.actions, self._home, seconds=wanted.seconds)
            if tab.dialog is None and not tab.page.is_closed():
                await acting.until_calm(tab, _CALM_SECONDS)

        seen = await screen.around(work, settle_ms=settle_ms, observe=observe, hands=self._hands)
        if tab.page.is_closed():
            self._note(f"Tab {tab.id} was closed by this.")
            state = b.PageState(tab=tab.id, url="", notes=self._told())
        else:
            state = await tab.state(notes=self._told())
        return b.Acted(page=state, observation=seen)

    async def evaluate(self, wanted: b.Evaluate) -> b.Evaluated:
        """
        Raises:
            Forbidden: the template does not permit it. ScriptFailed: it threw.
            HumanInControl, NoBrowser, TabNotFound, StaleRef, DialogOpen, TimedOut, TooLarge.
        """
        if not self._settings.javascript:
            raise Forbidden(
                "This template does not permit JavaScript.",
                hint="It is `browser.javascript` of the template. Read and act by ref instead.",
            )
        await self._hands.agents_turn()
        tab = await self._tab(wanted.tab)
        work: Any  # Any: JSON values
        if wanted.ref is not None:
            work = (await reading.present(tab, wanted.ref, 5)).evaluate(wanted.expression)
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
            value, size = str(value), 0
        if size > MAX_VALUE_BYTES:
            raise TooLarge(f"What it brought is larger than {MAX_VALUE_BYTES} bytes.")
        return b.Evaluated(value=value)

    async def wait(self, wanted: b.WaitPage) -> b.PageState:
        """Return once all that is asked for is so.

        Raises:
            TimedOut: it is not; the message says what. NoBrowser, TabNotFound, DialogOpen.
        """
        tab = await self._tab(wanted.tab)
        deadline = time.monotonic() + wanted.seconds
        for what, work in self._waits(tab, wanted):
            left = max(0.05, deadline - time.monotonic())
            try:
                await tab.bounded(work(left * 1000), left + 0.2, what)
            except TimedOut:
                raise TimedOut(
                    f"{what} was waited for, and is not so after {wanted.seconds:g} s. "
                    f"The page is {tab.page.url[:300]}.",
                    hint="Read the page to see what there is instead.",
                ) from None
        return await tab.state(notes=self._told())

    def _waits(self, tab: Tab, wanted: b.WaitPage) -> list[tuple[str, Any]]:  # Any: of Playwright
        page = tab.page
        found: list[tuple[str, Any]] = []
        if (url := wanted.url) is not None:
            found.append((
                f"An address with {url[:100]!r}",
                lambda left: page.wait_for_url(lambda now: url in now, timeout=left,
                                               wait_until="commit"),
            ))  # fmt: skip
        if wanted.load is not None:
            state: Any = _STATES[wanted.load]  # Any: one of Playwright's words
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

    # Downloads, cookies, traces.

    def downloads(self) -> list[b.Download]:
        return self._downloads.listed()

    async def cancel_download(self, id_: str) -> b.Download:
        """Raises FileMissing: there is no such download."""
        await self._hands.agents_turn()
        return await self._downloads.cancel(id_)

    async def save_state(self) -> b.BrowserState:
        """Cookies and local storage. Raises NoBrowser, TimedOut."""
        attached = await self._need()
        state = await _within(attached.context.storage_state(), 10, "Reading what is stored")
        return b.BrowserState.model_validate(state)

    async def load_state(self, state: b.BrowserState) -> None:
        """Put them in place of those that are there.

        Raises:
            HumanInControl, Unavailable, TimedOut; InvalidRequest: the browser refuses one.
        """
        await self._hands.agents_turn()
        attached = await self._need(starts=True)
        given: Any = state.model_dump()  # Any: Playwright's own type
        try:
            setting = attached.context.set_storage_state(given)
            await _within(setting, 15, "Loading what is stored")
        except TimedOut:
            raise
        except CarrelError as error:
            raise InvalidRequest(f"The browser refuses that: {error.message}") from error

    async def trace(self, wanted: b.TraceChange) -> b.Trace:
        """Begin a trace, or end it and write it. Raises NoBrowser, Conflict, TimedOut."""
        attached = await self._need()
        if (wanted.do == "start") == self._is_tracing:
            raise Conflict(
                "A trace is running." if self._is_tracing else "No trace is running.",
                hint="Start one, then stop it.",
            )
        tracing = attached.context.tracing
        if wanted.do == "start":
            await _within(tracing.start(screenshots=True, snapshots=True), 10, "The trace's start")
            self._is_tracing = True
            return b.Trace(is_running=True)
        self._is_tracing = False
        path = os.path.join(self._home, f"trace-{int(time.time())}.zip")
        await _within(tracing.stop(path=path), 60, "Writing the trace")
        return b.Trace(is_running=False, path=path)

    # Attaching.

    async def _need(self, *, starts: bool = False, url: str = "about:blank") -> Attached:
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
        from workspace.desktopd.browser import chromium

        endpoint = await chromium.endpoint()
        if endpoint is None and not starts:
            raise NoBrowser(self._why_none or "No browser is open in this desktop.")
        if endpoint is None:
            starting = asyncio.ensure_future(self._driver.start())  # while the browser does
            try:
                endpoint, _ = await self._chromium.ready(url)
            finally:
                await asyncio.gather(starting, return_exceptions=True)
        attached = await self._driver.attach(endpoint)
        self._tabs.clear()
        self._current = None
        self._is_tracing = False
        self._why_none = ""
        attached.context.on("page", lambda page: self._on_page(attached, page))
        for page in attached.context.pages:
            self._know(attached, page)
        try:
            await asyncio.wait_for(self._downloads.follow(attached.cdp), 5)
            await asyncio.wait_for(self._sessions(attached), 5)
        except Exception as error:
            logger.warning("The browser is attached to in part: %s", error)
        self._attached = attached
        self._start(self._watch(attached))
        return attached

    async def _sessions(self, attached: Attached) -> None:
        await asyncio.gather(*(self._session(attached, tab) for tab in self._tabs.values()))

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
        self._tabs.clear()
        self._current = None
        if await self._chromium.ended_well():
            self._why_none = "The browser was closed."
            return
        if time.monotonic() - self._restarted_at < _AGAIN_SECONDS:
            self._why_none = "The browser ended unexpectedly again, and stays ended."
            return
        self._restarted_at = time.monotonic()
        self._note("The browser had ended unexpectedly and was started again.")
        try:
            await self._need(starts=True, url=last)
        except CarrelError as error:
            self._why_none = f"The browser ended unexpectedly. {error}"

    def _on_page(self, attached: Attached, page: Page) -> None:
        if len(self._tabs) >= MAX_TABS:
            self._note(f"A page opened more than {MAX_TABS} tabs: the new ones are closed.")
            self._start(_closed(page))
            return
        tab = self._know(attached, page)
        self._note(f"Tab {tab.id} was opened.")
        self._start(self._session(attached, tab))

    def _know(self, attached: Attached, page: Page) -> Tab:
        tab = Tab(f"t{self._next_tab}", page, attached.engine, self._note)
        self._next_tab += 1
        self._tabs[page] = tab
        page.on("close", self._on_close)
        return tab

    def _on_close(self, page: Page) -> None:
        tab = self._tabs.pop(page, None)
        if tab is None:
            return
        tab.close()
        if tab is self._current:
            self._current = None

    # Tabs.

    async def _tab(self, id_: str | None, *, starts: bool = False) -> Tab:
        """A tab by its id, or the one that is shown.

        Raises:
            NoBrowser, TabNotFound, Unavailable.
        """
        await self._need(starts=starts)
        if id_ is not None:
            found = next((tab for tab in self._tabs.values() if tab.id == id_), None)
            if found is None:
                known = ", ".join(tab.id for tab in self._tabs.values())
                raise TabNotFound(f"There is no tab {id_}. There are: {known or 'none'}.")
            return found
        shown = await self._shown()
        if shown is None:
            if not starts:
                raise NoBrowser("No tab is open.")
            shown = await self._new_tab()
        self._current = self._last = shown
        return shown

    async def _shown(self) -> Tab | None:
        """The tab that a person sees: that of before, unless it is hidden and another is not."""
        tabs = list(self._tabs.values())
        if self._current is not None and self._current in tabs:
            tabs.remove(self._current)
            tabs.insert(0, self._current)
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
            return tab is self._current  # it is held up, and still the one that was shown

    async def _new_tab(self) -> Tab:
        attached = await self._need(starts=True)
        if len(self._tabs) >= MAX_TABS:
            raise Conflict(f"There are {MAX_TABS} tabs.", hint="Close some of them.")
        page = await _within(attached.context.new_page(), 10, "A new tab")
        tab = self._tabs.get(page) or self._know(attached, page)
        with suppress(Exception):
            await asyncio.wait_for(self._session(attached, tab), 2)
        self._current = self._last = tab
        return tab

    async def _replace(self, tab: Tab) -> Tab:
        """Another in place of one that has crashed."""
        new = await self._new_tab()
        with suppress(CarrelError):
            await self._close_tab(tab)
        self._note(f"Tab {tab.id} had crashed; {new.id} is in its place.")
        if tab.address.startswith(("http", "file")):
            with suppress(Exception):  # the navigation that follows matters more
                await asyncio.wait_for(new.page.goto(tab.address, wait_until="commit"), 3)
        return new

    # Notes.

    def _note(self, text: str) -> None:
        if not self._notes or self._notes[-1] != text:
            self._notes.append(text)

    def _told(self) -> list[str]:
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


_HAS_TEXT = """([text, isThere]) =>
  (document.body?.innerText ?? '').toLowerCase().includes(text.toLowerCase()) === isThere"""


async def _within(work: Any, seconds: float, what: str) -> Any:  # Any: Playwright's own types
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError as error:
        raise TimedOut(f"{what} was not done after {seconds:g} s.") from error
    except Exception as error:
        raise translated(error, what) from error


async def _closed(page: Page) -> None:
    with suppress(Exception):
        await asyncio.wait_for(page.close(), 3)


def _address(url: str) -> str:
    """An address as it is typed: ``example.org`` is one too."""
    head = url.split("/", 1)[0]
    if "://" in url or url.split(":", 1)[0] in ("about", "data", "file", "blob", "view-source"):
        return url
    is_local = head.split(":")[0] in ("localhost", "127.0.0.1", "[::1]")
    return f"{'http' if is_local else 'https'}://{url}"
