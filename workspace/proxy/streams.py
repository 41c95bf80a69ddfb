"""Bytes from and to a socket, plain or in TLS: what a request is read from and written to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Protocol

CHUNK_BYTES = 64 << 10
TLS_SECONDS = 10.0
END_SECONDS = 30.0  # for what was written to go out


class Stream(Protocol):
    """One side of a connection."""

    async def read(self) -> bytes:
        """What is there, at most CHUNK_BYTES; empty at its end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def end(self) -> None:
        """Close it in order: what was written goes out, as far as the other side takes it in time.
        It may be closed again.
        """
        ...

    def close(self) -> None:
        """At once: what has not gone out is lost."""
        ...


class Plain:
    """A socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes:
        return await self._loop.sock_recv(self.sock, CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def end(self) -> None:
        self.sock.close()  # the kernel has all that was written

    def close(self) -> None:
        self.sock.close()


class Tls:
    """A socket in TLS; it takes the socket over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def accept(cls, sock: socket.socket, context: ssl.SSLContext) -> Tls:
        """The server's side of a socket whose client begins."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=context, ssl_handshake_timeout=TLS_SECONDS
        )
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    @classmethod
    async def connect(cls, sock: socket.socket, context: ssl.SSLContext, host: str) -> Tls:
        """The client's side, to a server that must prove to be ``host``."""
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname=host, limit=CHUNK_BYTES,
            ssl_handshake_timeout=TLS_SECONDS,
        )  # fmt: skip
        return cls(reader, writer)

    async def read(self) -> bytes:
        return await self._reader.read(CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.close()
        with contextlib.suppress(Exception):  # whatever became of it, it is over
            await asyncio.wait_for(self._writer.wait_closed(), END_SECONDS)
        self.close()

    def close(self) -> None:
        with contextlib.suppress(Exception):  # whatever became of it, it is over
            self._writer.transport.abort()
