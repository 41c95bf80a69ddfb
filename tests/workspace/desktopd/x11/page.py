"""A page in a real Chromium that redraws as it is told by keys and clicks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Server
from workspace import actions as a
from workspace.desktopd.screen import Screen

WHITE, RED = (255, 255, 255), (255, 0, 0)
_CONTENT = """<!doctype html><meta charset=utf-8><title>the page</title>
<style>
* { margin: 0; padding: 0 } body > * { position: fixed }
body { background: #eee; font: 20px sans-serif; user-select: none }
.target { width: 200px; height: 100px; top: 300px; background: #fff }
#spinner { left: 40px; top: 40px; width: 40px; height: 40px; border: 6px solid #ccc;
  border-top-color: #00f; border-radius: 50%; animation: turn 1s linear infinite }
@keyframes turn { to { transform: rotate(360deg) } }
[hidden] { display: none }
</style>
<div id=spinner hidden></div><div id=clock style="right:40px;top:40px"></div>
<canvas id=video hidden width=320 height=180 style="left:600px;top:60px"></canvas>
<div class=target style="left:100px" id=now></div>
<div class=target style="left:400px" id=soon></div>
<div class=target style="left:700px" id=late></div>
<input id=name aria-label=Name style="left:100px;top:480px;width:300px;height:40px">
<script>
const red = (element, after) => element.onmousedown = () => {
  const paint = () => element.style.background = element.style.background ? '' : '#f00'
  after ? setTimeout(paint, after) : paint()
}
red(now, 0); red(soon, 200); red(late, 1000)
let ticking, playing, frame = 0
const draw = video.getContext('2d')
onkeydown = event => {
  if (event.target === document.getElementById('name')) return
  if (event.key === 's') spinner.hidden = !spinner.hidden
  if (event.key === 'c') ticking = ticking ? clearInterval(ticking)
    : setInterval(() => clock.textContent = Math.floor(performance.now()), 300)
  if (event.key === 'v') {
    video.hidden = !video.hidden
    playing = playing ? clearInterval(playing) : setInterval(() => {
      draw.fillStyle = `hsl(${frame++ * 7 % 360}, 80%, 50%)`
      draw.fillRect(0, 0, 320, 180)
    }, 33)
  }
}
</script>"""


class Page:
    """The page in its window; points are of the page and become the screen's."""

    def __init__(self, screen: Screen, corner: a.Point) -> None:
        self.screen = screen
        self.corner = corner

    def at(self, x: int, y: int) -> a.Point:
        return self.corner[0] + x, self.corner[1] + y

    def click(self, x: int, y: int) -> a.Click:
        on_screen = self.at(x, y)
        return a.Click(x=on_screen[0], y=on_screen[1])

    async def act(self, *actions: a.Action, settle_ms: int = 3000) -> a.Observation:
        return await self.screen.act(actions, settle_ms=settle_ms, observe="frame")


@contextlib.asynccontextmanager
async def opened(server: Server, screen: Screen, folder: Path) -> AsyncIterator[Page]:
    """The page in a browser that has drawn it and is at rest."""
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    file = folder / "page.html"
    file.write_text(_CONTENT)
    server.start(
        *("chromium", "--no-sandbox", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-gpu", "--test-type"),
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=1200,700"),
        *("--window-position=0,0", "--kiosk", file.as_uri()),
    )
    await eventually(
        lambda: any("the page" in w.title and w.is_focused for w in screen.windows.listed()), 60
    )
    window = next(w for w in screen.windows.listed() if "the page" in w.title)
    page = Page(screen, (window.x, window.y))

    async def is_at_rest() -> bool:
        return (await page.act(a.Wait(seconds=0.3), settle_ms=0)).effect == "no_visible_change"

    await eventually(is_at_rest)
    yield page
