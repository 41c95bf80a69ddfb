"""The browser as an interface: reading and acting by ref. ``python -m benchmarks.browser``

On a real desktop of a controller of its own, through REST, and beside it in the same run: a process
with a fresh Playwright for each call; the picture of the screen that says the same to a model; and
the accessibility tree of the desktop. A page of 1,000 nodes, and one of 100,000.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.claims import controller
from benchmarks.report import tell
from benchmarks.rows import DESKTOPD, REST, Measured
from workspace import browsing as b
from workspace.client import Carrel, ClaimedDesktop

SAMPLES, FEW = 30, 5
PEER = "a Playwright process for each call"
PICTURE = "a picture of the screen"
TREE = "the desktop's accessibility tree"
_INSIDE = Path(__file__).with_name("inside") / "page.py"
_FOLDER = "/opt/carrel/deps"
_CHARACTERS = 2.7  # of such lines, for a token
# 1,000 nodes: a box, a button, a link and an entry in each line.
_PAGE = "<!doctype html><title>page</title>" + "".join(
    f"<div><button onclick=\"this.textContent='clicked {n} ' + Math.random()\">Choose {n}</button>"
    f"<a href='#{n}'>Item {n}</a> <input aria-label='Many of {n}'></div>"
    for n in range(250)
)
_LARGE = """<!doctype html><title>large</title><body><script>
const all = document.createDocumentFragment();
for (let i = 0; i < 100000; i++) {
  const line = document.createElement('div'); line.textContent = 'line ' + i; all.append(line);
}
document.body.append(all);</script>"""
Note = Callable[[str], None]


async def _timed(count: int, call: Callable[[], Awaitable[Any]]) -> tuple[float, ...]:
    """Milliseconds of each. Any: what comes back is of no use."""
    took = []
    for _ in range(count):
        begin = time.perf_counter()
        await call()
        took.append((time.perf_counter() - begin) * 1000)
    return tuple(took)


async def _refs(desktop: ClaimedDesktop) -> Iterator[b.ClickRef]:
    """A click on another button each: one place that changes at a steady pace is an animation."""
    told = (await desktop.read_page(role="button")).text
    return itertools.cycle(
        b.ClickRef(ref=ref) for ref in re.findall(r"\[(r\d+)\] button .* at \d", told)
    )


async def _run(desktop: ClaimedDesktop, what: str) -> None:
    done = await desktop.run(f"python3 page.py {what} {_FOLDER}", timeout_seconds=60)
    assert done.exit_code == 0, done.stderr


async def _driver_mib(desktop: ClaimedDesktop) -> float:
    told = await desktop.run(
        "grep -h ^Pss: /proc/$(pgrep -f run-driver | head -1)/smaps_rollup | tr -dc 0-9"
    )
    return int(told.stdout or 0) / 1024


async def _measure(desktop: ClaimedDesktop, note: Note) -> list[Measured]:
    await desktop.write_file("page.html", _PAGE.encode())
    await desktop.write_file("large.html", _LARGE.encode())
    await desktop.write_file("page.py", _INSIDE.read_bytes())
    url = "file:///home/user/page.html"
    found = []

    def add(task: str, who: str, unit: str, samples: tuple[float, ...], told: str = "") -> None:
        found.append(Measured(task, who, unit, samples, told))

    note("the first page")
    before = (await desktop.health()).pss_mib or 0
    add("from no browser to a page", REST, "ms", await _timed(1, lambda: desktop.navigate(url)))
    after = (await desktop.health()).pss_mib or 0
    add("memory of desktopd with it", DESKTOPD, "MiB", (after - before,))
    add("memory of the driver", DESKTOPD, "MiB", (await _driver_mib(desktop),))

    note("reading 1,000 nodes")
    task = "read a page of 1,000 nodes"
    read = await desktop.read_page()
    tokens = f"{len(read.text)} characters, some {len(read.text) / _CHARACTERS:.0f} tokens"
    inside = []
    for _ in range(SAMPLES):
        inside.append((await desktop.read_page()).elapsed_ms)
    add(task, DESKTOPD, "ms", tuple(inside))
    add(task, REST, "ms", await _timed(SAMPLES, desktop.read_page), tokens)
    add(task, PEER, "ms", await _timed(FEW, lambda: _run(desktop, "read")))
    add(task, PICTURE, "ms", await _timed(SAMPLES, desktop.screenshot))
    add("read its Markdown", REST, "ms",
        await _timed(SAMPLES, lambda: desktop.read_page(format="markdown")))  # fmt: skip

    note("acting by ref")
    clicks = await _refs(desktop)
    task = "click by ref, settled, with what was seen"
    inside, seen = [], 0
    for _ in range(SAMPLES):
        acted = await desktop.act_on_page(next(clicks))
        seen += acted.observation.effect == "changed"
        inside.append(acted.observation.elapsed_ms)
    add(task, DESKTOPD, "ms", tuple(inside), f"the change was seen {seen} times")
    add(task, REST, "ms", await _timed(SAMPLES, lambda: desktop.act_on_page(next(clicks))))
    blind = await _timed(SAMPLES, lambda: desktop.click_ref(next(clicks).ref))
    add("click by ref, blind", REST, "ms", blind)
    add("click by ref, blind", PEER, "ms", await _timed(FEW, lambda: _run(desktop, "click")))

    note("reading 100,000 nodes")
    await desktop.navigate("file:///home/user/large.html", seconds=60)
    await desktop.read_page()
    large = await _timed(FEW, desktop.read_page)
    size = f"{len((await desktop.read_page()).text)} characters"
    add("read a page of 100,000 nodes", REST, "ms", large, size)
    # Last: from now on Chromium tells of its pages to assistive programs, which takes its time.
    await desktop.navigate(url)
    add("read a page of 1,000 nodes", TREE, "ms", await _timed(FEW, desktop.elements))
    return found


async def measure(note: Note) -> list[Measured]:
    """All of it."""
    with controller(1) as (url, key):
        async with Carrel(url, key) as carrel:
            async with await carrel.claim("desktop", ttl_seconds=1200) as desktop:
                return await _measure(desktop, note)


def main() -> None:
    found = asyncio.run(measure(lambda text: print(text, file=sys.stderr)))
    tell(found, as_json="--json" in sys.argv[1:])


if __name__ == "__main__":
    main()
