"""uvicorn's protocols, made to bound and to answer what never becomes a request.

What is no HTTP, or no WebSocket handshake, is answered before any application is asked: in plain
text, not at all (a handshake of too many headers leaves its caller waiting), and a header may be
as long as memory lasts. Here each is refused as Carrel refuses everything, ``{"code", "message",
"hint"}``, with HTTP's own status for it (400, 426, 431 ...), and the connection is closed.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from workspace.errors import InvalidRequest

MAX_HEAD_BYTES = 64 << 10  # of a request: its line and all of its headers
# An extension in the scope: its "abort" cuts the connection, whatever has not been taken of it.
CUT = "carrel.cut"


class _HeadTooLong(Exception):
    """The request's line and headers are longer than :data:`MAX_HEAD_BYTES`."""


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _body(message: str) -> bytes:
    return json.dumps(InvalidRequest(message).to_wire()).encode()


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose refusals are Carrel's, and whose requests' heads are bounded."""

    _head_bytes = 0
    _unparsed_bytes = 0  # received since the parser last told of something

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        self._head_bytes = self._unparsed_bytes = 0
        super().on_message_begin()
        self.scope["extensions"] = {CUT: {"abort": self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:  # of trailers too
        self._count(name + value + b": \r\n")
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def _count(self, part: bytes) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += len(part)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _HeadTooLong  # the parser stops, and asks for send_400_response

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "What was sent is no HTTP request.")

    def _refuse_head(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._refuse(status, f"The request's headers are longer than {MAX_HEAD_BYTES} bytes.")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        # In the middle of an answer there is no place for another: the connection just ends.
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = _body(message)
            self.transport.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                + body
            )
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        if not self.url.isascii():
            self._refuse(HTTPStatus.BAD_REQUEST, "The path of a WebSocket is not ASCII.")
            return
        super().handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        if isinstance(protocol, WebSocketProtocol) and not protocol.handshake_initiated:
            self._refuse(HTTPStatus.BAD_REQUEST, "What was sent is no WebSocket handshake.")


class _Handshake(ServerProtocol):
    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        body = _body(text.strip() or "The WebSocket was refused.")
        headers = Headers(
            {
                "Connection": "close",
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
            }
        )
        return Response(int(status), HTTPStatus(status).phrase, headers, body)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket whose refused handshakes are answered as Carrel answers errors."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # Any: uvicorn's own
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Handshake(extensions=[], max_size=config.ws_max_size, logger=self.conn.logger)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # it was not refused
            self.scope["extensions"] |= {CUT: {"abort": self.transport.abort}}

    async def send(self, message: ASGISendEvent) -> None:
        if self.close_sent and message["type"] in ("websocket.send", "websocket.close"):
            # The other side has left just before: no defect, though uvicorn would log it as one.
            if message["type"] == "websocket.send":
                raise ClientDisconnected
            return
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # refused in full: nothing is missing

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            # Told to who sent it, and to no log: uvicorn's has a trace for each.
            self.frames = []
            self.conn.fail(CloseCode.INVALID_DATA, "the text is not UTF-8")
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()
