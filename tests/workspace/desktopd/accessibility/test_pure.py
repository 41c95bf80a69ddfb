"""D-Bus messages, boxes and outlines as tables, and programs that lie."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.waiting import eventually
from workspace import actions as a
from workspace.desktopd.accessibility import acting, placing, words
from workspace.desktopd.accessibility.acting import Handle
from workspace.desktopd.accessibility.bus import Bus, Gone, Refused, answers, unix_path
from workspace.desktopd.accessibility.focus import Focus
from workspace.desktopd.accessibility.marks import place_tags
from workspace.desktopd.accessibility.outline import Ids, Wanted, matching, outlined
from workspace.desktopd.accessibility.placing import Box
from workspace.desktopd.accessibility.programs import Program, Programs, Ref, as_ref
from workspace.desktopd.accessibility.reading import Budget, Node, Scene, read
from workspace.desktopd.accessibility.wire import (
    Call,
    Malformed,
    Message,
    message_bytes,
    parse,
    unpack,
)
from workspace.elements import Element, ElementTree
from workspace.errors import ElementNotFound, TimedOut
from workspace.models import Window

SCREEN = Box(0, 0, 1280, 800)


# Messages.


def test_a_call_is_laid_out_as_the_protocol_says() -> None:
    call = Call(":1.2", "org.freedesktop.DBus.Properties", "Set", "ssv", "a.b", "C", ("d", 2.5))
    data = call.message(7, "/x/y")
    assert message_bytes(data[:16]) == len(data)
    told = parse(data)
    assert (told.kind, told.serial, told.path, told.member) == (1, 7, "/x/y", "Set")
    assert told.signature == "ssv"
    assert told.values() == ("a.b", "C", 2.5)


@pytest.mark.parametrize(
    ("signature", "data", "value"),
    [
        ("(iiii)", struct.pack("<iiii", 1, -2, 3, 4), ((1, -2, 3, 4),)),
        ("au", struct.pack("<III", 8, 5, 6), ([5, 6],)),
        ("as", struct.pack("<I", 7) + struct.pack("<I", 2) + b"ab\0", (["ab"],)),
        ("v", b"\x01i\0\0" + struct.pack("<i", -9), (-9,)),
        ("yq", b"\x07\0" + struct.pack("<H", 300), (7, 300)),
    ],
)
def test_values_are_read(signature: str, data: bytes, value: object) -> None:
    assert unpack(signature, data) == value


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        ("s", struct.pack("<I", 0xFFFFFFFF) + b"a\0"),  # longer than its message
        ("au", struct.pack("<II", 0x7FFFFFFC, 1)),
        ("i", b"\0"),
        ("(i", b"\0\0\0\0"),
        ("a()", struct.pack("<II", 8, 0) + bytes(8)),  # an endless array of nothing
        ("v", b"\x01v\0"),
        ("a" * 40 + "i", bytes(8)),
        ("z", b""),
        ("ay", struct.pack("<I", 60_000) + bytes(60_000)),  # more than is taken
    ],
)
def test_what_does_not_hold_together_is_refused(signature: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(signature, data)


def test_a_message_that_is_too_long_is_refused_by_its_head() -> None:
    with pytest.raises(Malformed, match="more than is taken"):
        message_bytes(struct.pack("<4BIII", 0x6C, 2, 0, 1, 1 << 30, 1, 0))
    with pytest.raises(Malformed, match="header"):
        message_bytes(struct.pack("<4BIII", 0x6C, 2, 0, 1, 0, 1, 1 << 20))
    with pytest.raises(Malformed):
        message_bytes(b"GET / HTTP/1.1\r\n")


def test_a_signature_of_any_length_is_refused() -> None:
    field = b"\x08\x01s\0" + struct.pack("<I", 300) + b"y" * 300 + b"\0"
    head = struct.pack("<4BIII", 0x6C, 4, 0, 1, 0, 1, len(field))
    with pytest.raises(Malformed, match="signature"):
        parse(head + field + bytes(-len(field) % 8))


@pytest.mark.parametrize(
    ("member", "signature", "body"),
    [
        ("StateChanged", "s", struct.pack("<I", 1) + b"x\0"),
        ("StateChanged", "", b""),
        ("ActiveDescendantChanged", "i", struct.pack("<i", 1)),
    ],
)
def test_an_event_that_cannot_be_read_is_passed_over(
    member: str, signature: str, body: bytes
) -> None:
    class NoWindows:
        def listed(self) -> list[Window]:
            return []

        def focus(self, window: int) -> None: ...

    following = Focus(Ids(), lambda: (1280, 800), NoWindows())
    following.follow(Message(4, 1, 0, "/r", "", member, ":1.1", "", signature, body, "<"))


# Boxes.


@pytest.mark.parametrize(
    ("told", "box"),
    [
        ((1, 2, 3, 4), Box(1, 2, 3, 4)),
        ((-5, 0, 10, 10), Box(-5, 0, 10, 10)),
        ((-(2**31), -(2**31), 1, 1), None),
        ((0, 0, 0, 5), None),
        ((-1, -1, -1, -1), None),
        (("1", 2, 3, 4), None),
        (None, None),
    ],
)
def test_a_box_is_one_or_none(told: object, box: Box | None) -> None:
    assert placing.as_box(told) == box


def test_what_libreoffice_draws_is_moved_to_where_it_is() -> None:
    panel, pane = Box(0, 49, 1280, 751), Box(0, 24, 1280, 751)
    shift = placing.shifted(panel, (0, 0), "root pane", pane)
    assert shift == (0, 25)
    assert placing.shifted(pane, shift, "tool bar", Box(0, 24, 1262, 39)) == (0, 25)
    # A part that GTK draws in it is right again.
    told, gtk = Box(0, 730, 138, 23), Box(0, 755, 138, 24)
    assert placing.shifted(told, shift, "panel", gtk) == (0, 0)
    assert placing.shifted(panel, (0, 0), "panel", pane) == (0, 0)


def _window(id: int, layer: int, box: Box, title: str = "", pid: int = 1) -> Window:
    return Window(
        id=id,
        title=title,
        window_class="",
        pid=pid,
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
        is_focused=False,
        layer=layer,
    )


def test_a_frame_is_the_window_of_its_title_or_its_place() -> None:
    left, right = (
        _window(1, 0, Box(0, 24, 400, 300), "A"),
        _window(2, 1, Box(500, 24, 400, 300), "B"),
    )
    there = [left, right, _window(3, 2, Box(0, 0, 1280, 800), "A", pid=2)]
    assert placing.window_of("A", None, 1, there) == left
    assert placing.window_of("", Box(495, 0, 410, 329), 1, there) == right
    assert placing.window_of("", Box(100, 400, 200, 50), 1, there) is None  # a menu
    assert placing.window_of("A", None, 9, there) is None
    assert placing.covers_of(left, there) == [placing.of_window(each) for each in there[1:]]


def test_tags_stay_in_the_picture_and_apart() -> None:
    boxes = [Box(10 * n, 10, 10, 10) for n in range(20)] + [Box(630, 390, 10, 10)]
    tags = place_tags(boxes, [(18, 12)] * len(boxes), (640, 400))
    assert all(tag.is_in(Box(0, 0, 640, 400)) for tag in tags)
    assert place_tags([Box(-50, -50, 2000, 2000)], [(18, 12)], (640, 400)) != []


# Outlines.


def _node(role: str, parent: Node | None = None, name: str = "", **fields: object) -> Node:
    number = 1 if parent is None else hash((role, name, len(parent.children), parent.ref)) % 10**9
    ref = Ref(":1.1", f"/o/{number}")
    node = Node(ref, parent, 0 if parent is None else parent.depth + 1, SCREEN, role=role)
    node.name, node.told = name, Box(0, 0, 10, 10)
    node.states = words.SHOWING | words.ENABLED | words.SENSITIVE
    for key, value in fields.items():
        setattr(node, key, value)
    if parent is not None:
        parent.children.append(node)
    return node


def test_layout_goes_and_what_is_in_it_moves_up() -> None:
    frame = _node("frame", name="A window")
    panel = _node("panel", _node("filler", frame))
    button = _node("button", panel, "Save")
    _node("static", button, "Save")  # says what the button says
    _node("static", panel, "A hint")
    _node("entry", panel, text="held")
    elements = outlined([frame], Ids())
    assert [(each.role, each.name, each.depth) for each in elements] == [
        ("frame", "A window", 0),
        ("button", "Save", 1),
        ("static", "A hint", 1),
        ("entry", "", 1),
    ]
    assert {each.parent for each in elements[1:]} == {elements[0].id}
    assert len(outlined([frame], Ids(), lambda node: True)) == 7
    found = [node.role for node in matching([frame], Wanted(text="SAVE"), 10)]
    assert found == ["button"]
    assert [n.role for n in matching([frame], Wanted(role="Push Button"), 10)] == ["button"]
    assert not list(matching([frame], Wanted(role="entry", name="held"), 10))


def test_ids_last_and_are_not_too_many() -> None:
    ids = Ids(most=2)
    one, two, three = (Ref(":1.1", f"/{n}") for n in range(3))
    assert [ids.of(one), ids.of(two), ids.of(one), ids.of(three)] == ["e1", "e2", "e1", "e3"]
    assert ids.get("e2") is None  # told longest ago
    assert ids.of(two) == "e4"  # never the number of another


def test_a_tree_is_read_line_by_line() -> None:
    box = a.Region(x=10, y=20, width=100, height=30)
    tree = ElementTree(
        elements=[
            Element(id="e1", role="frame", name='Say "hi"\x1b[2J', box=box),
            Element(id="e2", role="entry", text="a\nb" + "x" * 500, states=["focused"], depth=1),
            Element(id="e3", role="slider", value=0.5, depth=1),
        ],
        truncated=["seconds"],
    )
    frame, entry, slider, cut = tree.as_text().split("\n")
    assert frame == '[e1] frame "Say \\"hi\\" [2J" at 60,35'
    assert entry.startswith('  [e2] entry text="a\\nbxxx')
    assert entry.endswith('x…" (focused)')
    assert slider == "  [e3] slider value=0.5"
    assert cut == "(not all of it: seconds)"


@pytest.mark.parametrize(
    "named",
    [(":1.1", "relative"), ("org.name", "/a"), (":1.1", "/a b"), (":1.1",), 5, (":1.1", "/a/null")],
)
def test_no_object_of_another_name_is_asked(named: object) -> None:
    assert as_ref(named) is None


# Programs that lie.

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _lying(folder: Path, serve: Serve) -> AsyncIterator[Bus]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n")
            writer.write(b"OK 0\r\n")
            await reader.readuntil(b"\r\n")
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(greet, folder / "bus")
    bus = await Bus.connect(f"unix:path={folder}/bus", is_peer=True)
    try:
        yield bus
    finally:
        bus.close()
        server.close()
        await server.wait_closed()


async def _call(reader: asyncio.StreamReader) -> tuple[int, str, str]:
    head = await reader.readexactly(16)
    message = parse(head + await reader.readexactly(message_bytes(head) - 16))
    return message.serial, message.path, message.member


def _answer(serial: int, signature: str = "", body: bytes = b"") -> bytes:
    fields = b"\x05\x01u\0" + struct.pack("<I", serial)
    if signature:
        fields += b"\x08\x01g\0" + bytes([len(signature)]) + signature.encode() + b"\0"
    head = struct.pack("<4BIII", 0x6C, 2, 0, 1, len(body), 1, len(fields))
    return head + fields + bytes(-len(fields) % 8) + body


def _children(*paths: str) -> bytes:
    body = bytearray()
    for path in paths:
        body += bytes(-len(body) % 8)
        body += struct.pack("<I", 4) + b":1.1\0" + bytes(3)
        body += struct.pack("<I", len(path)) + path.encode() + b"\0"
    return struct.pack("<II", len(body), 0) + bytes(body)


async def test_a_program_that_answers_nonsense_is_hung_up_on(short_dir: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _call(reader)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with _lying(short_dir, serve) as bus:
        call = Call("", "a.b", "C")
        with pytest.raises(Gone):
            await bus.call(call, "/")
        with pytest.raises(Gone):
            await bus.call(call, "/")
        assert await answers([bus.start(call, "/")], 1) == [None]


async def test_a_message_that_is_too_long_is_thrown_away(short_dir: Path) -> None:
    length = 20 << 20

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serial, _, _ = await _call(reader)
        writer.write(struct.pack("<4BIII", 0x6C, 4, 0, 1, length, 1, 0))
        for _ in range(20):
            writer.write(bytes(1 << 20))
            await writer.drain()
        writer.write(_answer(serial, "i", struct.pack("<i", 4)))
        await reader.read()

    async with _lying(short_dir, serve) as bus:
        assert await bus.call(Call("", "a.b", "C"), "/") == (4,)


async def test_a_wrong_answer_is_no_answer_and_the_next_is(short_dir: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serial, _, _ = await _call(reader)
        writer.write(_answer(serial, "s", struct.pack("<I", 99)))
        serial, _, _ = await _call(reader)
        writer.write(_answer(serial, "i", struct.pack("<i", 4)))
        await reader.read()

    async with _lying(short_dir, serve) as bus:
        with pytest.raises(Refused):
            await bus.call(Call("", "a.b", "C"), "/")
        assert await bus.call(Call("", "a.b", "C"), "/") == (4,)
        with pytest.raises(Refused, match="no answer in time"):
            await bus.call(Call("", "a.b", "C"), "/", seconds=0.05)


async def test_a_tree_that_bites_its_tail_and_never_ends_is_bounded(short_dir: Path) -> None:
    """Every element has itself, its parent and ten more in it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            serial, path, member = await _call(reader)
            if member == "GetChildren":
                inner = [path, "/r", *(f"{path[:150]}/{n}" for n in range(10))]
                writer.write(_answer(serial, "a(so)", _children(*inner)))
            elif member == "GetState":
                writer.write(_answer(serial, "au", struct.pack("<III", 8, words.SHOWING, 0)))
            elif member == "GetRole":
                writer.write(_answer(serial, "u", struct.pack("<I", 39)))
            elif member == "GetExtents":
                writer.write(_answer(serial, "(iiii)", struct.pack("<iiii", 0, 0, 9, 9)))
            else:  # the count, the name, the text, each in a variant
                writer.write(_answer(serial, "v", b"\x01i\0\0" + struct.pack("<i", 12)))

    async with _lying(short_dir, serve) as bus:
        program = Program(Ref(":1.1", "/r"), bus, None, is_peer=True)
        budget = Budget(max_nodes=500, seconds=10)
        roots = await read([program], Scene(SCREEN, []), budget)
        assert budget.cut == {"max_nodes"}
        assert budget.nodes == 500
        assert not roots  # nothing in it says anything


