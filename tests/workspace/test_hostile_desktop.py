"""A daemon that lies: whatever it answers is an error of its own desktop, soon and cheaply."""

from __future__ import annotations

import asyncio
import gzip
import resource
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import chain, repeat
from pathlib import Path

import pytest

from workspace import transport
from workspace.backends.base import Endpoint
from workspace.calls import wire
from workspace.desktop import Desktop, connect
from workspace.errors import CarrelError, DesktopLost, InvalidRequest, TimedOut, TooLarge

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def answering(folder: Path, pieces: Iterable[bytes], pause: float) -> AsyncIterator[Desktop]:
    """A desktop whose daemon answers each request with those pieces."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, folder / "sock")
    desktop = connect(Endpoint(url=f"unix://{folder}/sock", token="0123456789abcdef"))
    try:
        yield desktop
    finally:
        await desktop.aclose()
        server.close()


def whole(body: bytes, head: str = "", status: int = 200) -> list[bytes]:
    start = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{head}\r\n"
    return [start.encode() + body]


def endless(head: str, piece: bytes) -> Iterable[bytes]:
    return chain([f"HTTP/1.1 200 OK\r\n{head}".encode()], repeat(piece))


_BOMB = gzip.compress(gzip.compress(bytes(300 << 20)))
LIES: dict[str, tuple[Iterable[bytes], type[CarrelError]]] = {
    "a bomb in a bomb": (whole(_BOMB, "Content-Encoding: gzip, gzip\r\n"), DesktopLost),
    "a deep error": (whole(b"[" * 900_000, status=500), CarrelError),
    "a deep answer": (whole(b'{"ready":' + b"[" * 900_000), DesktopLost),
    "another answer": (whole(b'{"ready": "perhaps"}'), DesktopLost),
    "a redirect": (whole(b"", "Location: http://127.0.0.1:9/\r\n", 302), CarrelError),
    "endless headers": (endless("", b"X-A: " + b"a" * 1000 + b"\r\n"), DesktopLost),
    "an endless body": (
        endless("Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"),
        TooLarge,
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_an_error_and_takes_no_memory(lie: str, tmp_path: Path) -> None:
    pieces, kind = LIES[lie]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with answering(tmp_path, pieces, 0) as desktop:
        with pytest.raises(kind) as raised:
            await asyncio.wait_for(desktop.health(), 10)
    assert type(raised.value) is kind
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10


_PROMISE = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
DRIPS = {"its body": chain([_PROMISE], repeat(b" ")), "its head": repeat(b"HTTP/1.1 102 X\r\n\r\n")}


@pytest.mark.parametrize("part", DRIPS)
async def test_an_answer_that_drips_is_given_up(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(transport, "BODY_SECONDS", 0.3)
    async with answering(tmp_path, DRIPS[part], 0.05) as desktop:
        with pytest.raises(TimedOut, match="did not end in time"):
            await asyncio.wait_for(desktop.health(), 10)


async def test_a_picture_that_says_not_what_it_is(tmp_path: Path) -> None:
    for head in ("", "X-Carrel-Size: 1x\r\n", "X-Carrel-Size: 1x1\r\nX-Carrel-Frame: \xff\r\n"):
        async with answering(tmp_path, whole(b"?", head), 0) as desktop:
            with pytest.raises(DesktopLost):
                await desktop.screenshot_since("a-1")
    async with answering(tmp_path, whole(b"", status=304), 0) as desktop:
        with pytest.raises(DesktopLost):
            await desktop.screenshot_since(None)  # nothing is unchanged since no frame


async def test_text_that_no_wire_carries(tmp_path: Path) -> None:
    async with answering(tmp_path, whole(b"{}"), 0) as desktop:
        for asking in (desktop.run(["\ud800"]), desktop.read_file("\udfff")):
            with pytest.raises(InvalidRequest, match="surrogates"):
                await asking
