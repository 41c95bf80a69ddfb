"""What programs wrote, within limits."""

from __future__ import annotations

import pytest

from workspace.desktopd.buffers import HeadTail, Ring, whole_characters


def test_head_and_tail_are_kept() -> None:
    buffer = HeadTail(20)
    for piece in (b"0123456", b"789ab", b"c" * 100, b"the end."):
        buffer.append(piece)
    assert buffer.dropped == 100
    assert buffer.text() == "0123456789\n[... 100 bytes left out ...]\nccthe end."


def test_what_fits_is_whole() -> None:
    buffer = HeadTail(20)
    buffer.append("0123456789ü".encode())
    assert (buffer.text(), buffer.dropped) == ("0123456789ü", 0)


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"", 0),
        (b"abc", 3),
        ("ü".encode(), 2),
        ("ü".encode()[:1], 0),
        ("a世".encode()[:3], 1),
        ("a🚀".encode()[:4], 1),
        ("a🚀".encode(), 5),
        (b"a\xff", 2),  # no character begins so: it will be replaced
        (b"\x80\x80\x80\x80", 4),
    ],
)
def test_characters_are_not_cut(data: bytes, kept: int) -> None:
    assert whole_characters(data) == kept


def test_ring_is_read_by_offsets() -> None:
    ring = Ring(10)
    ring.append("abü".encode())
    assert ring.read(0, 3, is_complete=False) == ("ab", 2, 0)
    assert ring.read(2, 10, is_complete=False) == ("ü", 4, 0)
    assert ring.read(99, 10, is_complete=False) == ("", 4, 0)


def test_ring_drops_the_oldest_and_says_so() -> None:
    ring = Ring(10)
    ring.append(b"0123456789abcde")
    assert (ring.start, ring.end, len(ring)) == (5, 15, 10)
    assert ring.read(2, 4, is_complete=False) == ("5678", 9, 3)
    ring.drop(100)
    assert ring.read(0, 4, is_complete=True) == ("", 15, 15)


def test_a_cut_character_at_the_very_end_is_shown() -> None:
    ring = Ring(10)
    ring.append(b"a\xc3")
    assert ring.read(0, 10, is_complete=False) == ("a", 1, 0)
    assert ring.read(0, 10, is_complete=True) == ("a\N{REPLACEMENT CHARACTER}", 2, 0)
