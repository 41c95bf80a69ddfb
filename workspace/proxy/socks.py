"""SOCKS5 without authentication, CONNECT only: RFC 1928."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from workspace.egress import normal_host
from workspace.proxy.requests import Malformed, Target

VERSION = 5
GRANTED, NOT_PERMITTED, UNREACHABLE = 0, 2, 4
_NO_COMMAND, _NO_ADDRESS_TYPE = 7, 8
_CONNECT = 1
_NO_AUTHENTICATION, _NO_METHOD = 0, 0xFF


class _Refuse(Malformed):
    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


async def asked(sock: socket.socket) -> Target:
    """What the client wants to be connected to.

    Raises:
        Malformed: it is not to be had; the client was told.
        EOFError: the client broke off.
    """
    loop = asyncio.get_running_loop()
    try:
        return await _asked(sock)
    except _Refuse as error:
        await loop.sock_sendall(sock, reply(error.code))
        raise


async def _asked(sock: socket.socket) -> Target:
    loop = asyncio.get_running_loop()
    _, count = await _exactly(sock, 2)
    if _NO_AUTHENTICATION not in await _exactly(sock, count):
        await loop.sock_sendall(sock, bytes([VERSION, _NO_METHOD]))
        raise Malformed("SOCKS without authentication is all there is")
    await loop.sock_sendall(sock, bytes([VERSION, _NO_AUTHENTICATION]))
    version, command, _, kind = await _exactly(sock, 4)
    if version != VERSION:
        raise _Refuse("that is not SOCKS5", 1)
    if kind == 1:
        host = str(ipaddress.IPv4Address(await _exactly(sock, 4)))
    elif kind == 4:
        host = str(ipaddress.IPv6Address(await _exactly(sock, 16)))
    elif kind == 3:
        name = await _exactly(sock, (await _exactly(sock, 1))[0])
        try:
            host = normal_host(name.decode("ascii"))
        except (UnicodeDecodeError, ValueError) as error:
            raise _Refuse(str(error), NOT_PERMITTED) from None
    else:
        raise _Refuse("SOCKS5 has no such kind of address", _NO_ADDRESS_TYPE)
    port = int.from_bytes(await _exactly(sock, 2), "big")
    if command != _CONNECT:
        raise _Refuse("of SOCKS5 there is CONNECT only", _NO_COMMAND)
    if not port:
        raise _Refuse("there is no port 0", NOT_PERMITTED)
    return Target(host, port)


def reply(code: int) -> bytes:
    return bytes([VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0])


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(sock, count - len(data))
        if not more:
            raise EOFError("the client broke off")
        data += more
    return data
