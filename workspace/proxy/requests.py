"""HTTP/1.1 requests through the proxy: each is read whole, judged, and written anew.

h11 reads and writes both sides, so what reaches a server is what was judged: nothing that two
parsers may read in two ways goes through. Headers of one connection end here, and secrets are put
in. A request names a permitted host by its target and by its ``Host`` alike, or it is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import h11

from workspace.egress import Secret, normal_host
from workspace.proxy.masking import Mask, masked, words_of
from workspace.proxy.patience import Watch
from workspace.proxy.resolving import Failed, Refused
from workspace.proxy.streams import Stream

HEAD_SECONDS = 15.0
NEXT_SECONDS = 60.0  # until another request of the same connection
IDLE_SECONDS = 300.0  # within one
SOCKET_SECONDS = 1800.0  # of a WebSocket on which nothing moves
MAX_HEAD_BYTES = 64 << 10
PLAIN_PORT = 80  # the one that a secret goes to without TLS
_TARGET = re.compile(r"http://(?P<authority>[^/?#\\@\s]+)(?P<path>[/?][^#\s]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.DOTALL)
_HOPS = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade expect http2-settings".split()
)
_ECHOES = (b"TRACE", b"TRACK")
# What comes back is looked through for secrets: it has to be whole, and as it is.
_ABOUT_THE_ANSWER = frozenset(b"accept-encoding range request-range if-range".split())
Headers = Sequence[tuple[bytes, bytes]]


class Target(NamedTuple):
    """A host in its normal form, and a port."""

    host: str
    port: int


class Reached(Protocol):
    """A server that is connected to."""

    stream: Stream
    secrets: Sequence[Secret]

    def moved(self, up: int, down: int) -> None: ...
    def close(self) -> None: ...


class Gate(Protocol):
    """Who judges."""

    async def reach(self, target: Target) -> Reached: ...
    def permit(self, target: Target) -> None: ...
    def note(self, target: Target | None, verdict: str, reason: str) -> None: ...


class Malformed(Exception):
    """No request that can be passed on; the answer's status comes with it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def authority(text: str, default_port: int | None) -> Target:
    """
    Raises:
        Malformed: it is no ``host:port``.
    """
    found = _AUTHORITY.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else default_port
    if found is None or port is None or not 0 < port < 65536:
        raise Malformed(f"{text[:80]!r} is not host:port")
    try:
        return Target(normal_host(found["host"]), port)
    except ValueError as error:
        raise Malformed(str(error), 403) from None


def answer(status: int, reason: str) -> bytes:
    """A refusal that people and programs can read, as the last answer of a connection.

    The reason is in the status line too: of an answer to CONNECT programs show no more.
    """
    body = f"Carrel's egress: {reason}.\n".encode("ascii", "replace")
    line = re.sub(r"[^ -~]", "?", reason)[:200]
    error = "http_request_denied" if status == 403 else "connection_refused"
    return (
        f"HTTP/1.1 {status} {line}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Proxy-Status: carrel; error={error}\r\nConnection: close\r\n\r\n".encode("ascii")
        + body
    )


