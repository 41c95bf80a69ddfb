"""What never becomes a request is refused like anything else, and bounded."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.fuzz.wire import Answer, Closed, Wire
from tests.serving import listening

HANDSHAKE = (
    b"GET /listen HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async def length(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass

    async def speak_late(websocket: WebSocket) -> None:
        await listen(websocket)
        with suppress(WebSocketDisconnect):
            await websocket.send_text("nobody hears it")

    async def close_late(websocket: WebSocket) -> None:
        await listen(websocket)
        await websocket.close()

    async def refuse(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no", status_code=418))

    app = Starlette(
        routes=[
            Route("/length", length, methods=["POST"]),
            WebSocketRoute("/listen", listen),
            WebSocketRoute("/late/word", speak_late),
            WebSocketRoute("/late/close", close_late),
            WebSocketRoute("/refuse", refuse),
        ]
    )
    async with listening(app) as port:
        wire = Wire(lambda: asyncio.open_connection("127.0.0.1", port))
        yield wire
        await wire.close()


def post(*headers: bytes, body: bytes = b"") -> bytes:
    lines = [b"POST /length HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.headers["connection"] == "close"
    body = json.loads(answer.body)
    assert body["message"]
    assert body["hint"]
    return answer.status, body["code"]


async def test_what_is_fine(wire: Wire) -> None:
    for _ in range(2):  # on one connection
        answer = await wire.exchange(post(b"X: " + b"x" * 60_000, body=b"y" * 3_000_000))
        assert (answer.status, answer.body) == (200, b"3000000")
    chunked = (b"10000\r\n" + b"z" * 0x10000 + b"\r\n") * 20 + b"0\r\n\r\n"
    head = post(b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    assert (await wire.exchange(head + chunked)).body == str(20 * 0x10000).encode()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (post(b"no colon"), 400),
        (post(b"X: " + b"x" * 70_000), 431),
        (post(b"X: " + b"x" * 600_000).removesuffix(b"\r\n\r\n"), 431),  # it never ends
        (post(*(b"X-%d: y" % number for number in range(9000))), 431),
        (b"GET /" + b"a" * 70_000, 431),
        (HANDSHAKE + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n", 400),
        (HANDSHAKE + b"X: " + b"y" * 10_000 + b"\r\n\r\n", 400),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 99") + b"\r\n", 400),
        (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short") + b"\r\n", 400),
    ],
)
async def test_what_is_not(wire: Wire, said: bytes, status: int) -> None:
    assert refused(await wire.exchange(said)) == (status, "invalid_request")
    assert (await wire.exchange(post(body=b"and on"))).body == b"6"


async def test_trailers_are_bounded(wire: Wire) -> None:
    head = post(b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    trailers = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 100) for number in range(1000))
    try:
        answer = await wire.exchange(head + b"1\r\nz\r\n0\r\n" + trailers + b"\r\n")
    except Closed:
        return  # it was already being answered
    assert answer.status in (200, 431)


async def test_text_that_is_no_utf8_ends_a_web_socket(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await wire.exchange(HANDSHAKE + b"\r\n")).status == 101
    await asyncio.wait_for(wire.hang_up(b"\x81\x82\0\0\0\0\xff\xfe"), 20)
    await wire.close()
    for late in (b"/late/word", b"/late/close"):
        assert (await wire.exchange(HANDSHAKE.replace(b"/listen", late) + b"\r\n")).status == 101
        await asyncio.wait_for(wire.hang_up(b"\x81\x82\0\0\0\0\xff\xfe"), 20)
        await wire.close()
    answer = await wire.exchange(HANDSHAKE.replace(b"/listen", b"/refuse") + b"\r\n")
    assert (answer.status, answer.body) == (418, b"no")
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
