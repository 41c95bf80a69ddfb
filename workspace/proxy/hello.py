"""The server name in the first message of TLS: RFC 8446 section 4.1.2, RFC 6066 section 3.

A tunnel to a permitted host may not ask it, by that name, to be another one: hosts that share an
address (a CDN's) would answer.
"""

from __future__ import annotations

MAX_BYTES = 16 << 10
_HANDSHAKE, _SERVER_NAME, _HOST_NAME = 22, 0, 0


class Unfinished(Exception):
    """More bytes are needed."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ValueError("a length in it is wrong")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> _Reader:
        """What follows, after its length in ``size`` bytes."""
        return _Reader(self.take(self.number(size)))

    @property
    def is_left(self) -> bool:
        return self._at < len(self._data)


def server_name(data: bytes) -> str | None:
    """The name that a ClientHello asks for; None if it asks for none.

    Raises:
        Unfinished: it goes on.
        ValueError: it is none.
    """
    hello = _Reader(_message(data))
    hello.take(2 + 32)  # version, random
    hello.block(1), hello.block(2), hello.block(1)  # session, cipher suites, compression
    if not hello.is_left:
        return None
    extensions = hello.block(2)
    found: list[bytes] = []
    while extensions.is_left:
        kind, content = extensions.number(2), extensions.block(2)
        if kind == _SERVER_NAME:
            names = content.block(2)
            while names.is_left:
                is_host, name = names.number(1) == _HOST_NAME, names.block(2)
                if is_host:
                    found.append(name._data)
    if len(found) > 1:
        raise ValueError("it names more than one server")
    return found[0].decode("ascii") if found else None


def _message(data: bytes) -> bytes:
    """The handshake message, which may lie in several records."""
    message, at = b"", 0
    while True:
        if len(data) - at < 5:
            raise _unfinished(data)
        if data[at] != _HANDSHAKE or data[at + 1] != 3:
            raise ValueError("it does not begin with a handshake")
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < size <= MAX_BYTES + 256:
            raise ValueError("its record is too long, or empty")
        message += data[at + 5 : at + 5 + size]
        if message[:1] not in (b"", b"\x01"):  # a ClientHello is of type 1
            raise ValueError("it does not begin with a ClientHello")
        if len(message) >= 4:
            whole = 4 + int.from_bytes(message[1:4], "big")
            if whole > MAX_BYTES:
                raise ValueError("its ClientHello is too long")
            if len(message) >= whole:
                return message[4:whole]
        at += 5 + size
        if at > len(data):
            raise _unfinished(data)


def _unfinished(data: bytes) -> Exception:
    return ValueError("it is too long") if len(data) > MAX_BYTES else Unfinished()
