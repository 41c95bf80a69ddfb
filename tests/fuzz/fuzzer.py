"""Requests and frames that mean no good, and what every answer to them must be."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter

from tests.fuzz.drawing import Draw, Json
from tests.fuzz.wire import Answer, Closed, Wire
from workspace.errors import BY_CODE

# The states that are told by a 5xx, each in words of its own.
DOCUMENTED = {"unavailable", "no_capacity", "timed_out", "command_timed_out", "unsupported"}
# What is no HTTP keeps HTTP's own numbers.
NO_HTTP = {400, 405, 426, 431, 505}
# What is said before a route's handler is reached.
_BEFORE = {"unauthorized", "forbidden", "not_found", "method_not_allowed"}
FRAME_SECONDS = 20.0


class Surface(NamedTuple):
    """One route and what its handler parses."""

    method: str  # "WS" for a WebSocket
    path: str
    query: Json | None
    bodies: list[Json]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def surface(method: str, path: str, handler: Callable[..., Any], *queries: ModuleType) -> Surface:
    """The JSON schemas of what a handler parses, found by the names that its code uses.

    A query is a model of one of the modules ``queries``; a body is any ``TypeAdapter``.
    """
    names, scope = handler.__code__.co_names, handler.__globals__
    modules = [found for name in names if isinstance(found := scope.get(name), ModuleType)]
    used = [scope[name] for name in names if name in scope]
    used += [getattr(module, name) for module in modules for name in names if hasattr(module, name)]
    of_queries = {module.__name__ for module in queries}
    query = [
        each.model_json_schema()
        for each in used
        if isinstance(each, type) and issubclass(each, BaseModel) and each.__module__ in of_queries
    ]
    bodies = [each.json_schema() for each in used if isinstance(each, TypeAdapter)]
    return Surface(method, path, query[0] if query else None, bodies)


class Fuzzer:
    """Draws requests for ``surfaces``, sends them, and looks at what comes back.

    ``own`` brings values for fields and path parameters that name something of the server's.
    """

    def __init__(
        self,
        connect: Callable[[], Any],  # Any: asyncio's coroutine of two streams
        surfaces: Sequence[Surface],
        seed: int,
        *,
        token: str,
        own: Mapping[str, Callable[[], Json]],
    ) -> None:
        self.chance = random.Random(seed)
        self.answers: Counter[int] = Counter()
        self.reached: set[str] = set()
        self.made: list[str] = ["0123456789"]  # ids that the server told of
        self._seed = seed
        self._token = token
        self._surfaces = surfaces
        self._own = own
        self._draw = Draw(self.chance, {"command": self._command, "environment": dict, **own})
        self._wire = Wire(connect)

    def _command(self) -> Json:
        return self.chance.choice(_COMMANDS)

    async def run(self, requests: int, surfaces: Sequence[Surface] | None = None) -> None:
        """So many requests, of all surfaces or of these."""
        try:
            for _ in range(requests):
                each = self.chance.choice(surfaces or self._surfaces)
                if each.method == "WS":
                    await self._web_socket(each)
                elif self.chance.random() < 0.03:
                    await self._no_http(each)
                else:
                    await self._request(each)
        finally:
            await self._wire.close()

    # Requests.

    def _place(self, each: Surface) -> str:
        """The path with its parameters, now and then bent."""
        path = re.sub(r"\{(\w+)(:int)?\}", lambda found: self._parameter(found[1]), each.path)
        how = self.chance.random()
        if how < 0.02:
            return path + self.chance.choice(["/", "//", "/..", "%00", ";x", "/" + "a" * 5000])
        return "/" + self._draw.segment() + path if how < 0.03 else path

    def _parameter(self, name: str) -> str:
        if self.chance.random() < 0.8:
            return str(
                self._own[name]() if name in self._own else self.chance.choice(self.made[-3:])
            )
        numbers = ["0", "1", "4294967295", "4294967296", "9" * 30, "-1", "1.0"]
        return self.chance.choice([*numbers, self._draw.segment()])

    def _body(self, each: Surface) -> bytes:
        if each.method in ("GET", "DELETE") and self.chance.random() < 0.95:
            return b""
        if not each.bodies:
            return self.chance.randbytes(self.chance.choice([0, 1, 100, 5000]))
        value = self._draw.value(self.chance.choice(each.bodies))
        if self.chance.random() < 0.4:
            value = self._draw.spoilt(value)
        encoded = self._draw.encoded(value)
        return b" " * (9 << 20) + encoded if self.chance.random() < 0.002 else encoded

    async def _request(self, each: Surface) -> None:
        method, body = each.method, self._body(each)
        if self.chance.random() < 0.02:
            method = self.chance.choice(["HEAD", "OPTIONS", "PATCH", "TRACE", "GET", "POST", "PUT"])
        path = self._place(each)
        if method == "DELETE" and each.path.endswith("/files"):
            # Not what the desktop itself stands on.
            target = self.chance.choice(["fuzz", "fuzz/a", "/etc", "/proc/self", "no"])
            path += f"?path={target}&recursive={self.chance.choice(['true', 'false', '2'])}"
        else:
            path += self._draw.query(each.query)
        headers = [f"{method} {path} HTTP/1.1", *self._usual()]
        if each.bodies:
            headers.append("Content-Type: application/json")
        if self.chance.random() < 0.06:
            headers += self.chance.choice(_HEADERS)
        if self.chance.random() < 0.05:
            headers.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        else:
            headers.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(headers).encode("utf-8", "surrogatepass")
        answer = await self._told(head + b"\r\n\r\n" + body, is_head=method == "HEAD")
        if answer is not None and method == each.method:
            self._learn(each, answer)

    def _usual(self) -> list[str]:
        return ["Host: 127.0.0.1", f"Authorization: Bearer {self._token}"]

    def _learn(self, each: Surface, answer: Answer) -> None:
        """Note that a route was reached, and what it made."""
        if answer.status < 400 or json.loads(answer.body)["code"] not in _BEFORE:
            self.reached.add(each.name)  # also where what it names is not there
        if answer.status == 200 and each.name.endswith("POST /processes"):
            job = json.loads(answer.body).get("id")
            self.made = [*self.made, job][-20:] if job else self.made

    async def _no_http(self, each: Surface) -> None:
        """Send bytes that are no request, or only half of one, and hang up."""
        whole = "\r\n".join([f"{each.method} {self._place(each)} HTTP/1.1", *self._usual(), ""])
        good = whole.encode()
        broken = [
            self.chance.randbytes(200) + b"\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\r\n" * 100,
            good.replace(b" /", b" a:1 /", 1).replace(each.method.encode(), b"CONNECT", 1)
            + b"\r\n",
            *(good + bad + b"\r\n\r\n" for bad in _BAD_HEADERS),
            good + b"\r\n",
            good + b"Content-Length: 100\r\n\r\nhalf",
            good + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
            good + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
            good + b"X-Long: " + b"x" * 2_000_000 + b"\r\n\r\n",
            good + b"".join(b"X-%d: y\r\n" % n for n in range(9000)) + b"\r\n",
            b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
            good.replace(b"HTTP/1.1", b"HTTP/3.7") + b"\r\n",
            good.replace(b" /", " /ü\u202e".encode(), 1) + b"\r\n",
        ]
        await self._wire.close()
        await self._told(self.chance.choice(broken), ends=True)

    async def _told(
        self, request: bytes, *, is_head: bool = False, ends: bool = False
    ) -> Answer | None:
        """The answer to a request, when it is as answers must be."""
        said = f"seed {self._seed}, {request[:300]!r}"
        try:
            answer = await self._wire.exchange(request, is_head=is_head, ends=ends)
        except Closed as error:
            if ends or len(request) > 1 << 20:  # cut off while it was still being sent
                return None
            raise AssertionError(f"no answer: {said}") from error
        except asyncio.TimeoutError:
            raise AssertionError(f"it hangs: {said}") from None
        self.answers[answer.status] += 1
        if answer.status >= 400 and not is_head:
            problem = wrong_with(answer)
            assert problem is None, f"{problem}: {answer}: {said}"
        return answer

    # WebSockets.

    async def _web_socket(self, each: Surface) -> None:
        """Open one, or nearly, send frames, or nearly, and hang up."""
        place = self._place(each) + self._draw.query(each.query)
        headers = [
            f"GET {place} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
            *self._usual(),
            *self.chance.choice(_HANDSHAKES),
        ]
        await self._wire.close()
        answer = await self._told("\r\n".join(headers).encode() + b"\r\n\r\n")
        if answer is not None:
            self._learn(each, answer)
        if answer is not None and answer.status == 101:
            frames = b"".join(self._frame() for _ in range(self.chance.randrange(1, 5)))
            try:
                await asyncio.wait_for(self._wire.hang_up(frames), FRAME_SECONDS)
            except asyncio.TimeoutError:
                said = f"seed {self._seed}, {place} and {frames[:300]!r}"
                raise AssertionError(f"it hangs: {said}") from None
        await self._wire.close()

    def _frame(self) -> bytes:
        """One frame, masked or not, whole or not, of a known kind or not (RFC 6455, 5.2)."""
        body = self.chance.choice([*_PAYLOADS, self.chance.randbytes(40)])
        first = self.chance.choice([0x81, 0x82, 0x82, 1, 2, 0, 0x80, 0x88, 0x89, 0x8A, 0xF1, 0x83])
        length = self.chance.choice([*[len(body)] * 8, len(body) + 5, 1 << 40, 0])
        mask = 0x80 if self.chance.random() < 0.9 else 0
        if length < 126:
            head = bytes([first, mask | length])
        elif length < 1 << 16:
            head = bytes([first, mask | 126]) + length.to_bytes(2, "big")
        else:
            head = bytes([first, mask | 127]) + length.to_bytes(8, "big")
        return head + (b"\0\0\0\0" if mask else b"") + body  # masking by zeros changes nothing


def wrong_with(answer: Answer) -> str | None:
    """What an error is not as it must be; None if it is."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return "no JSON"
    if not isinstance(body, dict) or not {"code", "message", "hint"} <= body.keys():
        return "not an error's form"
    if not (isinstance(body["message"], str) and body["message"] and body["code"] in BY_CODE):
        return "no message, or a code of its own"
    if answer.status != BY_CODE[body["code"]].status and answer.status not in NO_HTTP:
        return "another status than its code's"
    if 505 != answer.status >= 500 and body["code"] not in DOCUMENTED:
        return "a failure of its own"
    return None


