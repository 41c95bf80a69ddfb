"""Text typed into real programs comes out byte for byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Server
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.errors import UntypableText

GREETING = "Grüße, 世界 🚀"
ALPHABET = "abcXYZ09,.!? äöüßéñ世界日本語한글кириллицаΩ≈🚀😀—“”€@#{}[]|\\~`"
# More different characters than there are spare keys.
MANY = "".join(chr(code) for code in range(0x4E00, 0x4E28))


def texts() -> list[str]:
    chance = random.Random(1)
    mixed = ["".join(chance.choice(ALPHABET) for _ in range(60)) for _ in range(4)]
    return [GREETING] * 20 + mixed + [MANY]


async def test_terminal(server: Server, screen: Screen, tmp_path: Path) -> None:
    out, ready = tmp_path / "out", tmp_path / "ready"
    script = f"touch {ready}; exec cat > {out}"
    server.start("xterm", "-u8", "-geometry", "80x24+0+0", "-e", "bash", "-c", script)
    await eventually(ready.exists, 20)
    await screen.act([a.Click(x=100, y=100)])
    wanted = [*texts(), "tab\there", "~!@#$%^&*()_+{}|:\"<>?`-=[]\\;',./", "x" * 2000]
    for text in wanted:
        await screen.act([a.Type(text=text + "\n")])
    await screen.act([a.Key(chord="ctrl+d")])
    whole = "".join(text + "\n" for text in wanted)
    await eventually(lambda: out.stat().st_size >= len(whole.encode()), 20)
    assert out.read_text() == whole


async def test_control_characters_type_nothing(
    server: Server, screen: Screen, tmp_path: Path
) -> None:
    out, ready = tmp_path / "out", tmp_path / "ready"
    script = f"touch {ready}; exec cat > {out}"
    server.start("xterm", "-u8", "-geometry", "80x24+0+0", "-e", "bash", "-c", script)
    await eventually(ready.exists, 20)
    await screen.act([a.Click(x=100, y=100)])
    with pytest.raises(UntypableText):
        await screen.act([a.Type(text="one\x1btwo\n")])
    await screen.act([a.Type(text="three\n"), a.Key(chord="ctrl+d")])
    await eventually(lambda: out.exists() and out.stat().st_size > 0)
    assert out.read_text() == "three\n"


async def check_editor(screen: Screen) -> None:
    """Type each text into the editor that has the focus, and copy it out again."""
    for text in texts():
        clear = [a.Key(chord="ctrl+a"), a.Key(chord="Delete")]
        await screen.act([*clear, a.Type(text=text)])
        for _ in range(100):
            await screen.act([a.Key(chord="ctrl+a"), a.Key(chord="ctrl+c")])
            copied = (await screen.clipboard.contents()).text
            if copied == text:
                break
            await screen.act([a.Wait(seconds=0.02)])
        assert copied == text


async def check_drag_and_drop(screen: Screen) -> None:
    for times in range(1, 4):
        await screen.act([a.Drag(path=[(100, 250), (700, 250)])])
        await eventually(
            lambda times=times: screen.windows.listed()[-1].title.count("dropped") == times
        )


async def test_gtk(server: Server, screen: Screen, tmp_path: Path) -> None:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    file = tmp_path / "note.txt"
    file.write_text("")
    server.start("mousepad", str(file))
    await eventually(lambda: any(w.is_focused for w in screen.windows.listed()), 30)
    await screen.act([a.Wait(seconds=0.1)], settle_ms=5000)
    window = screen.windows.listed()[-1]
    await screen.act([a.Click(x=window.x + 200, y=window.y + 200)])
    await check_editor(screen)
    await screen.act([a.Key(chord="ctrl+a"), a.Type(text=GREETING), a.Key(chord="ctrl+s")])
    await eventually(lambda: file.read_text().strip() == GREETING)


async def test_chromium(server: Server, screen: Screen, tmp_path: Path) -> None:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    page = tmp_path / "page.html"
    page.write_text(
        "<meta charset=utf-8><title>loaded</title>"
        "<div draggable=true style='position:fixed;left:0;top:0;width:200px;height:200px'"
        " ondragstart=\"event.dataTransfer.setData('text/plain', 'x')\">drag</div>"
        "<div style='position:fixed;left:600px;top:0;width:200px;height:200px;background:#8c8'"
        " ondragover='event.preventDefault()'"
        " ondrop=\"event.preventDefault(); document.title += ' dropped'\">drop</div>"
        "<textarea autofocus style='position:fixed;top:220px;width:95vw;height:50vh'></textarea>"
    )
    server.start(
        *("chromium", "--no-sandbox", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-gpu", "--test-type"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,700"),
        *("--window-position=0,0", page.as_uri()),
    )
    await eventually(
        lambda: any("loaded" in w.title and w.is_focused for w in screen.windows.listed()), 60
    )
    await screen.act([a.Click(x=500, y=500)], settle_ms=5000)
    await check_editor(screen)
    await check_drag_and_drop(screen)
