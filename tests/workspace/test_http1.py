"""The transport against servers that say exactly these bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx
import pytest

from tests.waiting import eventually
from workspace import http1

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
SECONDS = httpx.Timeout(5)


@asynccontextmanager
async def serving(
    folder: Path, serve: Callable[[Reader, Writer], Awaitable[None]]
) -> AsyncIterator[httpx.AsyncClient]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: Reader, writer: Writer) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def connecting(reader: Reader, writer: Writer) -> None:
        tasks.add(asyncio.ensure_future(connected(reader, writer)))

    server = await asyncio.start_unix_server(connecting, folder / "sock")
    transport = http1.Transport(unix_socket=str(folder / "sock"))
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://desktop", timeout=SECONDS
        ) as http:
            yield http
    finally:
        server.close()
        _, left = await asyncio.wait(tasks, timeout=0.1) if tasks else (set(), set())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def saying(*pieces: bytes) -> Callable[[Reader, Writer], Awaitable[None]]:
    """Answers the first request with those pieces and hangs up."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)  # so that it comes as a piece of its own

    return serve


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "a length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "nothing": (OK + b"content-length:0\r\n\r\n", b""),
    "chunks": (
        OK + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nhel\r\n02;a=b\r\nlo\r\n0\r\nX: y\r\n\r\n",
        b"hello",
    ),
    "to the end": (OK + b"\r\nhello", b"hello"),
    "an older server": (b"HTTP/1.0 200 \r\n\r\nhello", b"hello"),
    "news before": (b"HTTP/1.1 103 X\r\nA: b\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\n!", b"!"),
}


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_answers_however_they_are_cut(answer: str, step: int, tmp_path: Path) -> None:
    said, expected = ANSWERS[answer]
    pieces = [said[start : start + step] for start in range(0, len(said), step)]
    async with serving(tmp_path, saying(*pieces)) as http:
        response = await http.get("/")
        assert (response.status_code, response.content) == (200, expected)


