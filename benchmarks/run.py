"""Goes through the tasks, one after the other in one desktop, so that all have the same screen."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from benchmarks import ours, stage
from benchmarks.peers import NAMES, Peers, Played, invite
from benchmarks.rows import DESKTOPD, REST, Measured
from workspace.actions import ImageFormat
from workspace.client import Carrel
from workspace.desktop import Desktop
from workspace.errors import TimedOut

TASKS = ("start", "screenshot", "click", "pixel", "drag", "type", "settle", "tree", "calc")
_REDRAWS = ("at once", "after 50 ms", "after 200 ms", "after 1000 ms")  # by band of page.html
_FORKING = ("e2b", "anthropic", "osworld")
_AGENTS = (*_FORKING, "cua")
_IN_PROCESS = ("pyautogui", "pyautogui-unpaused")
# Who makes pictures of that kind; a pause of pyautogui's does not come in.
_PICTURES: dict[ImageFormat, tuple[str, ...]] = {
    "jpeg": ("pyautogui", "cua", "ffmpeg"),
    "png": ("e2b", "anthropic", "osworld", "pyautogui", "cua", "ffmpeg"),
}


class Plan(NamedTuple):
    """What is to be measured, beside whom; of each at most ``most`` samples."""

    only: Collection[str] = TASKS
    beside: Collection[str] = tuple(NAMES)
    most: int = 1000

    def of(self, count: int) -> int:
        return min(self.most, count)

    def peers(self, count: int, *peers: str) -> dict[str, int]:
        return dict.fromkeys((peer for peer in peers if peer in self.beside), self.of(count))


Note = Callable[[str], None]


async def measure(carrel: Carrel, plan: Plan, note: Note) -> list[Measured]:
    """Every measurement, by task and then by who; ``note`` is told what is going on."""
    found: list[Measured] = []
    if "start" in plan.only:
        there = {template.name for template in await carrel.templates()}
        for template in [name for name in ours.TEMPLATES if name in there]:
            note(f"cold starts of {template}")
            found += await ours.starts(carrel, template, plan.of(5))
    if set(plan.only) > {"start"} or "start" not in plan.only:
        found += await _on_one_desktop(carrel, plan, note)
    tasks = list(dict.fromkeys(each.task for each in found))
    order = (DESKTOPD, REST, *NAMES.values())
    return sorted(found, key=lambda each: (tasks.index(each.task), order.index(each.who)))


async def _on_one_desktop(carrel: Carrel, plan: Plan, note: Note) -> list[Measured]:
    found: list[Measured] = []
    async with await carrel.claim("desktop", ttl_seconds=1200) as desktop:
        if "start" in plan.only:
            found += await ours.daemons(desktop)
        note("what the peers need")
        await stage.furnish(desktop)
        async with invite(desktop, plan.beside, note) as peers:
            for name, task in _MEASURES.items():
                if name in plan.only:
                    try:
                        found += await task(desktop, peers, plan, note)
                    except TimedOut as error:  # what is shown did not come: it may not be installed
                        note(f"{name} has no rows: {error}")
    return found


async def _screenshots(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    await desktop.write_file(f"{stage.HOME}/list.html", stage.list_page())
    found = []
    async with stage.page(desktop, f"{stage.HOME}/list.html"):
        for format, who in _PICTURES.items():
            task = f"screenshot, {format.upper()}, changed"
            note(task)
            found += await ours.screenshots(desktop, task, plan.of(100), format)
            async for played in peers.play("screenshot", plan.peers(10, *who), format):
                found.append(_theirs(task, played))
        note("screenshots of an unchanged screen")
        found += await ours.unchanged(desktop, "screenshot, JPEG, unchanged", plan.of(100))
        found += await ours.since(desktop, "anything new since a frame", plan.of(100))
    return found


async def _clicks(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    note("clicks")
    async with stage.window(desktop):
        found = await ours.clicks(desktop, "click", plan.of(200))
        counts = plan.peers(10, *_FORKING) | plan.peers(20, *_IN_PROCESS, "cua")
        async for played in peers.play("click", counts):
            found.append(_theirs("click", played))
    return found


async def _pixels(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    task = "click to pixel"
    note(task)
    async with stage.window(desktop):
        found = await ours.click_to_pixel(desktop, task, plan.of(30))
        async for played in peers.play("pixel", plan.peers(5, *_AGENTS, *_IN_PROCESS)):
            found.append(_theirs(task, played))
    return found


async def _drags(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    task = "drag and drop on a page"
    note(task)
    async with stage.page(desktop, f"{stage.HOME}/benchmarks/inside/drag.html"):
        found = await ours.drags(desktop, task, plan.of(7))
        async for played in peers.play("drag", plan.peers(3, *_AGENTS, *_IN_PROCESS)):
            outcome = ours.arrival("dropped", played.seen, len(played.samples))
            found.append(_theirs(task, played, **outcome))
    return found


async def _typing(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    task = "type 50 Unicode characters"
    note(task)
    async with stage.recorder(desktop):
        found = await ours.typing(desktop, task, plan.of(10))
        counts = plan.peers(2, *_FORKING) | plan.peers(3, "cua", *_IN_PROCESS)
        async for played in peers.play("type", counts):
            came = await stage.typed(desktop, 1 << 20)
            found.append(_theirs(task, played, **ours.exactness(came, len(played.samples))))
    return found


async def _settling(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    tasks = [f"click, settle, look; redraw {told}" for told in _REDRAWS]
    found = []
    async with stage.page(desktop, f"{stage.HOME}/benchmarks/inside/page.html"):
        # Carrel first: what others do is to it something that moves by itself.
        for band, task in enumerate(tasks):
            note(task)
            found += await ours.observes(desktop, task, plan.of(7), band)
        for band, task in enumerate(tasks):
            note(f"{task}: the peers")
            async for played in peers.play("observe", plan.peers(2, *_AGENTS), str(band)):
                outcome = ours.arrival("saw it", played.seen, len(played.samples))
                found.append(_theirs(task, played, **outcome))
    return found


async def _trees(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    task = "accessibility tree, page of 1000 nodes"
    note(task)
    await desktop.write_file(f"{stage.HOME}/list.html", stage.list_page())
    flag = "--force-renderer-accessibility"
    async with stage.page(desktop, f"{stage.HOME}/list.html", flag):
        found = await ours.trees(desktop, task, plan.of(20))
        return found + await _osworlds_tree(task, peers, plan.of(2))


async def _sheets(desktop: Desktop, peers: Peers, plan: Plan, note: Note) -> list[Measured]:
    task = "accessibility tree, Calc with a sheet open"
    note(task)
    async with stage.sheet(desktop):
        found = await ours.trees(desktop, task, plan.of(5))
        return found + await _osworlds_tree(task, peers, plan.of(1))


async def _osworlds_tree(task: str, peers: Peers, count: int) -> list[Measured]:
    if (read := await peers.tree(count)) is None:
        return []
    return [_theirs(task, read, f"{read.seen} nodes")]


def _theirs(task: str, played: Played, note: str = "", fails: bool = False) -> Measured:
    return Measured(task, NAMES[played.peer], "ms", played.samples, note, fails)


_MEASURES = {
    "screenshot": _screenshots,
    "click": _clicks,
    "pixel": _pixels,
    "drag": _drags,
    "type": _typing,
    "settle": _settling,
    "tree": _trees,
    "calc": _sheets,
}
