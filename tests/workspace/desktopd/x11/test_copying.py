"""Copying from and pasting into real programs, through both selections."""

from __future__ import annotations

import asyncio
import html
import io
import random
from pathlib import Path

import PIL.Image
import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Server
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11.contents import HTML, PNG, TEXT, Contents

HARD = "Grüße, 世界 🚀 one two"
PAGE = """<meta charset=utf-8><title>loaded</title>
<style>body{margin:0} div{height:95vh;outline:none}</style>
<div contenteditable><p>one <b>bold ü世</b> two</p></div>
<script>
addEventListener('paste', async event => {
  const [file] = event.clipboardData.files
  if (file) {
    event.preventDefault()
    const image = await createImageBitmap(file)
    document.title = `image ${file.type} ${image.width}x${image.height}`
  } else setTimeout(() => document.title = 'html ' + document.querySelector('div').innerHTML)
})
</script>"""


def picture(width: int, height: int) -> bytes:
    """A PNG of noise: nothing makes it small."""
    noise = random.Random(7).randbytes(width * height * 3)
    out = io.BytesIO()
    PIL.Image.frombytes("RGB", (width, height), noise).save(out, "PNG")
    return out.getvalue()


async def manage(server: Server, screen: Screen) -> None:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)


async def test_what_is_marked_in_xterm_and_the_middle_button(
    server: Server, screen: Screen, tmp_path: Path
) -> None:
    out, ready = tmp_path / "out", tmp_path / "ready"
    script = f"clear; echo '{HARD}'; touch {ready}; exec cat > {out}"
    server.start("xterm", "-u8", "-geometry", "80x24+0+0", "-e", "bash", "-c", script)
    await eventually(ready.exists, 20)

    async def is_marked() -> bool:
        await screen.act([a.Click(x=30, y=10, count=3), a.Wait(seconds=0.1)])
        found = await screen.clipboard.contents("primary")
        return TEXT in found.targets and found.text.strip() == HARD

    await eventually(is_marked)
    assert (await screen.clipboard.contents()).text == "", "nothing was copied"
    offer = screen.clipboard.offer(Contents.of(text=f"{HARD}!\n"), "primary")
    await screen.act([a.Click(x=30, y=100, button="middle")])
    await asyncio.wait_for(offer.taken.wait(), 5)
    await screen.act([a.Key(chord="ctrl+d")])
    await eventually(lambda: out.exists() and out.read_text() == f"{HARD}!\n")


async def test_a_gtk_editor_keeps_the_focus(server: Server, screen: Screen, tmp_path: Path) -> None:
    await manage(server, screen)
    file = tmp_path / "note.txt"
    file.write_text(HARD, "utf-8")
    server.start("mousepad", str(file))
    window = await screen.windows.wait_for("note.txt", None, 30)
    await screen.act([a.Click(x=window.x + 200, y=window.y + 200)], settle_ms=5000)

    async def is_copied() -> bool:
        await screen.act([a.Key(chord="ctrl+a"), a.Key(chord="ctrl+c")])
        return (await screen.clipboard.contents()).text == HARD

    await eventually(is_copied)
    saved = await screen.clipboard.contents()
    offer = screen.clipboard.offer(Contents.of(text="pasted 世界"))
    assert next(w for w in screen.windows.listed() if w.is_focused).id == window.id
    await screen.act([a.Key(chord="ctrl+a"), a.Key(chord="ctrl+v")])
    await asyncio.wait_for(offer.taken.wait(), 5)
    restored = screen.clipboard.offer(saved)
    await screen.act([a.Key(chord="ctrl+End"), a.Key(chord="ctrl+v")])
    await asyncio.wait_for(restored.taken.wait(), 5)

    async def is_pasted() -> bool:
        await screen.act([a.Key(chord="ctrl+s"), a.Wait(seconds=0.1)])
        return file.read_text("utf-8").rstrip("\n") == f"pasted 世界{HARD}"

    await eventually(is_pasted)


@pytest.fixture
async def browser(server: Server, screen: Screen, tmp_path: Path) -> Path:
    """Chromium with the page open; its folder."""
    await manage(server, screen)
    (tmp_path / "page.html").write_text(PAGE, "utf-8")
    show(server, tmp_path, "page.html")
    await screen.windows.wait_for("loaded", None, 60)
    return tmp_path


def show(server: Server, folder: Path, name: str) -> None:
    server.start(
        *("chromium", "--no-sandbox", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-gpu", "--test-type"),
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=1200,700"),
        *("--window-position=0,0", (folder / name).as_uri()),
    )


async def title(screen: Screen, begin: str) -> str:
    return (await screen.windows.wait_for(begin, None, 20)).title


async def test_html_in_chromium(screen: Screen, browser: Path) -> None:
    focus = a.Click(x=600, y=400)

    async def is_copied() -> bool:
        await screen.act([focus, a.Key(chord="ctrl+a"), a.Key(chord="ctrl+c")], settle_ms=500)
        found = await screen.clipboard.contents()
        return "bold ü世</b>" in (found.html or "") and found.text == "one bold ü世 two"

    await eventually(is_copied)
    offered = "<i>leise ü世</i>"
    screen.clipboard.offer(Contents.of(text="as text", html=offered))
    await screen.act([focus, a.Key(chord="ctrl+a"), a.Key(chord="ctrl+v")])
    assert "leise ü世</i>" in html.unescape(await title(screen, "html "))
    screen.clipboard.offer(Contents.of(text="only < text"))
    await screen.act([focus, a.Key(chord="ctrl+a"), a.Key(chord="ctrl+v")])
    assert "only < text" in html.unescape(await title(screen, "only"))


async def test_a_large_picture_in_chromium(server: Server, screen: Screen, browser: Path) -> None:
    png = picture(1100, 700)
    assert len(png) > 2 << 20
    offer = screen.clipboard.offer(Contents.of(image=png))
    await screen.act([a.Click(x=600, y=400), a.Key(chord="ctrl+v")])
    assert "image image/png 1100x700" in await title(screen, "image ")
    assert offer.taken.is_set()

    screen.clipboard.offer(Contents())
    (browser / "picture.png").write_bytes(png)
    show(server, browser, "picture.png")  # a tab of the same browser
    await title(screen, "picture.png")

    async def is_copied() -> bool:
        await screen.act([a.Click(x=600, y=400), a.Key(chord="ctrl+c")], settle_ms=500)
        return (await screen.clipboard.contents(only=(PNG,))).image is not None

    await eventually(is_copied)
    found = await screen.clipboard.contents(only=(HTML, PNG))
    assert found.image is not None
    assert len(found.image) > 2 << 20
    pasted, copied = (PIL.Image.open(io.BytesIO(each)) for each in (png, found.image))
    assert pasted.convert("RGB").tobytes() == copied.convert("RGB").tobytes()