async def test_a_program_that_is_slow_to_meet_is_met_for_the_next_who_asks(short_dir: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            serial, _, member = await _call(reader)
            if member == "GetChildren":
                writer.write(_answer(serial, "a(so)", _children("/r")))
            else:
                await asyncio.sleep(0.05)
                writer.write(_answer(serial, "u", struct.pack("<I", 7)))

    async with _lying(short_dir, serve) as bus:
        programs = Programs(bus)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(programs.listed(), 0.01)
        await eventually(lambda: programs.get(":1.1") is not None)
        programs.close()


async def test_a_program_that_is_slow_to_say_what_it_is_is_known_later(short_dir: Path) -> None:
    was_met = asyncio.Event()
    toolkit = b"\x01s\0\0" + struct.pack("<I", 8) + b"Chromium\0"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serial, _, _ = await _call(reader)
        writer.write(_answer(serial, "a(so)", _children("/r")))
        pid, kind, _ = [(await _call(reader))[0] for _ in range(3)]
        await was_met.wait()
        writer.write(_answer(pid, "u", struct.pack("<I", 7)))
        writer.write(_answer(kind, "v", toolkit))
        await reader.read()

    async with _lying(short_dir, serve) as bus:
        programs = Programs(bus)
        (program,) = await programs.listed()
        assert (program.pid, program.is_chromium) == (None, False)
        was_met.set()
        await eventually(lambda: (program.pid, program.is_chromium) == (7, True))
        programs.close()


async def test_an_element_whose_program_is_silent_is_not_said_to_be_gone(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await _call(reader)
        for _ in range(3):
            serial, _, _ = await _call(reader)
            writer.write(_answer(serial))  # which is no answer
        await reader.read()

    monkeypatch.setattr(acting, "_SECONDS", 0.2)
    async with _lying(short_dir, serve) as bus:
        handle = Handle("e1", Program(Ref(":1.1", "/r"), bus, is_peer=True), "/r")
        with pytest.raises(TimedOut, match="does not answer"):
            await handle.look()
        monkeypatch.setattr(acting, "_SECONDS", 20)
        with pytest.raises(ElementNotFound):
            await handle.look()


async def test_a_registry_that_answers_nonsense_refuses(short_dir: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serial, _, _ = await _call(reader)
        writer.write(_answer(serial))
        await reader.read()

    async with _lying(short_dir, serve) as bus:
        programs = Programs(bus)
        with pytest.raises(Refused):
            await programs.listed()
        programs.close()


def test_only_unix_sockets_are_gone_to() -> None:
    assert unix_path("unix:path=/a%20b,guid=1") == "/a b"
    assert unix_path("tcp:host=h;unix:abstract=x") == "\0x"
    with pytest.raises(Gone):
        unix_path("tcp:host=example.org,port=1")
