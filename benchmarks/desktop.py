"""How soon a desktop is there and how fast it is, beside the way its peers do the same.

Everything goes through the controller's REST interface, as a caller sees it. The peers' methods
are written from their description and run inside the very same desktop: a screenshot is a forked
``scrot`` and a read of its file (E2B), a click a forked ``xdotool`` (E2B, Anthropic's demo). They
are timed inside the desktop, without any network: a floor for them. Run it with ``carrel bench``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypedDict

from workspace.actions import Screenshot
from workspace.client import Carrel
from workspace.desktop import Desktop


class Row(TypedDict):
    """One measurement: a name, its unit, median and 95th percentile, and how many it is of."""

    name: str
    unit: str
    p50: float
    p95: float
    n: int


PEERS = r"""
import json, os, subprocess, time
def times(n, command, after=None):
    out = []
    for i in range(n):
        begin = time.perf_counter()
        subprocess.run([word.format(x=1100 + i % 20) for word in command], check=True)
        if after: after()
        out.append((time.perf_counter() - begin) * 1000)
    return out
def read():
    open("/tmp/peer.png", "rb").read()
    os.remove("/tmp/peer.png")
print(json.dumps({
    "scrot": times(15, ["scrot", "--pointer", "/tmp/peer.png"], read),
    "xdotool": times(15, ["xdotool", "mousemove", "{x}", "400", "click", "1"]),
}))
"""


def row(name: str, unit: str, samples: list[float]) -> Row:
    ordered = sorted(samples)
    return {
        "name": name,
        "unit": unit,
        "p50": round(ordered[len(ordered) // 2], 2),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 2),
        "n": len(ordered),
    }


async def timed(
    count: int,
    call: Callable[[int], Awaitable[object]],
    before: Callable[[int], Awaitable[object]] | None = None,
) -> list[float]:
    """Milliseconds of each of ``count`` calls; what comes ``before`` each is not counted."""
    samples = []
    for index in range(count):
        if before is not None:
            await before(index)
        begin = time.perf_counter()
        await call(index)
        samples.append((time.perf_counter() - begin) * 1000)
    return samples


async def cold_start(carrel: Carrel, count: int) -> list[float]:
    """Seconds from asking for a desktop to its first settled frame, one at a time."""
    samples = []
    for _ in range(count):
        begin = time.perf_counter()
        async with await carrel.claim("desktop", ttl_seconds=300) as desktop:
            await desktop.screenshot()
            samples.append(time.perf_counter() - begin)
    return samples


def actor_uss_mib() -> list[float]:
    """Private memory of every DesktopActor on this machine that this user may look at."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not (process / "cmdline").read_bytes().startswith(b"ray::DesktopActor"):
                continue
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        private = [line.split()[1] for line in lines if line.startswith("Private_")]
        found.append(sum(map(int, private)) / 1024)
    return found


async def peers(desktop: Desktop) -> list[Row]:
    """The peers' screenshot and click, where the desktop has the programs they fork."""
    result = await desktop.run(["python3", "-c", PEERS], timeout_seconds=120)
    if result.exit_code != 0:
        return []
    samples = json.loads(result.stdout)
    return [
        row("peers: screenshot by scrot (PNG, in the desktop)", "ms", samples["scrot"]),
        row("peers: click by xdotool (in the desktop)", "ms", samples["xdotool"]),
    ]


async def measure(carrel: Carrel, progress: Callable[[str], None]) -> list[Row]:
    """Every row, with ``progress`` told what is being measured."""
    progress("cold start")
    rows = [row("cold start to the first settled frame", "s", await cold_start(carrel, 5))]
    async with await carrel.claim("desktop", ttl_seconds=900) as desktop:
        await desktop.act(Screenshot())  # at rest
        progress("screenshots")
        await timed(20, lambda _: desktop.screenshot())

        async def change(index: int) -> None:
            await desktop.move(1100 + index % 50, 400)  # the pointer is in the picture

        shots = await timed(200, lambda _: desktop.screenshot(), change)
        rows.append(row("screenshot, JPEG 1280x800, changed, through the controller", "ms", shots))
        png = await timed(20, lambda _: desktop.screenshot(format="png"), change)
        rows.append(row("screenshot, PNG 1280x800, changed, through the controller", "ms", png))
        same = await timed(200, lambda _: desktop.screenshot())
        rows.append(row("screenshot, JPEG 1280x800, unchanged, through the controller", "ms", same))
        progress("clicks")
        clicks = await timed(200, lambda index: desktop.click(1100 + index % 20, 400))
        rows.append(row("click, through the controller", "ms", clicks))
        progress("memory")
        health = await desktop.health()
        if health.pss_mib is not None:
            rows.append(row("desktopd, PSS", "MiB", [health.pss_mib]))
        if actors := actor_uss_mib():
            rows.append(row("actor, USS", "MiB", actors))
        progress("the peers' way")
        rows += await peers(desktop)
    return rows
