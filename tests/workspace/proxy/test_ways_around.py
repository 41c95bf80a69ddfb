"""Ways around the rules, one line each: none of them reaches what it is after.

``ok.test`` is permitted on its own port and on 80; what is after is a server on loopback, one that
another name stands for, or a name that is not permitted on the very server that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct

import pytest

from tests.waiting import eventually
from tests.workspace.proxy.conftest import INSIDE, OUTSIDE, SECRET_WORD, World
from workspace.proxy import hello, peeking, requests, service

WORD = SECRET_WORD.encode()


def _get(url: str, host: str, *more: str) -> str:
    lines = [f"GET {url} HTTP/1.1", f"Host: {host}", *more]
    return "\r\n".join([*lines, "", ""])


def _connect(target: str, then: str = "") -> str:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n" + then


def _socks(kind: int, host: bytes, port: int, command: int = 1) -> bytes:
    name = bytes([len(host)]) + host if kind == 3 else host
    return b"\x05\x01\x00" + bytes([5, command, 0, kind]) + name + struct.pack(">h", port)


# {in} is the port of the server that must not be reached, {out} that of the one that may be.
INTERNET = {
    "loopback by HTTP": _get("http://127.0.0.1:{in}/", "127.0.0.1:{in}"),
    "loopback by CONNECT": _connect("127.0.0.1:{in}", _get("/", "x")),
    "loopback's other addresses": _connect("127.9.9.9:{in}"),
    "IPv6 loopback": _connect("[::1]:{in}"),
    "IPv4 in IPv6": _connect("[::ffff:127.0.0.1]:{in}"),
    "IPv4 in IPv6, in hexadecimal": _connect("[::ffff:7f00:1]:{in}"),
    "IPv4-compatible IPv6": _connect("[::127.0.0.1]:{in}"),
    "NAT64": _connect("[64:ff9b::7f00:1]:{in}"),
    "6to4": _connect("[2002:7f00:1::]:{in}"),
    "Teredo": _connect("[2001:0:7f00:1::]:{in}"),
    "unique-local IPv6": _connect("[fd12:3456::1]:{in}"),
    "a zone": _connect("[fe80::1%25lo]:{in}"),
    "this host": _connect("0.0.0.0:{in}"),
    "this host, short": _connect("0:{in}"),
    "one decimal number": _get("http://2130706433:{in}/", "2130706433:{in}"),
    "one hexadecimal number": _connect("0x7f000001:{in}"),
    "parts in hexadecimal": _connect("0x7f.0.0.0x1:{in}"),
    "parts in octal": _connect("0177.0.0.1:{in}"),
    "too few parts": _connect("127.1:{in}"),
    "a dot behind": _connect("127.0.0.1.:{in}"),
    "full-width digits": _get("http://１２７.0.0.1:{in}/", "127.0.0.1:{in}"),  # noqa: RUF001
    "an escaped host": _get("http://%31%32%37.0.0.1:{in}/", "127.0.0.1:{in}"),
    "metadata": _get("http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
    "metadata by IPv6": _connect("[fd00:ec2::254]:80"),
    "a carrier's network": _connect("100.64.0.1:80"),
    "a private network": _connect("10.0.0.1:80"),
    "multicast": _connect("224.0.0.1:80"),
    "a name that stands for loopback": _connect("inside.test:{in}", _get("/", "x")),
    "a name for a public and a private address": _connect("both.test:{in}", _get("/", "x")),
    "a name that stands for mapped loopback": _connect("mapped.test:{in}"),
    "localhost": _connect("localhost:{in}"),
    "SOCKS5 by address": _socks(1, b"\x7f\0\0\x01", -1),
    "SOCKS5 by IPv6": _socks(4, b"\0" * 10 + b"\xff\xff\x7f\0\0\x01", -1),
    "SOCKS5 by an address as a name": _socks(3, b"127.0.0.1", -1),
    "SOCKS5 by a number as a name": _socks(3, b"0x7f000001", -1),
    "SOCKS5 by a name with a zero": _socks(3, b"ok.test\0.inside.test", -1),
    "SOCKS5 BIND": _socks(1, b"\x7f\0\0\x01", -1, command=2),
    "SOCKS5 for UDP": _socks(1, b"\x7f\0\0\x01", -1, command=3),
}
RULES = {
    "another host": _get("http://evil.test:{out}/", "evil.test:{out}"),
    "another port": _connect("ok.test:{in}"),
    "the address of a permitted name": _connect("127.0.0.2:{out}", _get("/", "x")),
    "a name below": _connect("sub.ok.test:{out}"),
    "a name that ends alike": _connect("evilok.test:{out}"),
    "a name that begins alike": _connect("ok.test.evil.test:{out}"),
    "a user before the host": _get("http://ok.test@evil.test:{out}/", "evil.test:{out}"),
    "a user with a password": _get("http://ok.test:{out}@evil.test:{out}/", "evil.test:{out}"),
    "a backslash": _get("http://evil.test:{out}\\@ok.test:{out}/", "ok.test:{out}"),
    "a fragment": _get("http://evil.test:{out}#@ok.test:{out}/", "ok.test:{out}"),
    "another Host": _get("http://ok.test:{out}/", "evil.test"),
    "two Hosts": _get("http://ok.test:{out}/", "ok.test:{out}", "Host: evil.test"),
    "another Host in a tunnel": _connect("ok.test:{out}", _get("/", "evil.test")),
    "another Host, later in a tunnel": _connect(
        "ok.test:{out}", _get("/", "ok.test:{out}", "X: y") + _get("/later", "evil.test")
    ),
    "another version in a tunnel": _connect(
        "ok.test:{out}", "GET / HTTP/1.9\r\nHost: evil.test\r\n\r\n"
    ),
    "another Host after an empty line": _connect("ok.test:{out}", "\r\n" + _get("/", "evil.test")),
    "small letters in a tunnel": _connect(
        "ok.test:{out}", "get / HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    ),
    "an unknown method in a tunnel": _connect(
        "ok.test:{out}",
        "BREW / HTTP/1.1\r\nHost: evil.test\r\n\r\n" + _get("/later", "evil.test"),
    ),
    "an unknown method between tabs": _connect(
        "ok.test:{out}", "Brew\t/\tHTTP/1.1\r\nHost: evil.test\r\n\r\n"
    ),
    "a whole URL in a tunnel": _connect("ok.test:{out}", _get("http://evil.test/", "ok.test")),
    "no Host in a tunnel": _connect("ok.test:{out}", "GET / HTTP/1.1\r\n\r\n"),
    "a hidden second request": (
        "POST http://ok.test:{out}/ HTTP/1.1\r\nHost: ok.test:{out}\r\nContent-Length: 60\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil.test"
        "\r\n\r\n"
    ),
    "a transfer encoding in disguise": _get(
        "http://ok.test:{out}/", "ok.test:{out}", "Transfer-Encoding: xchunked"
    ),
    "two lengths": _get(
        "http://ok.test:{out}/", "ok.test:{out}", "Content-Length: 0", "Content-Length: 9"
    ),
    "a folded header": _get("http://ok.test:{out}/", "ok.test:{out}", "X: y\r\n\tz\x0b: w"),
    "a path alone": _get("/", "evil.test"),
    "a file": _get("file:///etc/passwd", "ok.test:{out}"),
    "https without a tunnel": _get("https://evil.test/", "evil.test"),
    "ftp": _get("ftp://ok.test:{out}/", "ok.test:{out}"),
    "a zero in the name": _connect("ok.test\0.evil.test:{out}"),
    "a line in the name": _connect("ok.test:{out}\nHost: evil.test"),
    "a letter that looks alike": _connect("оk.test:{out}"),  # noqa: RUF001  # Cyrillic
    "no port": _connect("ok.test"),
    "a port too far": _connect("ok.test:65616"),
    "TLS for another name": b"TLS evil.test",
    "TLS for another name, in pieces": b"TLS evil.test in pieces",
    "SOCKS5 by another name": _socks(3, b"evil.test", -2),
    "SOCKS5 by the address": _socks(1, b"\x7f\0\0\x02", -2),
    "SOCKS4": b"\x04\x01\x00\x50\x7f\0\0\x02\0",
    "TLS to the proxy": b"\x16\x03\x01\x00\x05hello",
    "nothing that is known": b"\0\0\0\0",
}


def client_hello(name: str | None, record: int = 1 << 14) -> bytes:
    """A ClientHello by RFC 8446, in records of that size."""
    extensions = b"\x00\x0a\x00\x04\x00\x02\x00\x1d"
    if name is not None:
        host = b"\0" + struct.pack(">H", len(name)) + name.encode()
        names = struct.pack(">H", len(host)) + host
        extensions += struct.pack(">HH", 0, len(names)) + names
    body = (
        b"\x03\x03" + b"r" * 32 + b"\0" + b"\x00\x02\x13\x01" + b"\x01\x00"
        + struct.pack(">H", len(extensions)) + extensions
    )  # fmt: skip
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    parts = [message[at : at + record] for at in range(0, len(message), record)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in parts)


def _bytes(said: str | bytes, world: World) -> bytes:
    ports = {"{in}": world.private.port, "{out}": world.web.port}
    if isinstance(said, str):
        for name, port in ports.items():
            said = said.replace(name, str(port))
        return said.encode()
    for mark, port in ((-1, world.private.port), (-2, world.web.port)):
        marked = struct.pack(">h", mark)
        if said.startswith(b"\x05") and said.endswith(marked):
            return said[:-2] + struct.pack(">H", port)
    return said


async def _try(world: World, said: str | bytes) -> bytes:
    if isinstance(said, bytes) and said.startswith(b"TLS "):
        pieces = said.endswith(b"pieces")
        _, reader, writer = await world.connect(f"ok.test:{world.web.port}")
        sent = client_hello("evil.test", 40 if pieces else 1 << 14)
        step = 7 if pieces else len(sent)
        for at in range(0, len(sent), step):
            writer.write(sent[at : at + step])
            await asyncio.sleep(0.005)
        heard = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return heard
    return await world.say(_bytes(said, world), seconds=3)


@pytest.mark.parametrize("way", INTERNET)
async def test_to_what_is_not_public(world: World, way: str) -> None:
    world.proxy.change(world.proxy.policy.with_egress("internet"))
    world.names |= {
        "inside.test": [INSIDE],
        "both.test": [OUTSIDE, INSIDE],
        "mapped.test": ["::ffff:127.0.0.1"],
        "localhost": [INSIDE],
    }
    heard = await _try(world, INTERNET[way])
    assert WORD not in heard
    assert not world.private.seen
    assert not world.web.seen
    assert any(line.verdict == "refused" for line in world.told())


@pytest.mark.parametrize("way", RULES)
async def test_to_what_the_rules_do_not_name(world: World, way: str) -> None:
    for name in ("evil.test", "sub.ok.test", "evilok.test", "ok.test.evil.test"):
        world.names[name] = [OUTSIDE]
    heard = await _try(world, RULES[way])
    later = way == "another Host, later in a tunnel"
    assert heard.count(WORD) == later
    assert not world.private.seen
    assert len(world.web.seen) == later
    assert all(b"evil" not in seen and b"smuggled" not in seen for seen in world.web.seen)
    await asyncio.sleep(0.05)
    assert any(line.verdict == "refused" for line in world.told())


async def test_a_name_that_changes_between_look_and_connect() -> None:
    """Rebinding: the second answer is another one, and nobody asks for it."""
    from tests.workspace.proxy.conftest import around

    async with around() as world:
        answers = iter([[OUTSIDE]])
        original = world.proxy._resolver._resolve

        async def rebinding(host: str) -> list[str]:
            return next(answers, [INSIDE])

        world.proxy._resolver._resolve = rebinding
        world.permit("ok.test:*")
        for port in (world.private.port, world.private.port):
            await world.get(f"http://ok.test:{port}/")
        world.proxy._resolver._kept.clear()
        assert (await world.get(f"http://ok.test:{world.private.port}/")).startswith(
            b"HTTP/1.1 403 ok.test stands for 127.0.0.1, which is loopback"
        )
        assert not world.private.seen
        world.proxy._resolver._resolve = original


async def test_a_redirect_is_a_request_of_its_own(world: World) -> None:
    world.web.answer = (
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    )
    said = await world.get(f"http://ok.test:{world.web.port}/")
    assert b"302" in said  # it is told, and followed by who asked
    assert (await world.get("http://169.254.169.254/")).startswith(b"HTTP/1.1 403 ")


async def test_a_permitted_name_in_tls_goes_through(world: World) -> None:
    _, reader, writer = await world.connect(f"ok.test:{world.web.port}")
    sent = client_hello("OK.test", 30)
    for at in range(0, len(sent), 11):
        writer.write(sent[at : at + 11])
        await asyncio.sleep(0.002)
    writer.write(b"\r\n\r\n")  # the end of what that server takes for a head
    assert WORD in await asyncio.wait_for(reader.read(1000), 10)
    writer.close()
    assert world.web.seen[0].startswith(sent)


async def test_a_server_that_speaks_first_ends_no_looking(world: World) -> None:
    """Whether it did is not the client's doing alone: one that waits for it asks all the same."""
    seen: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n")
        with contextlib.suppress(OSError):
            while said := await reader.read(65536):
                seen.append(said)
                writer.write(b"heard\r\n")
        writer.close()

    async with await asyncio.start_server(greet, OUTSIDE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.permit(f"ok.test:{port}")

        async def ask(*said: bytes) -> bytes:
            _, reader, writer = await world.connect(f"ok.test:{port}")
            try:
                assert await asyncio.wait_for(reader.readline(), 10) == b"hello\r\n"
                for each in said:
                    writer.write(each)
                    heard = await asyncio.wait_for(reader.readline(), 10)
                    if not heard.startswith(b"heard"):
                        return heard
                return heard
            finally:
                writer.close()

        assert (await ask(_get("/", "evil.test").encode())).startswith(b"HTTP/1.1 403 ")
        assert await ask(client_hello("evil.test")) == b""
        assert not seen
        hello = client_hello("ok.test")
        for said in (b"EHLO me\r\n", b"\x16\x00\x01\x01", hello):
            assert await ask(said, b"and more\r\n") == b"heard\r\n"
        assert b"".join(seen) == b"".join(
            said + b"and more\r\n" for said in (b"EHLO me\r\n", b"\x16\x00\x01\x01", hello)
        )
    verdicts = [(line.verdict, line.count) for line in world.told() if line.port == port]
    assert ("refused", 1) in verdicts


async def test_a_tunnel_in_which_nobody_speaks_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not go on unlooked at."""
    monkeypatch.setattr(service, "IDLE_SECONDS", 0.5)
    world.names["evil.test"] = [OUTSIDE]
    _, reader, writer = await world.connect(f"ok.test:{world.web.port}")
    await asyncio.sleep(0.7)
    with contextlib.suppress(ConnectionError):
        writer.write(_get("/", "evil.test").encode())
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await eventually(lambda: world.proxy.tally.use.open == 0)
    assert not world.proxy.flows
    assert not world.web.seen
    assert [(line.verdict, line.reason) for line in world.told()] == [
        ("failed", "nothing was said for too long")
    ]


async def test_a_client_that_only_listens_hears_all(world: World) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first\r\n")
        await reader.read()
        writer.write(b"last\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(tell, OUTSIDE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.permit(f"ok.test:{port}")
        _, reader, writer = await world.connect(f"ok.test:{port}")
        assert await asyncio.wait_for(reader.readline(), 10) == b"first\r\n"
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b"last\r\n"
        writer.close()


async def test_whatever_is_said_is_answered_or_ends(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages with bytes changed, cut, doubled: no defect, nothing that stays open."""
    for module in (peeking, requests, service):
        monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)
    draw = random.Random(11)
    host = f"ok.test:{world.web.port}"
    chunked = f"POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    seeds = [
        _get(f"http://{host}/", host).encode(),
        (chunked + "5\r\nhello\r\n0\r\n\r\n").encode(),
        _connect(host, _get("/", host)).encode(),
        _connect(host).encode() + client_hello("ok.test"),
        _socks(3, b"ok.test", -2)[:-2]
        + struct.pack(">H", world.web.port)
        + client_hello("ok.test"),
    ]

    async def say(data: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        try:
            writer.write(data)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 10)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def changed(seed: bytes) -> bytes:
        data = bytearray(seed)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            kind = draw.randrange(4)
            if kind == 0:
                data[at] = draw.randrange(256)
            elif kind == 1:
                del data[at : at + draw.randint(1, 9)]
            elif kind == 2:
                data[at:at] = data[at : at + 30]
            else:
                data[at:at] = draw.randbytes(draw.randint(1, 9))
            data = data or bytearray(b"x")
        return bytes(data)

    for _ in range(10):
        await asyncio.gather(*(say(changed(seed)) for seed in seeds for _ in range(3)))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not world.private.seen
    await eventually(lambda: world.proxy.tally.use.open == 0)
    assert not world.proxy.flows


