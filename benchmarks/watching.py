"""People watching: what that costs, and how soon they see. ``python -m benchmarks.watching``

How many viewers one core carries is simulated (:mod:`benchmarks.relay`). What an agent's click
takes while people watch, and how soon a click is seen in a browser that watches, is measured on a
real desktop of a controller of its own, in a real Chromium.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from playwright.async_api import Page, async_playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks import ours, relay, stage
from benchmarks.claims import controller
from benchmarks.report import tell
from benchmarks.rows import Measured
from workspace import actions as a
from workspace.client import Carrel, ClaimedDesktop

VIEWERS = 5
CLICKS = 60
PAUSE_SECONDS = 0.2
PIXELS = 30
SEEN_SECONDS = 10.0
SEES = "a browser that watches"
Note = Callable[[str], None]
_HELLO = (b"RFB 003.008\n", b"\x01", b"\x01")
_ENCODINGS = b"\x02\x00\x00\x02" + (7).to_bytes(4, "big") + (-25).to_bytes(4, "big", signed=True)
_UPDATE = b"\x03\x01\x00\x00\x00\x00\x05\x00\x03\x20"  # what has changed of 1280x800
# Begins to look: once the picture's middle looks other than now, ``seen`` is the time of day in ms.
_LOOK = """() => { window.seen = new Promise((seen) => {
  const context = document.querySelector("#screen canvas").getContext("2d");
  const look = () => context.getImageData(640, 400, 1, 1).data.slice(0, 3).join();
  const before = look();
  const again = () => look() === before
    ? setTimeout(again, 1) : seen(performance.timeOrigin + performance.now());
  again();
}); }"""


@asynccontextmanager
async def viewers(url: str, key: str, desktop_id: str, count: int) -> AsyncIterator[None]:
    """That many watch, as a browser does: each asks for what has changed, again and again."""
    async with AsyncExitStack() as stack:
        watching = []
        for _ in range(count):
            viewer = connect(
                f"{url.replace('http', 'ws')}/v1/workspaces/{desktop_id}/vnc?role=view",
                additional_headers={"Authorization": f"Bearer {key}"},
                compression=None,
                proxy=None,
                max_size=None,
            )
            socket = await stack.enter_async_context(viewer)
            watching.append(asyncio.ensure_future(_watch(socket)))
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)


async def _watch(socket: ClientConnection) -> None:
    for said in _HELLO:
        await socket.recv()
        await socket.send(said)
    await socket.recv()
    await socket.send(_ENCODINGS)
    with suppress(ConnectionClosed):
        while True:
            await socket.send(_UPDATE)
            await socket.recv()


async def _clicks(desktop: ClaimedDesktop, url: str, key: str, note: Note) -> list[Measured]:
    found: list[Measured] = []
    async with stage.window(desktop):
        for count in (0, VIEWERS, 0, VIEWERS):  # twice: the machine may have had other work
            note(f"clicks, {count} watching")
            async with viewers(url, key, desktop.id, count):
                task = f"click, {count} people watching"
                pairs = []
                for number in range(CLICKS):
                    await asyncio.sleep(PAUSE_SECONDS)  # an agent looks and thinks meanwhile
                    click = a.Click(x=300 + number % 50, y=300)
                    pairs.append((await ours.act(desktop, click))[0])
                found = _together(found, ours.both(task, pairs[1:]))
    return found


def _together(before: list[Measured], after: list[Measured]) -> list[Measured]:
    """The samples of each task in one."""
    kept = {(each.task, each.who): each for each in before}
    for each in after:
        known = kept.get((each.task, each.who))
        samples = each.samples if known is None else known.samples + each.samples
        kept[each.task, each.who] = Measured(each.task, each.who, each.unit, samples)
    return list(kept.values())


@asynccontextmanager
async def browser(desktop: ClaimedDesktop) -> AsyncIterator[Page]:
    """A page that watches the desktop, live."""
    async with async_playwright() as playwright:
        # Root cannot use Chromium's own sandbox; the page is this repository's.
        chromium = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        try:
            page = await chromium.new_page(viewport={"width": 1320, "height": 900})
            await page.goto(desktop.watch_url)
            await page.wait_for_selector("#link[data-state=live]")
            yield page
        finally:
            await chromium.close()


async def _pixels(desktop: ClaimedDesktop, note: Note) -> list[Measured]:
    """From the call of an agent's click until the browser's canvas shows what it changed."""
    note("click to pixel in a browser")
    took = []
    async with stage.window(desktop), browser(desktop) as page:
        for number in range(PIXELS):
            await page.evaluate(_LOOK)
            begin = time.time()
            await desktop.click(300 + number % 50, 300)
            seen = await asyncio.wait_for(page.evaluate("() => window.seen"), SEEN_SECONDS)
            took.append(seen - begin * 1000)
            await asyncio.sleep(0.1)  # what is still on its way is not the next click's
    return [Measured("click to pixel, through REST", SEES, "ms", tuple(took))]


async def _on_a_desktop(note: Note, url: str, key: str) -> list[Measured]:
    async with Carrel(url, key) as carrel:
        async with await carrel.claim("desktop", ttl_seconds=1200) as desktop:
            await stage.furnish(desktop)
            return [*await _clicks(desktop, url, key, note), *await _pixels(desktop, note)]


def measure(note: Note) -> list[Measured]:
    """All of it."""
    note(f"{relay.VIEWERS} viewers")
    found = relay.measure()
    with controller(2) as (url, key):
        return found + asyncio.run(_on_a_desktop(note, url, key))


def main() -> None:
    found = measure(lambda text: print(text, file=sys.stderr))
    tell(found, as_json="--json" in sys.argv[1:])


if __name__ == "__main__":
    main()
