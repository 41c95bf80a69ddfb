"""The mouse in real programs: drags taken as drags, clicks that count, wheels, modifiers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from PIL import ImageChops

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Server
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11.input import interpolate
from workspace.models import Window

APART_SECONDS = 0.6  # later than this a click is no part of the click before
LINE = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda"
PAGE = """<!doctype html><meta charset=utf-8><title>loaded</title>
<style>
  * { margin: 0; padding: 0 }
  canvas { position: fixed; left: 0; top: 0; background: #fff }
  p { position: fixed; left: 20px; top: 420px; font: 20px monospace }
  #counts { position: fixed; left: 700px; top: 0; width: 200px; height: 200px; background: #ddd }
</style>
<canvas width=600 height=400></canvas><p>LINE<br>LINE</p><div id=counts></div>
<script>
  const pen = document.querySelector("canvas").getContext("2d");
  let from = null;
  onmousedown = e => { from = [e.clientX, e.clientY]; pen.clearRect(0, 0, 600, 400) };
  const tell = () => { if (`${getSelection()}`) document.title = `selected ${getSelection()}` };
  // Which of the two comes first, the end of a click or what it has selected, is not said.
  onmouseup = () => { from = null; document.title = "drawn"; tell() };
  onmousemove = e => {
    if (!from || !e.buttons) return;
    pen.beginPath(); pen.moveTo(...from); from = [e.clientX, e.clientY];
    pen.lineTo(...from); pen.stroke();
  };
  document.onselectionchange = tell;
  counts.onclick = e => {
    document.title = ["clicked", e.detail, e.ctrlKey, e.shiftKey, e.altKey].join(" ")
  };
  onwheel = e => { document.title = "wheel " + Math.sign(e.deltaX) + " " + Math.sign(e.deltaY) };
</script>""".replace("LINE", LINE)


async def picture(screen: Screen) -> PIL.Image.Image:
    shot = await screen.screenshot(a.Screenshot(format="png", cursor=False))
    return PIL.Image.open(io.BytesIO(shot.data)).convert("L")


def focused(screen: Screen) -> Window | None:
    return next((w for w in screen.windows.listed() if w.is_focused), None)


@pytest.fixture
async def manager(server: Server, screen: Screen) -> None:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)


async def opened(screen: Screen, title: str) -> Window:
    """The window of a program that has come up, and whose first drawing is over."""

    def is_there() -> bool:
        window = focused(screen)
        return window is not None and title.lower() in window.title.lower()

    await eventually(is_there, 60)
    await screen.act([a.Move(x=1279, y=799), a.Wait(seconds=0.2)], settle_ms=5000)
    window = focused(screen)
    assert window is not None
    return window


async def titled(screen: Screen, is_right: Callable[[str], bool], *actions: a.Action) -> None:
    """Play the actions, and wait until the focused window's title is right."""
    await screen.act(list(actions))

    title = ""
    for _ in range(100):
        window = focused(screen)
        title = window.title if window is not None else ""
        if is_right(title):
            return
        await screen.act([a.Wait(seconds=0.1)])
    raise AssertionError(f"the title is {title!r} after {actions}")


# Chromium.


def start_chromium(server: Server, folder: Path) -> None:
    page = folder / "page.html"
    page.write_text(PAGE)
    server.start(
        *("chromium", "--no-sandbox", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-gpu", "--test-type"),
        *(f"--user-data-dir={folder / 'profile'}", "--kiosk", page.as_uri()),
    )


def spots(picture: PIL.Image.Image, box: tuple[int, int, int, int]) -> set[tuple[int, int]]:
    """The dark pixels of a box."""
    data = picture.crop(box)
    return {
        (box[0] + x, box[1] + y)
        for y in range(data.height)
        for x in range(data.width)
        if data.getpixel((x, y)) < 128  # type: ignore[operator]  # of "L" it is a number
    }


def furthest(some: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
    """How far any of ``some`` is from the nearest of ``others``."""
    return max(min(math.dist(one, other) for other in others) for one in some)


async def test_chromium(server: Server, screen: Screen, manager: None, tmp_path: Path) -> None:
    start_chromium(server, tmp_path)
    await opened(screen, "loaded")

    path = [(50, 50), (300, 60), (280, 300), (120, 340), (60, 200), (400, 380)]
    wanted, off = set(interpolate(path, 1)), math.inf
    for _ in range(5):  # a page that is not painted for long is told less of the way
        await titled(screen, lambda title: "drawn" in title, a.Drag(path=path))
        await screen.act([], settle_ms=2000)
        drawn = spots(await picture(screen), (0, 0, 600, 400))
        off = min(off, max(furthest(drawn, wanted), furthest(wanted, drawn)))
        if off <= 2:
            break
    assert off <= 2

    x, y = 60, 432  # on the first word
    await titled(screen, lambda t: "selected alpha -" in t, a.Click(x=x, y=y, count=2))
    await screen.act([a.Wait(seconds=APART_SECONDS)])
    await titled(screen, lambda t: f"selected {LINE}" in t, a.Click(x=x, y=y, count=3))
    # Where something is selected, a drag would take it along.
    await screen.act([a.Click(x=x, y=y + 100), a.Wait(seconds=APART_SECONDS)])
    some = a.Drag(path=[(21, y), (21 + 12 * 10, y)])  # ten letters of 12 pixels
    await titled(screen, lambda t: "selected alpha beta -" in t, some)

    for held, told in ((["ctrl"], "true false"), (["shift"], "false true"), ([], "false false")):
        await titled(
            screen,
            lambda t, told=told: f"clicked 1 {told} false" in t,  # type: ignore[misc]  # mypy: a lambda's default
            a.Wait(seconds=APART_SECONDS),
            a.Click(x=800, y=100, modifiers=held),
        )
    await screen.act([a.Wait(seconds=APART_SECONDS)])
    await titled(screen, lambda t: "clicked 2" in t, a.Click(x=800, y=100, count=2))

    for dx, dy, told in ((3, 0, "1 0"), (-2, 0, "-1 0"), (0, 1, "0 1"), (0, -1, "0 -1")):
        scroll = a.Scroll(x=800, y=100, dx=dx, dy=dy)
        await titled(screen, lambda t, told=told: f"wheel {told}" in t, scroll)  # type: ignore[misc]  # as above


# A GTK list of files.


Box = tuple[int, int, int, int]


def changed(before: PIL.Image.Image, after: PIL.Image.Image, window: Window) -> Box:
    """What is another of two pictures, in a window without its status bar."""
    box = (window.x, window.y, window.x + window.width, window.y + window.height - 40)
    found = ImageChops.difference(before.crop(box), after.crop(box)).getbbox()
    assert found is not None, "nothing has changed"
    left, top, right, bottom = found
    return left + window.x, top + window.y, right + window.x, bottom + window.y


def centre(box: Box) -> tuple[int, int]:
    return (box[0] + box[2]) // 2, (box[1] + box[3]) // 2


async def test_thunar_moves_a_file(
    server: Server, screen: Screen, manager: None, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    (folder / "inside").mkdir(parents=True)
    (folder / "note.txt").write_text("moved")
    server.start_on_bus("thunar", str(folder))
    window = await opened(screen, "files")

    async def lit(*chords: str) -> PIL.Image.Image:
        for chord in chords:
            await screen.act([a.Key(chord=chord)], settle_ms=1000)
        return await picture(screen)

    # Where the two lie is seen by what selecting one and then the other paints anew.
    nothing = await picture(screen)
    folder_at = centre(changed(nothing, first := await lit("Home"), window))
    both = changed(first, await lit("Right"), window)
    file_at = (2 * centre(both)[0] - folder_at[0], folder_at[1])
    await screen.act([a.Drag(path=[file_at, (file_at[0], file_at[1] + 60), folder_at])])
    await eventually((folder / "inside" / "note.txt").exists, 10)
    assert (folder / "inside" / "note.txt").read_text() == "moved"
    assert not (folder / "note.txt").exists()


# Selecting text in a GTK and a Qt editor.


async def copied(screen: Screen, is_right: Callable[[str], bool], *actions: a.Action) -> None:
    """Play the actions, copy what they select, and see that it is right."""
    await screen.act([a.Wait(seconds=APART_SECONDS), *actions])
    text = None
    for _ in range(50):
        await screen.act([a.Key(chord="ctrl+c"), a.Wait(seconds=0.1)])
        text = (await screen.clipboard.contents()).text
        if text is not None and is_right(text):
            return
    raise AssertionError(f"{text!r} is selected after {actions}")


@pytest.mark.parametrize("editor", ["mousepad", "featherpad"])
async def test_editors(
    server: Server, screen: Screen, manager: None, tmp_path: Path, editor: str
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("\n".join([LINE] * 40))
    server.start_on_bus(editor, str(note))
    window = await opened(screen, "note")
    x, y = window.x + 120, window.y + window.height // 2
    words = LINE.split()
    await copied(screen, lambda t: t.strip() in words, a.Click(x=x, y=y, count=2))
    await copied(screen, lambda t: t.strip() == LINE, a.Click(x=x, y=y, count=3))
    elsewhere = a.Click(x=x, y=y + 100)  # where something is selected, a drag would take it along
    pause, across = a.Wait(seconds=APART_SECONDS), a.Drag(path=[(x, y), (x + 200, y)])
    await copied(screen, lambda t: 12 < len(t) < 40 and t in LINE, elsewhere, pause, across)
    down = a.Drag(path=[(x, y), (x + 100, y + 60)])
    await copied(screen, lambda t: t.count("\n") in (2, 3, 4), elsewhere, pause, down)
    start, end = a.Click(x=x, y=y), a.Click(x=x + 200, y=y, modifiers=["shift"])
    await copied(screen, lambda t: 12 < len(t) < 40 and t in LINE, start, end)