@pytest.mark.parametrize(
    ("data", "is_so"),
    [
        (b"GET / HTTP/1.1", True), (b"\r\n get\t/", True), (b"OPTIONS * ", True), (b"GE", None),
        (b"", None), (b"\r\n", None), (b"AMQP\0\0\x09\x01", False), (b"SSH-2.0-x", None),
        (b"\0\0\0\x08", False), (b"GETX ", None), (b"PRI * HTTP/2.0", True),
        (b"GETX /", None), (b"GETX / HTTP/", True), (b"GETX /\r\n", False), (b"brew", None),
        (b"\n\nBREW  /a b\tHTTP/1.0\r\n", True), (b"m-search * HTTP/1.1\r\n", True),
        (b"SSH-2.0-x\r\n", False), (b"SSH-2.0-x a comment\r\n", False), (b"SSH-2.0-x a", None),
        (b"*1\r\n$4\r\nPING\r\n", False), (b"EHLO a\r\n", False), (b"get x\r\n", True),
        (b"A / HTTP\0", False), (b"\x16\x03\x01", False), (b"a,b / HTTP/1.1", False),
        (b"0033git-upload-pack /a\0host=b\0", False),
    ],
)  # fmt: skip
def test_what_begins_as_a_request_does(data: bytes, is_so: bool | None) -> None:
    assert peeking.is_request(data) is is_so


def test_server_names() -> None:
    assert hello.server_name(client_hello("a.test")) == "a.test"
    assert hello.server_name(client_hello("a.test", 5)) == "a.test"
    assert hello.server_name(client_hello(None)) is None
    whole = client_hello("a.test", 20)
    for size in range(len(whole)):
        with pytest.raises(hello.Unfinished):
            hello.server_name(whole[:size])
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        try:
            hello.server_name(bytes(changed))
        except (ValueError, hello.Unfinished):
            pass
