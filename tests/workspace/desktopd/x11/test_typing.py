"""Text as keys: what is typed, what is refused, and whatever the keyboard is like meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Client, Server
from workspace import actions as a
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import keymap, pasting
from workspace.desktopd.x11.contents import Contents
from workspace.desktopd.x11.typing import check, parts
from workspace.errors import TimedOut, UntypableText

MIXED = "Grüße, 世界 🚀! ~`^'\"@#{[]}\\|<> aZyY qQ м Ω ñ é 0123456789 -_=+ €;:.?/"
F35, VENDOR = 0xFFE0, 0x10000000


def test_text_is_split_by_what_spare_keys_hold() -> None:
    text = [ord(c) for c in "aXbYcXZaWX"]
    fixed = {ord(c) for c in "abc"}
    split = list(parts(text, fixed, 2))
    assert ["".join(map(chr, part)) for part in split] == ["aXbYcX", "ZaW", "X"]
    assert list(parts([], fixed, 2)) == []


@pytest.mark.parametrize(("text", "named"), [("ab\x1b", "U+001B"), ("\0", "U+0000")])
def test_control_characters_are_untypable(text: str, named: str) -> None:
    with pytest.raises(UntypableText) as caught:
        check(text)
    assert f"Character {len(text)} of the text is {named}" in str(caught.value)


@pytest.fixture
async def typed(server: Server, screen: Screen, tmp_path: Path) -> Callable[..., Awaitable[str]]:
    """What a terminal gets when the actions are played."""
    out, ready = tmp_path / "out", tmp_path / "ready"
    script = f"stty -icanon -echo min 1; touch {ready}; exec cat > {out}"
    server.start("xterm", "-u8", "-geometry", "80x24+0+0", "-e", "bash", "-c", script)
    await eventually(ready.exists)
    await screen.act([a.Click(x=100, y=100)])
    had = 0

    async def play(*actions: a.Action) -> str:
        nonlocal had
        await screen.act([*actions, a.Type(text="\n")])
        await eventually(lambda: out.read_bytes()[had:].endswith(b"\n"))
        text = out.read_bytes()[had:-1].decode("utf-8", "replace")
        had += len(text.encode()) + 1
        return text

    return play


@pytest.mark.parametrize(
    "options",
    [
        *("de", "fr", "ru", "gr", "il", "us -variant dvorak", "us -variant intl"),
        *("us,ru -option grp:toggle", "ru,us -option grp:toggle", "us,de,gr -option grp:toggle"),
    ],
)
async def test_layouts(
    server: Server, screen: Screen, typed: Callable[..., Awaitable[str]], options: str
) -> None:
    def set_layout(layout: str) -> None:
        server.start("setxkbmap", "-layout", *layout.split()).wait(10)

    set_layout(options)
    try:
        for _ in range(options.count(",") + 1):
            assert await typed(a.Type(text=MIXED)) == MIXED
            for lock in ("Caps_Lock", "Num_Lock"):
                await screen.act([a.Key(chord=lock)])
                assert await typed(a.Type(text=MIXED)) == MIXED, lock
                await screen.act([a.Key(chord=lock)])
            if "," in options:
                await screen.act([a.Key(chord="ISO_Next_Group")])
    finally:
        set_layout("us -option")


async def test_held_modifiers_change_nothing_and_come_back(
    screen: Screen, typed: Callable[..., Awaitable[str]]
) -> None:
    for chord in ("shift", "ctrl", "alt", "super", "ctrl+alt+shift", "altgr"):
        down, up = a.KeyDown(chord=chord), a.KeyUp(chord=chord)
        seen = await screen.act([down])
        held = screen._input.held
        assert await typed(a.Type(text="aé-Z世")) == "aé-Z世", chord
        assert screen._input.held == held
        assert screen._keymap.modifiers_down()
        await screen.act([up])
        assert not screen._keymap.modifiers_down()
        assert seen.typed is None


async def test_the_way_is_told(screen: Screen, typed: Callable[..., Awaitable[str]]) -> None:
    await typed()
    seen = await screen.act([a.Type(text="abc é\r\n"), a.Wait(seconds=0.01), a.Type(text="世界\t")])
    assert seen.typed == a.Typed(keys=6, remapped=3)
    assert (await screen.act([a.Move(x=1, y=1)])).typed is None


@contextmanager
def _no_spare_keys(screen: Screen) -> Iterator[None]:
    """Every key of the keyboard carries something."""
    core, keymap = screen._display.core, screen._keymap
    keymap.close()
    reply = core.GetKeyboardMapping(8, 248).reply()
    width, before = reply.keysyms_per_keycode, list(reply.keysyms)
    full = [keysym or F35 for keysym in before]
    for start in range(0, len(full), width):
        if all(keysym == F35 or keysym >= VENDOR for keysym in full[start : start + width]):
            full[start : start + width] = [F35] * width
    core.ChangeKeyboardMapping(248, 8, width, full, is_checked=True).check()
    try:
        yield
    finally:
        core.ChangeKeyboardMapping(248, 8, width, before, is_checked=True).check()


async def test_without_spare_keys_it_is_pasted_and_the_clipboard_comes_back(
    server: Server, screen: Screen, tmp_path: Path, typed: Callable[..., Awaitable[str]]
) -> None:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    terminal = (await screen.windows.wait_for(None, "XTerm", 20)).id
    server.start("mousepad", str(tmp_path / "new.txt"))
    editor = (await screen.windows.wait_for(None, "Mousepad", 20)).id
    screen.windows.focus(editor)
    await eventually(lambda: any(w.id == editor and w.is_focused for w in screen.windows.listed()))
    await screen.act([a.Type(text="kept"), a.Key(chord="ctrl+a"), a.Key(chord="ctrl+c")])
    await eventually(lambda: _clipboard_is(screen, "kept"))
    screen.clipboard.offer(Contents.of(text="marked"), "primary")
    with _no_spare_keys(screen):
        seen = await screen.act([a.Key(chord="End"), a.Type(text="grün\n\t世界🚀")])
        assert seen.typed == a.Typed(keys=2, pasted=7)
        assert await _clipboard_is(screen, "kept")
        screen.windows.focus(terminal)
        await eventually(
            lambda: any(w.id == terminal and w.is_focused for w in screen.windows.listed())
        )
        assert await typed(a.Type(text="plain, grün\t世界")) == "plain, grün\t世界"
        assert await _clipboard_is(screen, "kept")
        assert (await screen.clipboard.contents("primary")).text == "marked"
    screen.windows.focus(editor)
    await eventually(lambda: any(w.id == editor and w.is_focused for w in screen.windows.listed()))
    await screen.act([a.Key(chord="ctrl+a"), a.Key(chord="ctrl+c")])
    await eventually(lambda: _clipboard_is(screen, "keptgrün\n\t世界🚀"))


async def _clipboard_is(screen: Screen, text: str) -> bool:
    return (await screen.clipboard.contents()).text == text


async def test_a_program_that_does_not_paste_is_told_of(
    screen: Screen, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pasting, "_TAKE_SECONDS", 0.1)
    screen.clipboard.offer(Contents.of(text="kept"))
    with _no_spare_keys(screen):
        with pytest.raises(TimedOut, match="did not paste"):
            await screen.act([a.Type(text="世")])
    assert await _clipboard_is(screen, "kept")
    assert screen._input.held == frozenset()


async def test_ten_thousand_characters(
    screen: Screen, typed: Callable[..., Awaitable[str]]
) -> None:
    text = (MIXED * 140)[:10_000]
    assert await typed(a.Type(text=text)) == text


async def test_a_program_that_hangs_keeps_its_keys(
    server: Server, screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keymap, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(keymap, "HUNG_SECONDS", 0.1)
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    file = tmp_path / "text.txt"
    file.write_text("")
    editor = server.start("mousepad", str(file))
    await screen.windows.wait_for(None, "Mousepad", 20)
    await eventually(lambda: any(w.is_focused for w in screen.windows.listed()))
    await screen.act([a.Wait(seconds=0.2)], settle_ms=5000)
    screen._keymap.refresh()
    some = "".join(map(chr, range(0x4E00, 0x4E00 + screen._keymap.capacity())))
    editor.send_signal(signal.SIGSTOP)
    try:
        await screen.act([a.Type(text=some)])
        with pytest.raises(TimedOut, match="has not read"):
            await screen.act([a.Type(text="漢字")])
    finally:
        editor.send_signal(signal.SIGCONT)
    await screen.act([a.Type(text="漢字"), a.Key(chord="ctrl+s")])
    await eventually(lambda: file.read_text().strip() == some + "漢字")


@pytest.mark.parametrize("manager", [("xfwm4", "--compositor=off"), ("openbox",)])
async def test_what_is_typed_after_a_click_goes_where_it_was_clicked(
    server: Server, screen: Screen, tmp_path: Path, manager: tuple[str, ...]
) -> None:
    server.start_on_bus(*manager)
    await screen.wait_for_window_manager(20)
    points: list[tuple[int, int]] = []
    for n in range(2):
        script = f"touch {tmp_path / f'ready{n}'}; exec cat > {tmp_path / f'out{n}'}"
        place = f"40x10+{50 + n * 500}+100"
        server.start("xterm", "-T", f"number {n}", "-geometry", place, "-e", "bash", "-c", script)
        await eventually((tmp_path / f"ready{n}").exists)
        window = await screen.windows.wait_for(f"number {n}", None, 20)
        points.append((window.x + 50, window.y + 50))
    for turn in range(40):
        x, y = points[turn % 2]
        await screen.act([a.Click(x=x, y=y), a.Type(text=f"{turn % 2}\n")])
    for n in range(2):
        out = tmp_path / f"out{n}"
        await eventually(lambda out=out: out.stat().st_size >= 40)  # type: ignore[misc]  # mypy: a lambda's default
        assert out.read_text() == f"{n}\n" * 20


async def test_text_waits_for_what_a_chord_does(
    server: Server, screen: Screen, tmp_path: Path
) -> None:
    server.start_on_bus("xfwm4", "--compositor=off")
    await screen.wait_for_window_manager(20)
    file = tmp_path / "one.txt"
    file.write_text("")
    server.start("mousepad", str(file))
    await screen.windows.wait_for(None, "Mousepad", 20)
    await screen.act([a.Wait(seconds=0.2)], settle_ms=5000)
    name = tmp_path / "other"  # into the dialog that the chord opens, in place of "one"
    seen = await screen.act(
        [a.Type(text="text"), a.Key(chord="ctrl+shift+s"), a.Type(text=f"{name}\n")],
        settle_ms=2000,
        observe="frame",
    )
    saved = tmp_path / "other.txt"
    await eventually(lambda: saved.exists() and saved.read_text().strip() == "text")
    assert not file.read_text()
    assert seen.typed == a.Typed(keys=4 + len(str(name)) + 1)
