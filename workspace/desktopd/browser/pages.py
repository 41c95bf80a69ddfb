"""The browser of a desktop as one thing: what the routes call.

Navigating, opening a tab and loading cookies start a browser; all else is of one that is there.
Reading goes on while a person has control; what changes something waits for the agent's turn.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workspace import actions as a
from workspace import browsing as b
from workspace.desktopd.browser import acting, asking, reading
from workspace.desktopd.browser.attachment import Attachment, within
from workspace.desktopd.browser.tabs import Tab
from workspace.desktopd.files import Files
from workspace.desktopd.hands import Hands
from workspace.desktopd.programs import Programs
from workspace.errors import (
    CarrelError,
    Conflict,
    DialogOpen,
    Forbidden,
    InvalidRequest,
    PageFailed,
    StaleRef,
    TimedOut,
)

if TYPE_CHECKING:
    from workspace.desktopd.screen import Screen

_CALM_SECONDS = 2.0
_PAINT_SECONDS = 3.0
_PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


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
        self._opened = Attachment(programs, files, folder, oom_score_adj=oom_score_adj)

    async def aclose(self) -> None:
        await self._opened.aclose()

    # Navigating, and tabs.

    async def navigate(self, wanted: b.Navigate) -> b.PageState:
        """Go to an address, or in the history; its page as it then is.

        Raises:
            HumanInControl, NoBrowser, TabNotFound, PageFailed, DialogOpen, TimedOut, Unavailable.
        """
        await self._hands.agents_turn()
        if wanted.history is not None:
            tab = await self._opened.tab(wanted.tab)
        elif wanted.new_tab:
            tab = await self._opened.new_tab()
        else:
            tab = await self._opened.tab(wanted.tab, starts=True)
        if tab.is_crashed:
            tab = await self._opened.replace(tab)
        with self._hands.acting():
            status = await self._go(tab, wanted)
        if self._opened.has_just_started:
            self._opened.has_just_started = False
            await _painted(tab)
        return await tab.state(status=status, notes=self._opened.told())

    async def _go(self, tab: Tab, wanted: b.Navigate) -> int | None:
        page, until, limit = tab.page, asking.STATES[wanted.until], wanted.seconds * 1000
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
                self._opened.note(
                    "The address brought no page. If it is a file, see the downloads."
                )
                return None
            # Its error page comes a moment later, and would break off what is asked next.
            with suppress(Exception):
                await page.wait_for_url("chrome-error://**", wait_until="commit", timeout=1000)
            raise
        return None if answer is None else int(answer.status)

    async def tabs(self) -> b.TabList:
        """The pages that are open."""
        await self._opened.need()
        shown = await self._opened.shown()
        found = [
            b.Tab(
                id=tab.id,
                url=tab.page.url[:4096],
                title=await tab.title(),
                is_shown=tab is shown,
                is_crashed=tab.is_crashed,
            )
            for tab in list(self._opened.tabs.values())
        ]
        return b.TabList(tabs=found, notes=self._opened.told())

    async def change_tab(self, wanted: b.TabChange) -> b.TabList:
        """Open one, show one, or close one. Raises as :meth:`navigate`."""
        await self._hands.agents_turn()
        if wanted.do == "new":
            tab = await self._opened.new_tab()
            if wanted.url is not None:
                await self._go(tab, b.Navigate(url=wanted.url, tab=tab.id))
        elif wanted.do == "switch":
            tab = await self._opened.tab(wanted.tab)
            with suppress(Exception):  # a page that is held up is shown all the same
                await asyncio.wait_for(tab.page.bring_to_front(), 2)
            self._opened.current = tab
        else:
            tab = await self._opened.tab(wanted.tab)
            await self._opened.close_tab(tab)
        return (
            await self.tabs()
            if self._opened.tabs
            else b.TabList(tabs=[], notes=self._opened.told())
        )

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
        found = await self._opened.tab(tab)
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
                "notes": self._opened.told(),
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
        self,
        *,
        tab: str | None,
        kind: b.LogKind,
        contains: str | None,
        level: str | None,
        failed: bool,
        after: int,
        limit: int,
    ) -> b.LogList:
        """Lines of a page's console, or of what it asked for. Raises NoBrowser, TabNotFound."""
        return asking.log(
            await self._opened.tab(tab),
            kind=kind,
            contains=contains,
            level=level,
            failed=failed,
            after=after,
            limit=limit,
        )

    async def picture(
        self, *, tab: str | None, ref: str | None, full_page: bool, format: str, quality: int
    ) -> bytes:
        """A picture of the page, of all of it, or of one element. Raises as :meth:`read`."""
        return await asking.picture(
            await self._opened.tab(tab),
            ref=ref,
            full_page=full_page,
            format=format,
            quality=quality,
        )

    async def pdf(self, *, tab: str | None) -> bytes:
        """The page as it is printed. Raises as :meth:`read`."""
        return await asking.pdf(await self._opened.tab(tab))

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
        tab = await self._opened.tab(wanted.tab)

        async def work() -> None:
            await acting.play(tab, wanted.actions, self._home, seconds=wanted.seconds)
            if tab.dialog is None and not tab.page.is_closed():
                await acting.until_calm(tab, _CALM_SECONDS)

        seen = await screen.around(work, settle_ms=settle_ms, observe=observe, hands=self._hands)
        if tab.page.is_closed():
            self._opened.note(f"Tab {tab.id} was closed by this.")
            state = b.PageState(tab=tab.id, url="", notes=self._opened.told())
        else:
            state = await tab.state(notes=self._opened.told())
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
        return await asking.evaluate(await self._opened.tab(wanted.tab), wanted)

    async def wait(self, wanted: b.WaitPage) -> b.PageState:
        """Return once all that is asked for is so.

        Raises:
            TimedOut: it is not; the message says what. NoBrowser, TabNotFound, DialogOpen.
        """
        tab = await self._opened.tab(wanted.tab)
        await asking.wait(tab, wanted)
        return await tab.state(notes=self._opened.told())

    # Downloads, cookies, traces.

    def downloads(self) -> list[b.Download]:
        return self._opened.downloads.listed()

    async def cancel_download(self, id_: str) -> b.Download:
        """Raises FileMissing: there is no such download."""
        await self._hands.agents_turn()
        return await self._opened.downloads.cancel(id_)

    async def save_state(self) -> b.BrowserState:
        """Cookies and local storage. Raises NoBrowser, TimedOut."""
        attached = await self._opened.need()
        state = await within(attached.context.storage_state(), 10, "Reading what is stored")
        return b.BrowserState.model_validate(state)

    async def load_state(self, state: b.BrowserState) -> None:
        """Put them in place of those that are there.

        Raises:
            HumanInControl, Unavailable, TimedOut; InvalidRequest: the browser refuses one.
        """
        await self._hands.agents_turn()
        attached = await self._opened.need(starts=True)
        given: Any = state.model_dump()  # Any: Playwright's own type
        try:
            setting = attached.context.set_storage_state(given)
            await within(setting, 15, "Loading what is stored")
        except TimedOut:
            raise
        except CarrelError as error:
            raise InvalidRequest(f"The browser refuses that: {error.message}") from error

    async def trace(self, wanted: b.TraceChange) -> b.Trace:
        """Begin a trace, or end it and write it. Raises NoBrowser, Conflict, TimedOut."""
        attached = await self._opened.need()
        if (wanted.do == "start") == self._opened.is_tracing:
            raise Conflict(
                "A trace is running." if self._opened.is_tracing else "No trace is running.",
                hint="Start one, then stop it.",
            )
        tracing = attached.context.tracing
        if wanted.do == "start":
            await within(tracing.start(screenshots=True, snapshots=True), 10, "The trace's start")
            self._opened.is_tracing = True
            return b.Trace(is_running=True)
        self._opened.is_tracing = False
        path = os.path.join(self._home, f"trace-{int(time.time())}.zip")
        await within(tracing.stop(path=path), 60, "Writing the trace")
        return b.Trace(is_running=False, path=path)


async def _painted(tab: Tab) -> None:
    """Until a browser that has just started shows the page: its first picture comes late, and what
    is done next would be judged by a screen without it.
    """
    with suppress(CarrelError):  # a page that is held up shows nothing
        await tab.bounded(tab.page.evaluate(_PAINTED), _PAINT_SECONDS, "Its first picture")


def _address(url: str) -> str:
    """An address as it is typed: ``example.org`` is one too."""
    head = url.split("/", 1)[0]
    if "://" in url or url.split(":", 1)[0] in ("about", "data", "file", "blob", "view-source"):
        return url
    is_local = head.split(":")[0] in ("localhost", "127.0.0.1", "[::1]")
    return f"{'http' if is_local else 'https'}://{url}"