_COMMANDS = ("true", "exit 3", "echo fuzzed", "cat", "sleep 0.01", "kill -9 $$", ["true"], ["/no"])
_PAYLOADS = (
    *(b"", b"ls\n", b'{"resize": [80, 24]}', b'{"resize": [0, 1e9]}', b'{"resize"', b"\xff"),
    *(b"RFB 003.008\n\x01\x01", bytes(100_000), b"\x03\xe8"),
)
_HEADERS: tuple[list[str], ...] = (
    *([f"If-None-Match: {tags}"] for tags in ("x" * 200, '"a", W/"b", *, "')),
    *([f"Content-Type: {kind}"] for kind in ("multipart/form-data; boundary=", "a/" * 500, "")),
    *([f"Expect: {what}"] for what in ("100-continue", "nothing")),
    *(["Range: bytes=5-1"], ["Content-Encoding: gzip"], ["Accept-Encoding: *;q=nan"]),
    *(["Cookie: =;=;;"], ["Authorization: Bearer two"], ["Connection: close"], ["Origin: null"]),
    *(["Connection: upgrade", "Upgrade: h2c"], ["Upgrade: websocket"], ["X-A: \u00fc"]),
    *(["Host: other", "X-Forwarded-Host: x"], ["X-B: " + "b" * 20_000]),
    *([f"X-{n}: y" for n in range(200)], ["If-Modified-Since: yesterday"]),
)
_BAD_HEADERS = (
    *(b"Content-Length: -1\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"),
    *(b"Content-Length: 99999999999999999999999\r\n", b"Content-Length: 0x5\r\n", b"X\0: y\r\n"),
    *(b" folded: x\r\n", b"no colon\r\n", b": none\r\n", b"X: a\rb\r\n", b"X: \xff\xfe\0\r\n"),
    *(b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked, x\r\n"),
    b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
)
_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
_VERSION = "Sec-WebSocket-Version: 13"
_HANDSHAKES: tuple[list[str], ...] = (
    *([_KEY, _VERSION] for _ in range(8)),
    *([], [_KEY], [_VERSION], [_KEY, _KEY, _VERSION, _VERSION]),
    *(["Sec-WebSocket-Key: short", _VERSION], [_KEY, "Sec-WebSocket-Version: 99"]),
    [_KEY, _VERSION, "Sec-WebSocket-Protocol: binary, ,base64,\u00fc"],
    [_KEY, _VERSION, "Sec-WebSocket-Protocol: " + ", ".join(["x"] * 500)],
    [_KEY, _VERSION, "Sec-WebSocket-Extensions: permessage-deflate; max=99, a;b=c"],
    [_KEY, _VERSION, *(f"X-{n}: y" for n in range(300))],
    *([_KEY, _VERSION, "X-Long: " + "y" * 10_000], [_KEY, _VERSION, "bad name: x"]),
    [_KEY, _VERSION, "Content-Length: 5\r\n\r\nhello"],
    [_KEY, _VERSION, "Transfer-Encoding: chunked"],
)
