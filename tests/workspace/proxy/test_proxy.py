"""The proxy over real sockets: what is permitted goes through whole, all else is told why not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import eventually
from tests.workspace.proxy.conftest import (
    INSIDE,
    OUTSIDE,
    SECRET_WORD,
    Web,
    World,
    around,
    listening,
)
from workspace.egress import EgressLimits, Secret
from workspace.proxy.addresses import networks
from workspace.proxy.certificates import Authority
from workspace.proxy.masking import Mask
from workspace.proxy.policy import Policy

WORD = SECRET_WORD.encode()


async def test_http(world: World) -> None:
    said = await world.get(f"http://ok.test:{world.web.port}/a?b=c", "Proxy-Authorization: x")
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert said.endswith(WORD)
    asked = world.web.seen[0]
    assert asked.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert f"Host: ok.test:{world.web.port}\r\n".encode() in asked
    assert b"proxy-" not in asked.lower()
    (line,) = world.told()
    assert (line.host, line.port, line.verdict) == ("ok.test", world.web.port, "allowed")
    assert line.bytes_up == len(asked)
    assert line.bytes_down > len(WORD)


async def test_bodies_go_both_ways(world: World) -> None:
    target = f"http://ok.test:{world.web.port}/up"
    world.web.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    head = f"POST {target} HTTP/1.1\r\nHost: ok.test:{world.web.port}\r\n"
    said = await world.say(
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )
    assert b"3\r\nabc\r\n0\r\n\r\n" in said
    assert world.web.seen[0].endswith(b"hello")
    said = await world.say(
        head.encode() + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nworld"
    )
    assert said.startswith(b"HTTP/1.1 100 ")
    assert world.web.seen[1].endswith(b"world")


async def test_a_connection_carries_many_requests_each_of_them_judged(world: World) -> None:
    host = f"ok.test:{world.web.port}"
    one = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"
    bad = "GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n"
    said = await world.say((one + one + bad).encode())
    assert said.count(WORD) == 2
    assert b"403 other.test:80 is not among this desktop's egress rules" in said
    assert len(world.web.seen) == 2


async def test_connect(world: World) -> None:
    head, reader, writer = await world.connect(f"ok.test:{world.web.port}")
    assert head.startswith(b"HTTP/1.1 200 ")
    writer.write(f"GET / HTTP/1.1\r\nHost: ok.test:{world.web.port}\r\n\r\n".encode())
    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()


async def test_socks5_with_a_name(world: World) -> None:
    name = b"ok.test"
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    port = world.web.port.to_bytes(2, "big")
    writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port)
    assert (await asyncio.wait_for(reader.readexactly(10), 10))[1] == 0
    writer.write(f"GET / HTTP/1.1\r\nHost: ok.test:{world.web.port}\r\n\r\n".encode())
    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()


async def test_a_server_that_speaks_first(world: World) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-server\r\n")
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, OUTSIDE, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        world.permit(f"ok.test:{port}")
        _, reader, writer = await world.connect(f"ok.test:{port}")
        assert await asyncio.wait_for(reader.readline(), 10) == b"SSH-2.0-server\r\n"
        writer.write(b"SSH-2.0-client\r\n")
        assert await asyncio.wait_for(reader.read(), 10) == b"SSH-2.0-client\r\n"
        writer.close()


async def test_half_of_a_tunnel_may_end_first(world: World) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d" % len(await reader.read()))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(count, OUTSIDE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.permit(f"ok.test:{port}")
        _, reader, writer = await world.connect(f"ok.test:{port}")
        writer.write(b"\0" * 3_000_000)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b"3000000"
        writer.close()
    for _ in range(100):
        if lines := world.told():
            break
        await asyncio.sleep(0.02)
    assert (lines[0].bytes_up, lines[0].bytes_down) == (3_000_000, 7)


async def test_a_server_that_never_ends_does_not_hold_its_tunnel(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workspace.proxy import pump

    monkeypatch.setattr(pump, "HALF_SECONDS", 0.3)
    gone = asyncio.Event()

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    async with await asyncio.start_server(stay, OUTSIDE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.permit(f"ok.test:{port}")
        _, _, writer = await world.connect(f"ok.test:{port}")
        await asyncio.sleep(0.5)
        assert world.proxy.tally.use.open == 1  # as long as nobody has ended
        writer.write(b"\0")
        writer.close()
        await eventually(lambda: world.proxy.tally.use.open == 0)
        gone.set()


async def test_with_no_way_out_it_says_so(world: World) -> None:
    world.proxy.change(world.proxy.policy.with_egress("none"))
    said = await world.get("http://ok.test/")
    assert said.startswith(b"HTTP/1.1 403 this desktop has no way out")
    assert b"Proxy-Status: carrel; error=http_request_denied" in said
    head, _, writer = await world.connect("ok.test:443")
    assert head.startswith(b"HTTP/1.1 403 this desktop has no way out")
    writer.close()


async def test_a_name_that_is_not_there(world: World) -> None:
    world.permit("gone.test")
    said = await world.get("http://gone.test/")
    assert said.startswith(b"HTTP/1.1 502 gone.test could not be looked up")
    assert [line.verdict for line in world.told()] == ["failed"]


async def test_rules_change_while_connections_are_open(world: World) -> None:
    target = f"ok.test:{world.web.port}"
    _, reader, writer = await world.connect(target)
    world.permit("other.test")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    head, _, writer = await world.connect(target)
    assert head.startswith(b"HTTP/1.1 403 ")
    writer.close()
    world.permit(target)
    head, reader, writer = await world.connect(target)
    assert head.startswith(b"HTTP/1.1 200 ")
    world.permit(target, "more.test")
    writer.write(f"GET / HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()


async def test_no_more_connections_than_its_limit() -> None:
    policy = Policy(private=networks([f"{OUTSIDE}/32"]), limits=EgressLimits(connections=3))
    async with around(policy) as world:
        held = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(3)]
        await asyncio.sleep(0.1)
        said = await world.get("http://ok.test/")
        assert said.startswith(b"HTTP/1.1 503 this desktop has its 3 connections already")
        for _, writer in held:
            writer.close()


async def test_no_more_bytes_than_its_limit() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    policy = Policy(private=networks([f"{OUTSIDE}/32"]), limits=EgressLimits(mib=1))
    async with around(policy) as world, await asyncio.start_server(flood, OUTSIDE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.names["ok.test"] = [OUTSIDE]
        world.permit(f"ok.test:{port}")
        _, reader, writer = await world.connect(f"ok.test:{port}")
        heard = await asyncio.wait_for(reader.read(), 20)
        assert 1 << 19 < len(heard) <= 2 << 20
        writer.close()
        head, _, writer = await world.connect(f"ok.test:{port}")
        assert head.startswith(b"HTTP/1.1 403 this desktop has used up the 1 MiB")
        writer.close()


async def test_a_storm_of_refusals_is_a_few_lines(world: World) -> None:
    await asyncio.gather(*(world.get(f"http://n{index}.test/") for index in range(150)))
    first = world.told()
    assert len(first) == 20
    lines = [*first]
    while more := world.told():
        lines += more
    assert len(lines) <= 101
    assert sum(line.count for line in lines) == 150
    assert first[0].host == "*"
    assert first[0].count == 50


@pytest.mark.parametrize("is_slow", [False, True])
async def test_heads_without_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    from workspace.proxy import peeking, requests, service

    for module in (peeking, requests, service):
        monkeypatch.setattr(module, "HEAD_SECONDS", 0.5)
    for start in (b"GET http://ok.test/ HTTP/1.1\r\n", b"CONNECT ok.test:443 HTTP/1.1\r\n"):
        endless = start + (b"X: y\r\n" if is_slow else b"X: " + b"y" * 200_000)
        said = await world.say(endless)
        assert said[:10] == b"HTTP/1.1 4" or said == b""
    assert not world.web.seen


SECRET = {"name": "api", "value": "Bearer s3cret-Value"}


@asynccontextmanager
async def _plain() -> AsyncIterator[tuple[World, Web]]:
    """``api.test``, which has a secret for port 80, and its server there."""
    async with around() as world, listening(Web(OUTSIDE, 80)) as web:
        world.names["api.test"] = [OUTSIDE]
        world.permit("api.test")
        secret = Secret.model_validate({**SECRET, "host": "api.test:80"})
        world.proxy.change(world.proxy.policy.with_secrets([secret]))
        yield world, web


async def test_a_secret_over_http() -> None:
    async with _plain() as (world, web):
        world.names["other.test"] = [OUTSIDE]
        world.permit("api.test", "other.test")
        assert WORD in await world.get("http://api.test/", "Authorization: of its own")
        assert b"authorization: bearer s3cret-value\r\n" in web.seen[0].lower()
        assert b"of its own" not in web.seen[0]
        await world.get("http://other.test/")
        assert b"authorization" not in web.seen[1].lower()
        _, reader, writer = await world.connect("api.test:80")
        writer.write(b"GET /in-a-tunnel HTTP/1.1\r\nHost: api.test\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
        assert b"s3cret-Value" in web.seen[2]
        said = await world.say(b"TRACE http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 403 ")
        await asyncio.sleep(0.1)
        lines = world.told()
        assert {line.secret for line in lines if line.host == "api.test"} >= {"api"}
        assert "s3cret" not in repr(lines) + repr(world.proxy.policy)


@pytest.mark.parametrize("port", [443, 0])
async def test_a_secret_for_tls_never_goes_in_the_clear(port: int) -> None:
    """Not to 443, nor to any other port but 80 (0: a free one)."""
    async with around() as world, listening(Web(OUTSIDE, port)) as web:
        world.names["api.test"] = [OUTSIDE]
        host = f"api.test:{web.port}"
        world.permit(host)
        secret = Secret.model_validate({**SECRET, "host": host})
        world.proxy.change(world.proxy.policy.with_secrets([secret]))
        refusal = f"HTTP/1.1 403 the secret for {host} goes there by https alone".encode()
        assert (await world.get(f"http://{host}/")).startswith(refusal)
        _, reader, writer = await world.connect(host)
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(refusal)
        writer.close()
        assert not web.seen
        assert any(line.verdict == "refused" for line in world.told())


async def test_a_secret_that_is_sent_back_is_masked() -> None:
    token = b"s3cret-Value"
    async with _plain() as (world, web):
        body = b"<Bearer " + token + b"> s3cret-s3cret-Val" + token + b"s3cr"
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        echoed = b"X-Echo: Bearer " + token + b"\r\n"
        for framing in (
            b"Content-Length: %d\r\n\r\n" % len(body) + body,
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        ):
            web.answer = b"HTTP/1.1 200 OK " + token + b"\r\n" + echoed + framing
            said = await world.get("http://api.test/", "Accept-Encoding: gzip, br")
            assert token not in said
            assert said.startswith(b"HTTP/1.1 200 OK ************\r\n")
            assert b"X-Echo: Bearer ************\r\n".lower() in said.lower()
            assert b"accept-encoding: identity" in web.seen[-1].lower()
            assert b"gzip" not in web.seen[-1]


async def test_no_part_of_an_answer_is_asked_for_where_a_secret_is() -> None:
    """Half of a secret that is sent back is not masked."""
    parts = ("Range: bytes=0-9", 'If-Range: "x"', "request-range: bytes=0-9")
    async with _plain() as (world, web):
        await world.get("http://api.test/", *parts, "X-Kept: y")
        assert b"range" not in web.seen[0].lower()
        assert b"x-kept: y" in web.seen[0].lower()
        world.permit(f"api.test:{world.web.port}")
        await world.get(f"http://api.test:{world.web.port}/", *parts)
        assert world.web.seen[0].lower().count(b"range: ") == 3


async def test_a_change_of_protocol_does_not_tell_a_secret() -> None:
    async with _plain() as (world, web):
        web.answer = (
            b"HTTP/1.1 101 It is s3cret-Value\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nX-Echo: Bearer s3cret-Value\r\n\r\n"
        )
        said = await world.say(
            b"GET http://api.test/ws HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert said.startswith(b"HTTP/1.1 101 It is ************\r\n")
        assert b"X-Echo: Bearer ************\r\n" in said
        assert b"s3cret" not in said


@given(st.lists(st.sampled_from([b"s3c", b"ret-Va", b"lue", b"s", b"\n", b"s3cret-Value"])))
def test_masking_loses_nothing_and_lets_nothing_through(parts: list[bytes]) -> None:
    mask = Mask([b"s3cret-Value"])
    told = b"".join([mask.feed(part) for part in parts]) + mask.end()
    assert told == b"".join(parts).replace(b"s3cret-Value", b"*" * 12)


async def test_a_secret_over_tls() -> None:
    theirs = Authority.make()

    def upstream() -> ssl.SSLContext:
        return ssl.create_default_context(cadata=theirs.certificate.decode())

    async with around(upstream=upstream) as world:
        world.names |= {"api.test": [OUTSIDE], "plain.test": [OUTSIDE]}
        async with (
            listening(Web(OUTSIDE), await theirs.context("api.test")) as web,
            listening(Web(OUTSIDE), await theirs.context("wrong.test")) as wrong,
        ):
            world.permit(f"api.test:{web.port}", f"api.test:{wrong.port}", f"plain.test:{web.port}")
            secrets = [
                Secret.model_validate({**SECRET, "host": f"api.test:{port}"})
                for port in (web.port, wrong.port)
            ]
            world.proxy.change(world.proxy.policy.with_secrets(secrets))
            trusting = ssl.create_default_context(cadata=world.authority.certificate.decode())
            for count in (1, 2):
                said = await _over_tls(world, f"api.test:{web.port}", trusting)
                assert WORD in said
                assert b"Authorization: Bearer s3cret-Value\r\n" in web.seen[count - 1]
            # A server that cannot prove who it is gets nothing.
            assert WORD not in await _over_tls(world, f"api.test:{wrong.port}", trusting)
            assert not wrong.seen
            # What no secret is for is not opened: the server's own certificate is seen.
            theirs_only = ssl.create_default_context(cadata=theirs.certificate.decode())
            theirs_only.check_hostname = False
            assert WORD in await _over_tls(world, f"plain.test:{web.port}", theirs_only)
            assert b"Authorization" not in web.seen[2]


async def _over_tls(world: World, target: str, context: ssl.SSLContext) -> bytes:
    """Three requests at most over one connection, as a blocking client makes them."""

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", world.port), 10) as plain:
            plain.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            assert b" 200 " in plain.recv(1000)
            try:
                with context.wrap_socket(plain, server_hostname=target.split(":")[0]) as tls:
                    tls.sendall(f"GET / HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                    said = b""
                    while not said.endswith(WORD) and (more := tls.recv(65536)):
                        said += more
                    return said
            except (ssl.SSLError, OSError) as error:
                return repr(error).encode()

    return await asyncio.to_thread(ask)


async def test_an_answer_over_tls_comes_whole_to_who_reads_slowly() -> None:
    """What the proxy still has of it when the connection closes in order goes out too."""
    theirs, size = Authority.make(), 3 << 20

    def upstream() -> ssl.SSLContext:
        return ssl.create_default_context(cadata=theirs.certificate.decode())

    async with (
        around(upstream=upstream) as world,
        listening(Web(OUTSIDE), await theirs.context("api.test")) as web,
    ):
        target = f"api.test:{web.port}"
        world.names["api.test"] = [OUTSIDE]
        world.permit(target)
        secret = Secret.model_validate({**SECRET, "host": target})
        world.proxy.change(world.proxy.policy.with_secrets([secret]))
        web.answer = (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size
            + b"x" * size
        )
        trusting = ssl.create_default_context(cadata=world.authority.certificate.decode())

        def ask() -> bytes:
            with socket.socket() as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plain.settimeout(20)
                plain.connect(("127.0.0.1", world.port))
                plain.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                assert b" 200 " in plain.recv(1000)
                with trusting.wrap_socket(plain, server_hostname="api.test") as tls:
                    tls.sendall(
                        f"GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode()
                    )
                    said = b""
                    try:
                        while more := tls.recv(65536):
                            said += more
                    except OSError:
                        pass
                    return said

        said = await asyncio.to_thread(ask)
        assert len(said.partition(b"\r\n\r\n")[2]) == size
        await eventually(lambda: world.proxy.tally.use.open == 0)
        assert not world.proxy.flows


async def test_a_websocket_goes_through(world: World) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"upgrade: websocket" in head.lower()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     b"Connection: Upgrade\r\n\r\nhello")  # fmt: skip
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, OUTSIDE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.permit(f"ok.test:{port}")
        _, reader, writer = await world.connect(f"ok.test:{port}")
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: ok.test:{port}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write(b"frames")
        assert await asyncio.wait_for(reader.read(), 10) == b"helloframes"
        writer.close()


async def test_nothing_is_left_when_it_closes() -> None:
    before = len(asyncio.all_tasks())
    async with around() as world:
        world.names["ok.test"] = [OUTSIDE]
        world.permit(f"ok.test:{world.web.port}")
        held = [await world.connect(f"ok.test:{world.web.port}") for _ in range(5)]
        assert world.proxy.tally.use.open == 5
    for _, reader, writer in held:
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    await asyncio.sleep(0.1)
    assert not world.proxy.flows
    assert world.proxy.tally.use.open == 0
    assert len(asyncio.all_tasks()) <= before + 1
    assert INSIDE not in repr(world.told())
