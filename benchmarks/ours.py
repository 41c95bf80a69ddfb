"""Carrel at each task: in desktopd, as it says itself, and through REST, as timed here.

``elapsed_ms`` of an observation is the time from the begin of the first action to the answer,
pictures encoded. Through REST the same call is timed from asking to the parsed answer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypedDict

import anyio

from benchmarks import stage
from benchmarks.inside.play import BAND_HEIGHT, TEXT, ground, way
from benchmarks.rows import DESKTOPD, REST, Measured
from workspace import actions as a
from workspace import waits as w
from workspace.client import Carrel
from workspace.desktop import Desktop
from workspace.errors import TimedOut

TEMPLATES = {"desktop": "XFCE", "light": "light"}
IDLE_SECONDS = 3.0
PATIENCE = 5.0
THINKING_SECONDS = 0.5  # between a picture and the next action
# Of all but desktopd, which nothing in the desktop may look into: it tells of itself.
_PSS = (
    "cat /proc/[0-9]*/smaps_rollup 2>/dev/null"
    " | awk '/^Pss:/ { kib += $2 } END { print kib / 1024 }'"
)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    await call()
    return (time.perf_counter() - begin) * 1000


class Outcome(TypedDict):
    """What came of a task besides the time it took."""

    note: str
    fails: bool


def both(
    task: str, pairs: Iterable[tuple[float, float]], *, note: str = "", fails: bool = False
) -> list[Measured]:
    """The two rows of Carrel, of pairs of (in desktopd, through REST)."""
    inside, outside = zip(*pairs, strict=True)
    return [
        Measured(task, DESKTOPD, "ms", inside, note, fails),
        Measured(task, REST, "ms", outside, note, fails),
    ]


async def act(
    desktop: Desktop, *played: a.Action, settle_ms: int = 0, observe: a.Observe = "none"
) -> tuple[tuple[float, float], a.Observation]:
    """What it took, in desktopd and here, and what was seen."""
    begin = time.perf_counter()
    seen = await desktop.act(*played, settle_ms=settle_ms, observe=observe)
    return (seen.elapsed_ms, (time.perf_counter() - begin) * 1000), seen


async def screenshots(
    desktop: Desktop, task: str, count: int, format: a.ImageFormat
) -> list[Measured]:
    """Pictures of a screen that has changed since the one before: the pointer is elsewhere."""
    inside, outside = [], []
    for index in range(count + 1):
        await desktop.move(400 + index % 50, 410)
        inside.append((await act(desktop, a.Screenshot(format=format)))[0][0])
        await desktop.move(400 + index % 50, 400)
        outside.append(await timed(lambda: desktop.screenshot(format=format)))
    return both(task, zip(inside[1:], outside[1:], strict=True))


async def unchanged(desktop: Desktop, task: str, count: int) -> list[Measured]:
    """Pictures that are the same as the one before, and are asked for whole."""
    await desktop.screenshot()
    pairs = []
    for _ in range(count):
        inside = (await act(desktop, a.Screenshot()))[0][0]
        pairs.append((inside, await timed(desktop.screenshot)))
    return both(task, pairs)


async def since(desktop: Desktop, task: str, count: int) -> list[Measured]:
    """Whether there is anything new; there is not."""
    picture = await desktop.screenshot_since(None)
    assert picture is not None, "nothing is unchanged since no frame"
    pairs = []
    for _ in range(count):
        inside = (await act(desktop, a.Screenshot(since=picture.frame)))[0][0]
        pairs.append((inside, await timed(lambda: desktop.screenshot_since(picture.frame))))
    return both(task, pairs)


async def clicks(desktop: Desktop, task: str, count: int) -> list[Measured]:
    pairs = [(await act(desktop, a.Click(x=300 + n % 50, y=300)))[0] for n in range(count + 1)]
    return both(task, pairs[1:])


async def click_to_pixel(desktop: Desktop, task: str, count: int) -> list[Measured]:
    """A click, then pictures until one shows what the click changed; looking is not counted."""
    pairs = []
    for number in range(count):
        spent = [0.0, 0.0]
        before = ground(await desktop.screenshot())
        (spent[0], _), _ = await act(desktop, a.Click(x=300 + number % 50, y=300))
        while spent[0] < PATIENCE * 1000:
            (took, _), seen = await act(desktop, a.Screenshot())
            spent[0] += took
            if seen.screenshot is not None and ground(seen.screenshot.data) != before:
                break
        before = ground(await desktop.screenshot())
        spent[1] = await timed(partial(desktop.click, 300 + number % 50, 300))
        while spent[1] < PATIENCE * 1000:
            begin = time.perf_counter()
            picture = await desktop.screenshot()
            spent[1] += (time.perf_counter() - begin) * 1000
            if ground(picture) != before:
                break
        pairs.append((spent[0], spent[1]))
    return both(task, pairs)


async def drags(desktop: Desktop, task: str, count: int) -> list[Measured]:
    """On drag.html; each has arrived before the next begins, if it arrives."""
    pairs, dropped = [], 0
    for number in range(count):
        before = ground(await desktop.screenshot())
        pairs.append((await act(desktop, a.Drag(path=list(way(number)))))[0])
        with suppress(TimedOut):
            await stage.until("The drop", partial(_is_repainted, desktop, before), 1)
            dropped += 1
    return both(task, pairs, **arrival("dropped", dropped, count))


def arrival(verb: str, came: int, count: int) -> Outcome:
    """How often it was as it should be."""
    return {"note": f"{verb} {came} of {count}", "fails": came < count}


async def _is_repainted(desktop: Desktop, before: tuple[int, ...]) -> bool:
    return ground(await desktop.screenshot()) != before


async def typing(desktop: Desktop, task: str, count: int) -> list[Measured]:
    pairs = [(await act(desktop, a.Type(text=TEXT)))[0] for _ in range(count)]
    came = await stage.typed(desktop, len(TEXT.encode()) * count)
    return both(task, pairs, **exactness(came, count))


def exactness(came: str, count: int) -> Outcome:
    """Whether what came is what was typed."""
    is_exact = came == TEXT * count
    return {"note": "exact" if is_exact else "mangled", "fails": not is_exact}


async def observes(desktop: Desktop, task: str, count: int, band: int) -> list[Measured]:
    """Click on a band of page.html, settle, and look: one call.

    Told that nothing has changed, it waits for a change and looks again, as an agent would.
    """
    pairs, saw, calls = [], 0, 1
    for n in range(count):
        await anyio.sleep(THINKING_SECONDS)
        before = ground(await desktop.screenshot())
        click = a.Click(x=300 + n % 50, y=band * BAND_HEIGHT + 100)
        took, seen = await act(desktop, click, settle_ms=2000, observe="frame")
        is_shown = _shows_other(seen, before)
        if seen.effect == "no_visible_change" and not is_shown:
            more, seen = await _wait_and_look(desktop)
            took, calls = (took[0] + more[0], took[1] + more[1]), 3
            is_shown = _shows_other(seen, before)
        pairs.append(took)
        saw += is_shown and seen.effect != "no_visible_change"  # what it says counts as well
        await stage.until("The redraw", partial(_is_repainted, desktop, before))
    outcome = arrival("saw it", saw, count)
    if calls > 1:
        outcome["note"] += f", in {calls} calls"
    return both(task, pairs, **outcome)


def _shows_other(seen: a.Observation, before: tuple[int, ...]) -> bool:
    return seen.screenshot is not None and ground(seen.screenshot.data) != before


async def _wait_and_look(desktop: Desktop) -> tuple[tuple[float, float], a.Observation]:
    begin, inside = time.perf_counter(), 0.0
    with suppress(TimedOut):
        inside = (await desktop.wait_for(w.RegionChanges(seconds=PATIENCE))).elapsed_ms
    waited = (time.perf_counter() - begin) * 1000
    took, seen = await act(desktop, a.Screenshot())
    return (inside + took[0], waited + took[1]), seen


async def trees(desktop: Desktop, task: str, count: int) -> list[Measured]:
    """All that can be seen, by accessibility."""
    pairs, nodes, cut = [], 0, False
    for _ in range(count):
        begin = time.perf_counter()
        tree = await desktop.elements()
        pairs.append((tree.elapsed_ms, (time.perf_counter() - begin) * 1000))
        nodes, cut = tree.nodes, bool(tree.truncated)
    return both(task, pairs, note=f"{nodes} nodes{', bounded' if cut else ''}", fails=False)


async def starts(carrel: Carrel, template: str, count: int) -> list[Measured]:
    """Desktops from nothing to the first frame at rest, one at a time; the memory of the last."""
    samples = []
    memory: tuple[float, ...] = ()
    for number in range(count):
        begin = time.perf_counter()
        async with await carrel.claim(template, ttl_seconds=300) as desktop:
            await desktop.screenshot()
            samples.append(time.perf_counter() - begin)
            if number == count - 1:
                await anyio.sleep(IDLE_SECONDS)
                programs = float((await desktop.run(_PSS)).stdout)
                memory = (programs + ((await desktop.health()).pss_mib or 0),)
    kind = TEMPLATES[template]
    return [
        Measured(f"cold start to the first frame, {kind}", REST, "s", tuple(samples)),
        Measured(f"idle desktop with desktopd, {kind}, PSS", DESKTOPD, "MiB", memory),
    ]


async def daemons(desktop: Desktop) -> list[Measured]:
    """The memory of the daemon, and of the actors that own desktops, as far as it can be read."""
    pss = (await desktop.health()).pss_mib
    actors = tuple(_actors_mib())
    rows = [] if pss is None else [Measured("desktopd, PSS", DESKTOPD, "MiB", (pss,))]
    if actors:
        rows.append(Measured("the actor that owns a desktop, USS", REST, "MiB", actors))
    return rows


def _actors_mib() -> list[float]:
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
