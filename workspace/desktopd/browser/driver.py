"""Playwright's driver: one process, started with the first call and ended with the desktop.

It is a Node.js program of some 100 MB, so it is a user program as far as the kernel's killing of
processes goes, and is started by a script that says so. What it and the browser say was said by
programs of the desktop: it is parsed, and limited in size, by those who ask.

On failure: ``Unavailable``. :attr:`Attached.lost` is set when the browser or the driver is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workspace.desktopd.browser import walker
from workspace.errors import Unavailable

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, CDPSession, Playwright

logger = logging.getLogger(__name__)

_START_SECONDS = 20.0
_ATTACH_SECONDS = 10.0
_STOP_SECONDS = 2.0
_HEAP_MIB = 256
_SCRIPT = """\
#!/bin/sh
{{ echo {score} >/proc/self/oom_score_adj; }} 2>/dev/null
exec {node} --max-old-space-size={heap} "$@"
"""


@dataclass
class Attached:
    """A browser that is attached to; ``cdp`` is of the browser itself."""

    browser: Browser
    context: BrowserContext
    cdp: CDPSession
    engine: str  # the name of the walker's selectors in it
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Driver:
    """The driver's process; end it with :meth:`aclose`. ``folder`` is for its script."""

    def __init__(self, folder: str, *, oom_score_adj: int, artifacts: str) -> None:
        self._folder = folder
        self._oom_score_adj = oom_score_adj
        self._artifacts = artifacts
        self._playwright: Playwright | None = None
        self._attached = 0  # how often it was

    async def start(self) -> None:
        """
        Raises:
            Unavailable: Playwright is not in the runtime, or does not start.
        """
        if self._playwright is not None:
            return
        try:
            from playwright.async_api import async_playwright
        except ImportError as error:
            raise Unavailable(
                "Playwright is not in the runtime of desktops.",
                hint="Run scripts/setup (or scripts/build-runtime) on the node.",
            ) from error
        os.environ["PLAYWRIGHT_NODEJS_PATH"] = self._script()
        try:
            playwright = await asyncio.wait_for(async_playwright().start(), _START_SECONDS)
        except Exception as error:  # Playwright's own kinds, and the operating system's
            raise Unavailable(f"The browser's driver does not start: {error}") from error
        self._playwright = playwright

    async def attach(self, endpoint: str) -> Attached:
        """Attach to the browser at a CDP endpoint, leaving its settings as a person has them.

        Raises:
            Unavailable: it, or the driver, does not answer.
        """
        await self.start()
        assert self._playwright is not None
        try:
            browser = await self._playwright.chromium.connect_over_cdp(
                endpoint,
                no_defaults=True,
                is_local=True,
                artifacts_dir=self._artifacts,
                timeout=_ATTACH_SECONDS * 1000,
            )
            cdp = await browser.new_browser_cdp_session()
            # A browser that was there before is told only of what is registered after it.
            self._attached += 1
            engine = f"{walker.ENGINE}{self._attached}"
            await self._playwright.selectors.register(engine, walker.SOURCE, content_script=True)
        except Exception as error:  # Playwright's own kinds
            await self.aclose()  # it may be the driver that is broken
            raise Unavailable(f"The browser cannot be attached to: {error}") from error
        attached = Attached(browser, browser.contexts[0], cdp, engine)
        browser.on("disconnected", lambda _: attached.lost.set())
        return attached

    async def aclose(self) -> None:
        """End the driver; the browser goes on."""
        playwright, self._playwright = self._playwright, None
        if playwright is not None:
            with suppress(Exception):  # it is killed with all else
                await asyncio.wait_for(playwright.stop(), _STOP_SECONDS)

    def _script(self) -> str:
        import playwright

        node = os.path.join(os.path.dirname(playwright.__file__), "driver", "node")
        path = os.path.join(self._folder, "node")
        text = _SCRIPT.format(score=self._oom_score_adj, node=node, heap=_HEAP_MIB)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "w") as file:
            file.write(text)
        return path
