"""The relay: bytes both ways for who has the token, nothing for who has not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ray_cluster.relay import MAX_HEAD_BYTES, Relay
from workspace.backends.base import Endpoint
from workspace.backends.fake import FakeBackend
from workspace.desktop import connect
from workspace.errors import DesktopLost, Unauthorized
from workspace.models import Template

pytestmark = pytest.mark.anyio
TOKEN = "0123456789abcdef"
HEAD = f"GET / HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def relayed(
    folder: Path, handler: Handler, *, max_connections: int = 200, idle_seconds: float = 60
) -> AsyncIterator[tuple[str, int]]:
    """A relay before a bare server on a socket; host and port."""
    path = str(folder / "s")
    server = await asyncio.start_unix_server(handler, path)
    relay = Relay(path, TOKEN, max_connections=max_connections, idle_seconds=idle_seconds)
    try:
        host, port = (await relay.start("127.0.0.1")).removeprefix("http://").split(":")
        yield host, int(port)
    finally:
        await relay.close()
        server.close()


async def all_upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers once the other side has said all."""
    writer.write((await reader.read()).upper())
    writer.close()


async def ask(address: tuple[str, int], data: bytes, *, end: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_desktop_answers_through_it(short_dir: Path) -> None:
    backend = FakeBackend(str(short_dir))
    here = await backend.start("abcdefgh", Template(name="t", backend="fake"))
    relay = Relay(here.url.removeprefix("unix://"), here.token)
    url = await relay.start("127.0.0.1")
    try:
        for token in (here.token, "wrong"):
            desktop = connect(Endpoint(url=url, token=token))
            try:
                if token == "wrong":
                    with pytest.raises(Unauthorized):
                        await desktop.health()
                else:
                    assert (await desktop.health()).ready
                    assert len(await desktop.screenshot()) > 1000
                    data = bytes(range(256)) * 40_000  # more than any buffer on the way
                    await desktop.write_file("big", data)
                    assert await desktop.read_file("big") == data
            finally:
                await desktop.aclose()
        await backend.stop("abcdefgh")
        desktop = connect(Endpoint(url=url, token=here.token))
        with pytest.raises(DesktopLost, match="does not answer"):
            await desktop.health()
        await desktop.aclose()
    finally:
        await relay.close()
        await backend.stop("abcdefgh")


async def test_one_side_may_end_before_the_other(short_dir: Path) -> None:
    async with relayed(short_dir, all_upper) as address:
        assert await ask(address, HEAD + b"the rest") == HEAD.upper() + b"THE REST"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: Bearer wrong\r\n\r\n",
        HEAD.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer other\r\n\r\n"),
        b"\x16\x03\x01\x00\xff",
        b"GET /" + b"x" * 2 * MAX_HEAD_BYTES,
    ],
)
async def test_without_the_token_not_a_byte_reaches_the_desktop(
    short_dir: Path, head: bytes
) -> None:
    reached = False

    async def desktop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached = True

    async with relayed(short_dir, desktop) as address:
        answer = await ask(address, head)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 422 "))
        assert not reached


async def test_a_reader_that_stops_stops_the_writer(short_dir: Path) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        except ConnectionError:
            pass

    async with relayed(short_dir, flood) as address:
        _, writer = await asyncio.open_connection(*address, limit=1024)
        writer.write(HEAD)
        before = -1
        while before != sent:  # until nothing moves for a while
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < 64 << 20
        writer.transport.abort()


async def test_one_connection_too_many_and_one_that_idles(short_dir: Path) -> None:
    reached = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()
        writer.close()

    async with relayed(short_dir, silent, max_connections=1, idle_seconds=0.5) as address:
        first = asyncio.ensure_future(ask(address, HEAD, end=False))
        await asyncio.wait_for(reached.wait(), 5)
        assert (await ask(address, HEAD)).startswith(b"HTTP/1.1 503 ")
        assert await first == b""  # closed for idling
        second = asyncio.ensure_future(ask(address, HEAD, end=False))
        assert await second == b""  # there was room for it again
