from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from xcffib import xproto

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Client, Server, painted
from workspace.desktopd.screen import Screen
from workspace.desktopd.x11 import clipboard, offers
from workspace.desktopd.x11.contents import HTML, LATIN_1, PNG, TEXT, Contents, wanted
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
    await eventually(lambda: not screen.clipboard._offers._transfers)
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


IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10_000  # 2.5 MB


async def test_every_form_through_both_selections(screen: Screen, other: Screen) -> None:
    other.clipboard.offer(Contents.of(text=HARD, html="<b>ü世</b>", image=IMAGE))
    other.clipboard.offer(Contents.of(text="marked"), "primary")
    found = await screen.clipboard.contents()
    assert (found.text, found.html, found.image) == (HARD, "<b>ü世</b>", IMAGE)
    assert {"TARGETS", TEXT, "text/plain", HTML, PNG} <= set(found.targets)
    assert LATIN_1 not in found.targets, "it would have holes"
    assert (await screen.clipboard.contents("primary")).text == "marked"
    only = await screen.clipboard.contents(only=(HTML,))
    assert (only.text, only.html, only.image) == ("", "<b>ü世</b>", None)


async def test_used_for_a_moment_and_left_as_it_was(screen: Screen, other: Screen) -> None:
    other.clipboard.offer(Contents.of(text="theirs", html="<i>theirs</i>", image=IMAGE))
    saved = await screen.clipboard.contents()
    offer = screen.clipboard.offer(Contents.of(text="for a moment"))
    assert not offer.taken.is_set()
    assert await read(other) == "for a moment"
    assert offer.taken.is_set()
    screen.clipboard.offer(saved)
    found = await other.clipboard.contents()
    assert (found.text, found.html, found.image) == ("theirs", "<i>theirs</i>", IMAGE)
    screen.clipboard.offer(Contents())  # as when nobody had copied anything
    assert await other.clipboard.contents() == Contents()
    assert not screen.clipboard._offers._offers


@pytest.mark.parametrize(
    ("data", "html"),
    [
        ("<b>ü</b>".encode(), "<b>ü</b>"),
        (b"\xef\xbb\xbf<b>", "<b>"),
        ("\ufeff<b>世".encode("utf-16-le"), "<b>世"),
        ("<b>世".encode("utf-16-le"), "<b>世"),
        (b"<b>\xff", "<b>\ufffd"),
        (b"", ""),
    ],
)
def test_html_of_any_program_is_read(data: bytes, html: str) -> None:
    assert Contents({HTML: data}).html == html


def test_what_is_offered_and_asked_for() -> None:
    plain = Contents.of(text="ü")
    assert plain.offered()["STRING"] == b"\xfc"
    assert plain.offered()["text/plain"] == plain.offered()["UTF8_STRING"] == b"\xc3\xbc"
    told = '<p><meta charset="ascii">'
    assert Contents.of(html=told).parts[HTML] == told.encode()
    assert Contents.of(html="<p>").html == "<p>"
    assert wanted(("STRING", HTML), (TEXT, PNG)) == ["STRING"]
    assert wanted((TEXT, "STRING", PNG), (PNG, TEXT)) == [PNG, TEXT, "STRING"]
    assert Contents({"STRING": b"\xfc"}).text == "ü"


async def test_a_viewer_is_no_program_that_pastes(
    server: Server, screen: Screen, other: Screen
) -> None:
    reading, writing = await asyncio.open_unix_connection(str(server.folder / "rfb"))
    try:
        writing.write(await reading.readexactly(12))  # the version of RFB (RFC 6143, section 7.1)
        assert await reading.readexactly(2) == b"\x01\x01"
        writing.write(b"\x01")  # no authentication
        assert await reading.readexactly(4) == bytes(4)
        writing.write(b"\x01")  # shared
        (length,) = struct.unpack(">20xI", await reading.readexactly(24))
        await reading.readexactly(length)
        offer = screen.clipboard.offer(Contents.of(text="seen"))
        told = await asyncio.wait_for(reading.readexactly(12), 5)  # ServerCutText
        assert told == b"\x03" + bytes(6) + b"\x04seen"
        assert not offer.taken.is_set()
        assert await read(other) == "seen"
        assert offer.taken.is_set()
    finally:
        writing.close()


async def test_the_simplest_programs_and_hostile_ones(server: Server, screen: Screen) -> None:
    """An owner that answers every question with the same property of its own making."""
    with painted(server.display, (0, 0, 10, 10)) as owner:

        def atom(name: str) -> int:
            return int(owner.core.InternAtom(False, len(name), name).reply().atom)

        async def answering(kind: str, bits: int, data: bytes, *, targets: bool) -> None:
            while True:
                for event in owner.collect():
                    if isinstance(event, xproto.SelectionRequestEvent):
                        is_refused = event.target == atom("TARGETS") and not targets
                        given = 0 if is_refused else event.property
                        where = (0, event.requestor, event.property, atom(kind), bits)
                        count = len(data) * 8 // bits
                        owner.core.ChangeProperty(*where, count, memoryview(data).cast("c"))
                        xs = (event.time, event.requestor, event.selection, event.target, given)
                        answer = struct.pack("=BxHIIIII8x", 31, 0, *xs)
                        owner.core.SendEvent(False, event.requestor, 0, answer)
                owner.events.clear()
                await asyncio.sleep(0.005)

        selection = atom("CLIPBOARD")
        owner.core.SetSelectionOwner(owner.window, selection, 0, is_checked=True).check()
        simple = asyncio.ensure_future(answering("STRING", 8, b"plain \xfc", targets=False))
        assert (await screen.clipboard.contents()).text == "plain \ufffd"
        simple.cancel()
        rubbish = struct.pack("=II", 0xFFFFFFF, atom(TEXT)) * 20_000
        hostile = asyncio.ensure_future(answering("ATOM", 32, rubbish, targets=True))
        found = await screen.clipboard.contents(only=(TEXT,), timeout=5)
        assert set(found.targets) == {TEXT}
        assert len(found.targets) <= 100
        hostile.cancel()
