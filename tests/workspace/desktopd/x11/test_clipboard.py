from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from xcffib import xproto

from tests.workspace.desktopd.x11.harness import Client, Server, painted
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import clipboard, offers
from workspace.desktopd.x11.contents import TEXT, Contents
from workspace.errors import TimedOut, TooLarge

HARD = "Grüße, 世界 🚀\nline two"
LONG = "0123456789é世🚀\n" * 70_000  # 1.5 MB in UTF-8


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Screen]:
    """A second program with a clipboard: another connection of the same kind."""
    other = await Screen.open(server.display)
    try:
        yield other
    finally:
        await other.aclose()


async def read(screen: Screen) -> str:
    return (await screen.clipboard.contents(only=(TEXT,))).text


@pytest.mark.parametrize("text", ["", HARD, LONG], ids=["empty", "short", "long"])
async def test_both_ways(screen: Screen, other: Screen, text: str) -> None:
    screen.clipboard.offer(Contents.of(text=text))
    assert await read(screen) == text
    assert await read(other) == text
    other.clipboard.offer(Contents.of(text=text + "!"))
    assert await read(screen) == text + "!"
    assert not screen.clipboard._offers._offers


async def test_many_read_a_long_text_at_once(server: Server, screen: Screen, other: Screen) -> None:
    screen.clipboard.offer(Contents.of(text=LONG))
    third = await Screen.open(server.display)
    try:
        got = await asyncio.gather(*(read(each) for each in (other, third, other, screen)))
        assert all(text == LONG for text in got)
    finally:
        await third.aclose()
    assert not screen.clipboard._offers._transfers


async def test_nobody_owns_it(screen: Screen) -> None:
    assert await read(screen) == ""


async def test_owner_that_does_not_answer(server: Server, screen: Screen, other: Screen) -> None:
    with painted(server.display, (0, 0, 10, 10)) as silent:
        selection = silent.core.InternAtom(False, 9, "CLIPBOARD").reply().atom
        silent.core.SetSelectionOwner(silent.window, selection, 0, is_checked=True).check()
        with pytest.raises(TimedOut, match="owner did not answer"):
            await screen.clipboard.contents(timeout=0.2)
        other.clipboard.offer(Contents.of(text=HARD))
        assert await read(screen) == HARD


async def test_reader_that_goes_away(
    server: Server, screen: Screen, other: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "TRANSFER_SECONDS", 0.1)
    screen.clipboard.offer(Contents.of(text=LONG))
    with painted(server.display, (0, 0, 10, 10)) as reader:
        ask_for_text(reader)
        await answered(reader)
        assert screen.clipboard._offers._transfers
    await asyncio.sleep(0.3)
    assert not screen.clipboard._offers._transfers
    assert await read(other) == LONG


def ask_for_text(reader: Client) -> None:
    def atom(name: str) -> int:
        return int(reader.core.InternAtom(False, len(name), name).reply().atom)

    reader.core.ConvertSelection(
        reader.window, atom("CLIPBOARD"), atom("UTF8_STRING"), atom("HERE"), 0, is_checked=True
    ).check()


async def answered(reader: Client) -> None:
    for _ in range(500):
        if any(isinstance(event, xproto.SelectionNotifyEvent) for event in reader.collect()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no answer")


async def test_too_much(screen: Screen, other: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    other.clipboard.offer(Contents.of(text=LONG))
    monkeypatch.setattr(clipboard, "MAX_BYTES", 1 << 20)
    with pytest.raises(TooLarge):
        await read(screen)
    with pytest.raises(TooLarge):
        screen.clipboard.offer(Contents.of(text=LONG))
    other.clipboard.offer(Contents.of(text=HARD))
    assert await read(screen) == HARD