LIES = {
    "another protocol": b"SSH-2.0-x\r\n\r\n",
    "another version": b"HTTP/2 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status beyond": b"HTTP/1.1 600 X\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 X\r\n\r\n",
    "a folded line": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a name with a space": OK + b"Content-Length : 0\r\n\r\n",
    "a nul after many spaces": OK + b"A:" + b" " * 60_000 + b"\0\r\nContent-Length: 0\r\n\r\n",
    "a nul": OK + b"A: \0\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n!",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a length in words": OK + b"Content-Length: five\r\n\r\n",
    "a length and chunks": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "other codings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a chunk without size": OK + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n",
    "a huge chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\nx",
    "a chunk too long": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nhe\r\n0\r\n\r\n",
    "a chunk with a long head": OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 300,
    "endless trailers": OK
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    + b"A: 0123456789\r\n" * 9000,
    "a large head": OK + b"A: " + b"a" * http1.MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    "half a head": OK + b"Content-Le",
    "half a body": OK + b"Content-Length: 10\r\n\r\nhello",
    "half of the chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "silence": b"",
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_no_answer(lie: str, tmp_path: Path) -> None:
    async with serving(tmp_path, saying(LIES[lie])) as http:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await asyncio.wait_for(http.get("/"), 5)


async def _read_request(reader: Reader) -> tuple[bytes, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = b""
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif b"content-length: " in head:
        body = await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
    return head, body


class Echo:
    """Answers with what was sent, and counts its connections; ``tail`` comes unasked after it."""

    def __init__(self, head: bytes = b"", tail: bytes = b"") -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._head, self._tail = head, tail
        self.hang_up = asyncio.Event()

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        while not self.hang_up.is_set():
            head, body = await _read_request(reader)
            self.requests.append(head)
            answer = OK + self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body
            writer.write(answer + self._tail)
            await writer.drain()


async def test_a_connection_is_used_again_only_while_it_is_sound(tmp_path: Path) -> None:
    echo = Echo()
    async with serving(tmp_path, echo) as http:
        for body in (b"", b"one", bytes(1 << 20)):
            assert (await http.post("/a?b=c", content=body)).content == body
        assert echo.connections == 1
        assert echo.requests[0].startswith(b"post /a?b=c http/1.1\r\nhost: desktop\r\n")
        # One that was closed while it lay idle is noticed before it is used.
        echo.hang_up.set()
        await http.get("/")
        echo.hang_up.clear()
        await http.get("/")
        assert echo.connections == 2
        # An answer that was not read to its end, or not at all, ends its connection.
        async with http.stream("POST", "/", content=bytes(1 << 20)):
            pass
        assert (await http.get("/")).content == b""
        assert echo.connections == 3


@pytest.mark.parametrize(("head", "tail"), [(b"Connection: close\r\n", b""), (b"", b"HTTP/1.1")])
async def test_a_connection_that_is_not_used_again(
    head: bytes, tail: bytes, tmp_path: Path
) -> None:
    echo = Echo(head, tail)
    async with serving(tmp_path, echo) as http:
        for number in range(3):
            assert (await http.post("/", content=b"x" * number)).content == b"x" * number
    assert echo.connections == 3


async def test_many_at_once_and_an_upload_of_unknown_length(tmp_path: Path) -> None:
    echo = Echo()

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a" * 70_000, b"", b"b" * 70_000):
            yield piece

    async with serving(tmp_path, echo) as http:
        answers = await asyncio.gather(*(http.post("/", content=pieces()) for _ in range(30)))
        assert {answer.content for answer in answers} == {b"a" * 70_000 + b"b" * 70_000}
        transport = http._transport
        assert isinstance(transport, http1.Transport)
        assert len(transport._idle) == http1.MAX_IDLE


async def test_an_answer_before_all_was_sent(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)
            await asyncio.sleep(0.001)

    async with serving(tmp_path, saying(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")) as http:
        assert (await asyncio.wait_for(http.put("/", content=pieces()), 5)).status_code == 413


@pytest.mark.parametrize("length", ["2", "4"])
async def test_a_body_of_another_length_than_was_said(length: str, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    async with serving(tmp_path, Echo()) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.put("/", content=pieces(), headers={"Content-Length": length})
        assert (await http.get("/")).content == b""  # by another connection


async def test_no_header_of_ours_ends_its_line(tmp_path: Path) -> None:
    async with serving(tmp_path, Echo()) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.get("/", headers={"X-A": "b\r\nX-C: d"})
        assert (await http.get("/", headers={"X-A": "b"})).content == b""


async def test_every_wait_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(5)

    soon = httpx.Timeout(0.05)
    async with serving(tmp_path, silent) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/", timeout=soon)
        with pytest.raises(httpx.WriteTimeout):
            await http.put("/", content=bytes(8 << 20), timeout=soon)
        transport = http._transport
        assert isinstance(transport, http1.Transport)
        transport._slots = anyio.Semaphore(0)
        with pytest.raises(httpx.PoolTimeout):
            await http.get("/", timeout=soon)
    absent = http1.Transport(unix_socket=str(tmp_path / "absent"))
    async with httpx.AsyncClient(transport=absent) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("http://desktop/")


async def test_cancelled_it_hangs_up_and_gives_its_place_back(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def silent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read(1) == b""
        hung_up.set()

    async with serving(tmp_path, silent) as http:
        asking = asyncio.ensure_future(http.get("/"))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await eventually(hung_up.is_set)
        transport = http._transport
        assert isinstance(transport, http1.Transport)
        assert transport._slots.value == http1.MAX_CONNECTIONS


async def test_memory_is_bounded_while_nobody_reads(tmp_path: Path) -> None:
    sent = 0

    async def flood(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\n")
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    async with serving(tmp_path, flood) as http, http.stream("GET", "/") as response:
        await asyncio.sleep(0.3)
        assert sent < 4 << 20
        before = sent
        async for _ in response.aiter_bytes():
            if sent > before + (4 << 20):
                break


async def test_what_nobody_uses_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "IDLE_SECONDS", 0.05)
    ended = 0

    async def serve(reader: Reader, writer: Writer) -> None:
        nonlocal ended
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        assert await reader.read() == b""
        ended += 1

    async with serving(tmp_path, serve) as http:
        await asyncio.gather(*(http.get("/") for _ in range(3)))
        await eventually(lambda: ended == 3)
        assert (await http.get("/")).status_code == 200


async def test_it_asks_for_exactly_what_it_is_told_to(tmp_path: Path) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        writer.write(OK + b"Content-Length: %d\r\n\r\n%b" % (len(asked), asked))

    async with serving(tmp_path, serve) as http:
        for target in (b"*", b'/a/../b"%zz', b"/\xc3\xa9?#"):
            answer = await http.get("/", extensions={"target": target})
            assert answer.content == target


async def test_it_does_not_wait_for_ever_for_the_answer_itself(tmp_path: Path) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with serving(tmp_path, saying(interim * 50 + OK + b"Content-Length: 0\r\n\r\n")) as http:
        with pytest.raises(httpx.RemoteProtocolError, match="again and again"):
            await http.get("/")
