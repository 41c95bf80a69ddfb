"""The filter of a VNC client's messages, as tables."""

from __future__ import annotations

import random
import struct

import pytest

from workspace.desktopd.rfb import MAX_CUT_TEXT, ClientStream, ProtocolError, Role

HELLO = b"RFB 003.008\n\x01\x00"


def key(keysym: int, *, down: bool) -> bytes:
    return struct.pack(">BBHI", 4, down, 0, keysym)


def pointer(mask: int, x: int, y: int) -> bytes:
    return struct.pack(">BBHH", 5, mask, x, y)


def qemu_key(keysym: int, code: int, *, down: bool) -> bytes:
    return struct.pack(">BBHII", 255, 0, down, keysym, code)


def encodings(*wanted: int) -> bytes:
    return struct.pack(f">BBH{len(wanted)}i", 2, 0, len(wanted), *wanted)


CUT = struct.pack(">BxxxI", 6, 5) + b"hello"
EXTENDED_CUT = struct.pack(">Bxxxi", 6, -8) + b"12345678"
RESIZE = struct.pack(">BxHHBx", 251, 800, 600, 1) + bytes(16)
INPUT = [
    key(97, down=True),
    pointer(1, 5, 6),
    qemu_key(97, 30, down=True),
    CUT,
    EXTENDED_CUT,
    RESIZE,
]
HARMLESS = [
    bytes([0]) + bytes(19),
    encodings(0, 7, 16),
    struct.pack(">BBHHHH", 3, 1, 0, 0, 10, 10),
    struct.pack(">BBHHHH", 150, 1, 0, 0, 10, 10),
    struct.pack(">BxxxIB", 248, 1, 3) + b"abc",
]


class Holder:
    """A gate whose input passes while ``has_control``; what passed is in ``heard``."""

    def __init__(self) -> None:
        self.has_control = True
        self.heard: list[tuple[object, ...]] = []

    def admits(self) -> bool:
        return self.has_control

    def key(self, keysym: int, is_down: bool) -> None:
        self.heard.append((keysym, is_down))

    def pointer(self, buttons: int, x: int, y: int) -> None:
        self.heard.append((buttons, x, y))


def stream_of(role: Role) -> ClientStream:
    return ClientStream(Holder() if role == "control" else None)


def greeted(role: Role) -> ClientStream:
    client = stream_of(role)
    assert client.feed(HELLO) == b"RFB 003.008\n\x01\x01", "always shared"
    return client


@pytest.mark.parametrize("message", INPUT)
def test_a_viewer_has_no_input(message: bytes) -> None:
    client = greeted("view")
    assert client.feed(message + HARMLESS[0]) == HARMLESS[0]
    assert client.held.release() == b""


@pytest.mark.parametrize("message", [*INPUT, *HARMLESS])
def test_control_passes_input(message: bytes) -> None:
    assert greeted("control").feed(message) == message


@pytest.mark.parametrize("message", HARMLESS)
def test_a_viewer_may_look(message: bytes) -> None:
    assert greeted("view").feed(message) == message


@pytest.mark.parametrize("role", ["view", "control"])
def test_it_does_not_matter_how_the_bytes_come(role: Role) -> None:
    stream = HELLO + b"".join(INPUT + HARMLESS) * 3
    whole = stream_of(role).feed(stream)
    for size in (1, 2, 3, 7, 31):
        client = stream_of(role)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert b"".join(map(client.feed, pieces)) == whole


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.",
        b"RFB 003.003\n",
        b"RFB 003.007\n",
        b"RFB 003.0x8\n",
        b"RFB 003.008\n\x02",
        HELLO + b"\x01",
        HELLO + bytes([253]),
        HELLO + bytes([7]),
        HELLO + b"\xff\x01",
        HELLO + encodings(*range(2000)),
    ],
)
def test_what_is_not_known_ends_the_connection(said: bytes) -> None:
    client = stream_of("control")
    with pytest.raises(ProtocolError):
        client.feed(said)


def test_encodings_that_change_the_grammar_are_never_negotiated() -> None:
    asked = encodings(7, -316, -305, -309, -259, -224)
    assert greeted("control").feed(asked) == encodings(7, -224)


def test_nobody_switches_the_machine_off() -> None:
    assert greeted("control").feed(b"\xfa\x00\x01\x02" + HARMLESS[0]) == HARMLESS[0]


def test_a_huge_clipboard_is_dropped_without_being_kept() -> None:
    client = greeted("control")
    client.feed(struct.pack(">BxxxI", 6, MAX_CUT_TEXT * 4))
    for _ in range(4):
        assert client.feed(bytes(MAX_CUT_TEXT)) == b""
        assert len(client._buffer) == 0
    assert client.feed(HARMLESS[0]) == HARMLESS[0]


def test_what_is_held_is_released() -> None:
    client = greeted("control")
    client.feed(key(97, down=True) + key(98, down=True) + key(97, down=False))
    client.feed(qemu_key(99, 46, down=True) + pointer(5, 10, 20))
    assert client.held.release() == (
        key(98, down=False) + qemu_key(99, 46, down=False) + pointer(0, 10, 20)
    )
    assert client.held.release() == b""


def test_holding_every_key_is_refused() -> None:
    client = greeted("control")
    with pytest.raises(ProtocolError):
        client.feed(b"".join(key(keysym, down=True) for keysym in range(300)))


def test_who_loses_control_goes_on_as_a_viewer_and_what_was_held_is_released() -> None:
    holder = Holder()
    client = ClientStream(holder)
    client.feed(HELLO)
    client.feed(key(97, down=True) + pointer(1, 5, 6) + qemu_key(98, 48, down=True))
    holder.has_control = False
    assert client.held.release() == (
        key(97, down=False) + qemu_key(98, 48, down=False) + pointer(0, 5, 6)
    )
    assert client.feed(key(97, down=False) + CUT + RESIZE + HARMLESS[0]) == HARMLESS[0]
    assert client.held.release() == b""
    holder.has_control = True
    assert client.feed(pointer(0, 9, 9)) == pointer(0, 9, 9)
    assert holder.heard == [(97, True), (1, 5, 6), (98, True), (0, 9, 9)]


def test_a_message_that_began_before_control_went_does_not_pass() -> None:
    holder = Holder()
    client = ClientStream(holder)
    client.feed(HELLO)
    assert client.feed(pointer(1, 5, 6)[:4]) == b""
    holder.has_control = False
    assert client.feed(pointer(1, 5, 6)[4:]) == b""


@pytest.mark.parametrize("seed", range(5))
def test_what_is_malformed_passes_nothing_that_is_input(seed: int) -> None:
    """Messages with bits flipped and cut anywhere: parsed again, nothing of a viewer's is input."""
    chance = random.Random(seed)
    for _ in range(300):
        said = bytearray(b"".join(chance.choices(INPUT + HARMLESS, k=chance.randint(1, 8))))
        for _ in range(chance.randint(0, 4)):
            said[chance.randrange(len(said))] ^= 1 << chance.randrange(8)
        for gate in (None, Holder()):
            client = ClientStream(gate)
            client.feed(HELLO)
            passed = b""
            try:
                while said:
                    passed += client.feed(bytes(said[: (size := chance.randint(1, 40))]))
                    del said[:size]
            except ProtocolError:
                pass
            assert len(client._buffer) <= MAX_CUT_TEXT + 8
            again = ClientStream(None)
            again.feed(HELLO)
            if gate is None:
                assert again.feed(passed) == passed, "all of it is a viewer's"