class Relay:
    """The requests of one client's connection. ``fixed``: all of them are for that one."""

    def __init__(
        self, client: Stream, gate: Gate, fixed: Target | None = None, *, is_tls: bool = False
    ) -> None:
        self._client, self._gate, self._fixed = client, gate, fixed
        self._is_tls, self._default_port = is_tls, 443 if is_tls else 80
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._reached: Reached | None = None
        self._target: Target | None = None  # of what is reached
        self._server: h11.Connection | None = None
        self._watch = Watch()

    async def run(self, reached: Reached | None = None) -> None:
        """Until the client ends, or one request cannot be passed on."""
        self._reached, self._target = reached, self._fixed if reached else None
        target: Target | None = None
        is_first = True
        try:
            self._watch.start(HEAD_SECONDS)
            while True:
                event = await self._next()
                self._watch.moved(IDLE_SECONDS)
                if not isinstance(event, h11.Request):
                    return
                target, path = self._judge(event)
                if not await self._pass(event, target, path):
                    return
                target = None
                is_first = False
                self._watch.moved(NEXT_SECONDS)
        except asyncio.CancelledError:
            if not self._watch.is_late:
                raise
            if target is not None:
                await self._refuse(504, "nothing moved for too long", target, "failed")
            elif is_first:
                await self._refuse(408, "no request came in time", None)
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, f"that is not HTTP: {error}", target)
        except Malformed as error:
            await self._refuse(error.status, str(error), target)
        except Refused as error:
            await self._refuse(403, str(error), target)
        except Failed as error:
            await self._refuse(502, str(error), target, "failed")
        finally:
            self._watch.stop()
            self._leave()

    async def _refuse(
        self, status: int, reason: str, target: Target | None, verdict: str = "refused"
    ) -> None:
        self._gate.note(target, verdict, reason)
        if self._conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else it has its answer
            await asyncio.wait_for(self._client.write(answer(status, reason)), HEAD_SECONDS)

    def _leave(self) -> None:
        if self._reached is not None:
            self._reached.close()
        self._reached = self._server = self._target = None

    async def _next(self) -> object:
        while (event := self._conn.next_event()) is h11.NEED_DATA:
            self._conn.receive_data(await self._client.read())
        return event

    def _judge(self, request: h11.Request) -> tuple[Target, bytes]:
        """What is asked for, and the path to ask the server for."""
        text = request.target.decode("latin-1")
        names = [name for name, _ in request.headers]
        if names.count(b"content-length") and names.count(b"transfer-encoding"):
            raise Malformed("it has a length and a transfer encoding")
        if self._fixed is not None:
            if not (text.startswith("/") or text == "*"):
                raise Malformed("a path is to be asked for here")
            target, path = self._fixed, text
        else:
            found = _TARGET.fullmatch(text)
            if found is None:
                raise Malformed(f"this is a proxy: ask for http://host/path, not {text[:80]!r}")
            target = authority(found["authority"], 80)
            path = found["path"] or "/"
            path = path if path.startswith("/") else f"/{path}"
        hosts = [value for name, value in request.headers if name == b"host"]
        default = self._default_port if self._fixed else 80
        if hosts and authority(hosts[0].decode("latin-1"), default) != target:
            raise Malformed(f"its Host is not the {target.host}:{target.port} it asks for", 403)
        return target, path.encode("latin-1")

    async def _pass(self, request: h11.Request, target: Target, path: bytes) -> bool:
        """Have the server answer; whether the connection goes on."""
        if self._reached is None or self._target != target:
            self._leave()
            self._reached, self._target = await self._gate.reach(target), target
        else:
            self._gate.permit(target)
        if self._server is None:
            self._server = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        reached, server = self._reached, self._server
        upgrade = _is_websocket(request)
        headers = self._headers(request, target, reached.secrets, upgrade=upgrade)
        await self._up(
            server.send(h11.Request(method=request.method, target=path, headers=headers))
        )
        if self._conn.they_are_waiting_for_100_continue:
            hint = h11.InformationalResponse(status_code=100, headers=[])
            await self._client.write(self._conn.send(hint) or b"")
        sending: asyncio.Task[None] | None = None
        if not isinstance(first := self._conn.next_event(), h11.EndOfMessage):
            sending = asyncio.ensure_future(self._send_body(first))
        else:
            await self._up(server.send(h11.EndOfMessage()))
        receiving = asyncio.ensure_future(self._receive(upgrade))
        tasks = [task for task in (sending, receiving) if task is not None]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
            if not receiving.done():
                return False
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if server.our_state is h11.DONE and server.their_state is h11.DONE:
            server.start_next_cycle()
        else:
            self._leave()
        if self._conn.our_state is not h11.DONE or self._conn.their_state is not h11.DONE:
            return False
        self._conn.start_next_cycle()
        return True

    def _headers(
        self, request: h11.Request, target: Target, secrets: Sequence[Secret], *, upgrade: bool
    ) -> list[tuple[bytes, bytes]]:
        if secrets and request.method.upper() in _ECHOES:
            raise Refused("a method that sends a request back is not for a host with a secret")
        if secrets and not self._is_tls and target.port != PLAIN_PORT:
            raise Refused(
                f"the secret for {target.host}:{target.port} goes there by https alone: plain HTTP"
                f" is for secrets of port {PLAIN_PORT}"
            )
        host = f"[{target.host}]" if ":" in target.host else target.host
        if target.port != self._default_port:
            host = f"{host}:{target.port}"
        put = {secret.header.lower().encode(): secret for secret in secrets}
        kept = [(b"Host", host.encode())]
        for name, value in _own(request.headers):
            if name not in put and name != b"host":
                kept.append((name, value))
        chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        if chunked:
            kept.append((b"Transfer-Encoding", b"chunked"))
        if upgrade:
            kept += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        if secrets:
            kept = [it for it in kept if it[0] not in _ABOUT_THE_ANSWER]
            kept.append((b"Accept-Encoding", b"identity"))
        for secret in put.values():
            kept.append((secret.header.encode(), secret.value.get_secret_value().encode()))
        return kept

    async def _up(self, data: bytes | None) -> None:
        if data and self._reached is not None:
            self._reached.moved(len(data), 0)
            try:
                await self._reached.stream.write(data)
                self._watch.moved(IDLE_SECONDS)
            except OSError as error:
                raise Failed(f"the server broke off: {error.strerror or error}") from error

    async def _send_body(self, event: object) -> None:
        assert self._server is not None, "it is reached"
        while True:
            if event is h11.NEED_DATA:
                data = await self._client.read()
                self._watch.moved(IDLE_SECONDS)
                self._conn.receive_data(data)
            elif isinstance(event, h11.Data):
                await self._up(self._server.send(h11.Data(data=bytes(event.data))))
            elif isinstance(event, h11.EndOfMessage):
                return await self._up(self._server.send(h11.EndOfMessage()))
            else:
                raise ConnectionError("the client broke off")
            event = self._conn.next_event()

    async def _receive(self, upgrade: bool) -> None:
        server, reached = self._server, self._reached
        assert server is not None, "it is reached"
        assert reached is not None, "it is reached"
        words = words_of(reached.secrets)
        mask = Mask(words)
        while True:
            try:
                event = server.next_event()
                if event is h11.NEED_DATA:
                    data = await reached.stream.read()
                    self._watch.moved(IDLE_SECONDS)
                    reached.moved(0, len(data))
                    server.receive_data(data)
                    continue
            except h11.RemoteProtocolError as error:
                raise Failed(f"what the server says is not HTTP: {error}") from error
            except OSError as error:
                raise Failed(f"the server broke off: {error.strerror or error}") from error
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    if not upgrade:
                        raise Failed("the server changes to a protocol that was not asked for")
                    return await self._switch(event, words)
                continue
            if isinstance(event, h11.Response):
                sent = self._conn.send(_response(event, words))
            elif isinstance(event, h11.Data):
                sent = self._conn.send(h11.Data(data=mask.feed(bytes(event.data))))
            elif isinstance(event, h11.EndOfMessage):
                sent = self._conn.send(h11.Data(data=mask.end())) or b""
                sent += self._conn.send(h11.EndOfMessage()) or b""
            else:
                raise Failed("the server broke off")
            if sent:
                await self._client.write(sent)
                self._watch.moved(IDLE_SECONDS)
            if isinstance(event, h11.EndOfMessage):
                return

    async def _switch(self, event: h11.InformationalResponse, words: Sequence[bytes]) -> None:
        """A WebSocket from here on: bytes, both ways, until a side ends."""
        server, reached = self._server, self._reached
        assert server is not None, "it is reached"
        assert reached is not None, "it is reached"
        answer = h11.InformationalResponse(
            status_code=101,
            headers=_masked(event.headers.raw_items(), words),
            reason=masked(event.reason, words),
        )
        await self._client.write(self._conn.send(answer) or b"")
        early, late = self._conn.trailing_data[0], server.trailing_data[0]
        client = self._client

        async def up() -> None:
            data = early or await client.read()
            while data:
                reached.moved(len(data), 0)
                await reached.stream.write(data)
                self._watch.moved(SOCKET_SECONDS)
                data = await client.read()

        async def down() -> None:
            data = late or await reached.stream.read()
            while data:
                reached.moved(0, len(data))
                await client.write(data)
                self._watch.moved(SOCKET_SECONDS)
                data = await reached.stream.read()

        tasks = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await reached.stream.end()


def _own(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Those that are not of the connection alone."""
    named = {
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    } - {b"host", b"content-length", b"authorization"}
    return [
        (name, value)
        for name, value in headers
        if name not in _HOPS and name not in named and not name.startswith(b"proxy-")
    ]


def _is_websocket(request: h11.Request) -> bool:
    wanted = [value.lower() for name, value in request.headers if name == b"upgrade"]
    return request.method == b"GET" and wanted == [b"websocket"]


def _response(event: h11.Response, words: Sequence[bytes]) -> h11.Response:
    headers = _masked(_own(event.headers), words)
    if any(name == b"transfer-encoding" for name, _ in event.headers):
        headers = [(name, value) for name, value in headers if name != b"content-length"]
    reason = masked(event.reason, words)
    return h11.Response(status_code=event.status_code, headers=headers, reason=reason)


def _masked(headers: Headers, words: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return [(masked(name, words), masked(value, words)) for name, value in headers]
