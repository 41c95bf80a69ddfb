"""A proxy on loopback, and servers behind it.

``127.0.0.2`` stands for the public internet: it is the one network that the proxy's operator
permits. ``127.0.0.1`` stands for what must never be reached.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from workspace.egress import Connections
from workspace.proxy.addresses import networks
from workspace.proxy.certificates import Authority
from workspace.proxy.policy import Policy
from workspace.proxy.service import Proxy
from workspace.proxy.tally import Tally

OUTSIDE, INSIDE = "127.0.0.2", "127.0.0.1"
SECRET_WORD = "TOP-SECRET-ANSWER"


@dataclass
class Web:
    """A server that tells what it was asked: whole heads and bodies, as bytes."""

    address: str
    port: int = 0
    seen: list[bytes] = field(default_factory=list)
    answer: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                lower = head.lower()
                if b"content-length:" in lower:
                    count = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
                    body = await reader.readexactly(count)
                elif b"transfer-encoding: chunked" in lower:
                    while (size := int(await reader.readline(), 16)) > 0:
                        body += await reader.readexactly(size)
                        await reader.readline()
                    await reader.readline()
                self.seen.append(head + body)
                said = self.answer or (
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SECRET_WORD)
                    + SECRET_WORD.encode()
                )
                writer.write(said)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            pass
        finally:
            writer.close()


@dataclass
class World:
    """A proxy, its port, and what stands around it."""

    proxy: Proxy
    port: int
    web: Web  # outside
    private: Web  # inside
    names: dict[str, Sequence[str]]
    authority: Authority

    async def say(self, data: bytes, *, seconds: float = 10) -> bytes:
        """All that the proxy answers until it closes, or says no more for a moment."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            heard = b""
            while True:
                wait = seconds if not heard else 0.3
                try:
                    more = await asyncio.wait_for(reader.read(65536), wait)
                except (asyncio.TimeoutError, ConnectionResetError):
                    return heard
                if not more:
                    return heard
                heard += more
        finally:
            writer.close()

    async def get(self, url: str, *more: str) -> bytes:
        host = url.split("/")[2]
        lines = [f"GET {url} HTTP/1.1", f"Host: {host}", "Connection: close", *more]
        return await self.say("\r\n".join([*lines, "", ""]).encode())

    async def connect(
        self, target: str
    ) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        return head, reader, writer

    def told(self) -> Sequence[Connections]:
        return self.proxy.tally.take()

    def permit(self, *rules: str) -> None:
        self.proxy.change(self.proxy.policy.with_egress(list(rules)))


@asynccontextmanager
async def listening(web: Web, context: ssl.SSLContext | None = None) -> AsyncIterator[Web]:
    """On its port, or on any free one."""
    server = await asyncio.start_server(web.serve, web.address, web.port, ssl=context)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()


@asynccontextmanager
async def around(
    policy: Policy | None = None, upstream: Callable[[], ssl.SSLContext] | None = None
) -> AsyncIterator[World]:
    names: dict[str, Sequence[str]] = {}

    async def resolve(host: str) -> Sequence[str]:
        if host in names:
            return names[host]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    authority = Authority.make()
    policy = policy or Policy(private=networks([f"{OUTSIDE}/32"]))
    more = {} if upstream is None else {"upstream": upstream}
    proxy = Proxy(policy, Tally(), authority, resolve=resolve, **more)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    async with listening(Web(OUTSIDE)) as web, listening(Web(INSIDE)) as private:
        proxy.start(listener)
        try:
            yield World(proxy, port, web, private, names, authority)
        finally:
            await proxy.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """``ok.test`` is permitted, on its server's port."""
    async with around() as made:
        made.names["ok.test"] = [OUTSIDE]
        made.permit(f"ok.test:{made.web.port}")
        yield made
