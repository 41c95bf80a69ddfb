"""D-Bus messages as bytes: the little of the protocol that AT-SPI is spoken in.

Written here rather than taken from a package because a tree costs a thousand calls, whose messages
differ in an object's path only (:class:`Call` keeps the rest ready made), and because what comes
back is written by any program of the desktop: lengths, nesting and sizes are checked before
anything is made of them. What does not hold together is :class:`Malformed`.

After the D-Bus specification, sections "Type System" and "Message Protocol". Messages of both byte
orders are read; little endian is written. File descriptors are not taken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY = 1
MAX_MESSAGE_BYTES = 128 << 20  # the protocol's own limit
FIXED_BYTES = 16  # of every message: what says how long it is
_MAX_HEADER_BYTES = 16 << 10
_MAX_DEPTH = 8
_MAX_VALUES = 50_000  # of an array: what a program sends is made into objects here
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SENDER, _SIGNATURE = range(
    1, 9
)
_NUMBERS = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}

Value = Any  # what a D-Bus value is in Python depends on its signature, which comes with it
Parser = Callable[[bytes, int, str], tuple[Value, int]]  # data, offset, byte order -> value, offset


class Malformed(Exception):
    """Bytes that are no message of D-Bus, or more than is taken."""


# Writing.


class Call:
    """A method to be called on objects of one program: all but the path is made once."""

    def __init__(
        self, destination: str, interface: str, member: str, signature: str = "", *arguments: Value
    ) -> None:
        body = bytearray()
        for kind, argument in zip(signature, arguments, strict=True):
            _write(body, kind, argument)
        fields = bytearray()
        for code, kind, value in (
            (_INTERFACE, "s", interface),
            (_MEMBER, "s", member),
            (_DESTINATION, "s", destination),
            (_SIGNATURE, "g", signature),
        ):
            if value:
                _align(fields, 8)
                fields += bytes([code, 1, ord(kind), 0])
                _write(fields, kind, value)
        _align(fields, 8)
        self._body, self._fields = bytes(body), bytes(fields)

    def message(self, serial: int, path: str, *, flags: int = 0) -> bytes:
        """The call of that number on the object at ``path``."""
        name = path.encode()
        length = len(self._fields) + 9 + len(name)
        return b"".join((
            struct.pack(
                "<4BIII", 0x6C, METHOD_CALL, flags, 1, len(self._body), serial, length
            ),
            self._fields,
            struct.pack("<4BI", _PATH, 1, 0x6F, 0, len(name)),
            name,
            bytes(1 + -length % 8),
            self._body,
        ))  # fmt: skip


def _align(data: bytearray, size: int) -> None:
    data += bytes(-len(data) % size)


def _write(data: bytearray, kind: str, value: Value) -> None:
    """A value of one of the simple types, or ``v``: its type and it."""
    if kind in _NUMBERS:
        packed = struct.pack("<" + _NUMBERS[kind], value)
        _align(data, len(packed))
        data += packed
    elif kind == "g":
        data += bytes([len(value)]) + value.encode() + b"\0"
    elif kind == "v":
        inner, held = value
        _write(data, "g", inner)
        _write(data, inner, held)
    else:
        encoded = value.encode()
        _write(data, "u", len(encoded))
        data += encoded + b"\0"


# Reading.


class Message(NamedTuple):
    """A message as it came; :meth:`values` reads its body, when somebody wants it."""

    kind: int
    serial: int
    reply_serial: int
    path: str
    interface: str
    member: str
    sender: str
    error: str
    signature: str
    body: bytes
    order: str

    def values(self) -> tuple[Value, ...]:
        """What it carries.

        Raises:
            Malformed: the body is not what its signature says.
        """
        return unpack(self.signature, self.body, self.order)


def message_bytes(head: bytes | bytearray | memoryview) -> int:
    """How long the message is whose first :data:`FIXED_BYTES` these are.

    Raises:
        Malformed: they are no message's, or it is longer than is taken.
    """
    order = {0x6C: "<", 0x42: ">"}.get(head[0])
    if order is None or head[3] != 1:
        raise Malformed("that is no message of D-Bus")
    body, _, fields = struct.unpack_from(order + "III", head, 4)
    if fields > _MAX_HEADER_BYTES:
        raise Malformed(f"a header of {fields} bytes is more than is taken")
    whole: int = FIXED_BYTES + fields + -fields % 8 + body
    if whole > MAX_MESSAGE_BYTES:
        raise Malformed(f"a message of {whole} bytes is more than is taken")
    return whole


_heads: dict[bytes, Message] = {}  # by a reply's header without the call's number: few differ
_MAX_HEADS = 500
_REPLY_FIELD = bytes([_REPLY_SERIAL, 1, 0x75, 0])


def parse(data: bytes) -> Message:
    """A whole message.

    Raises:
        Malformed: its header is not one.
    """
    order = "<" if data[0] == 0x6C else ">"
    serial, length = struct.unpack_from(order + "II", data, 8)
    end = FIXED_BYTES + length
    body = data[end + -end % 8 :]
    at = data.find(_REPLY_FIELD, FIXED_BYTES, end)
    if at < 0 or at % 8:
        return _parse_head(data, end, order, serial, body)
    at += len(_REPLY_FIELD)
    key = data[:4] + data[FIXED_BYTES:at] + data[at + 4 : end]
    head = _heads.get(key)
    if head is None:
        if len(_heads) >= _MAX_HEADS:
            _heads.clear()
        head = _heads[key] = _parse_head(data, end, order, 0, b"")
    (reply,) = struct.unpack_from(order + "I", data, at)
    kind, _, _, path, interface, member, sender, error, signature, _, _ = head
    return Message(
        kind, serial, reply, path, interface, member, sender, error, signature, body, order
    )


def _parse_head(data: bytes, end: int, order: str, serial: int, body: bytes) -> Message:
    fields: dict[int, Value] = {}
    at = FIXED_BYTES
    try:
        while at < end:
            code = data[at]
            kind, at = _short_text(data, at + 1, order)
            fields[code], at = _only(kind)(data, at, order)
            if code == _SIGNATURE and kind != "g":
                raise Malformed("its signature is none")  # one could have any length then
            at += -at % 8
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed("a header's field ends before it should") from error

    def text(code: int) -> str:
        value = fields.get(code, "")
        return value if isinstance(value, str) else ""

    reply = fields.get(_REPLY_SERIAL, 0)
    return Message(
        kind=data[1],
        serial=serial,
        reply_serial=reply if isinstance(reply, int) else 0,
        path=text(_PATH),
        interface=text(_INTERFACE),
        member=text(_MEMBER),
        sender=text(_SENDER),
        error=text(_ERROR_NAME),
        signature=text(_SIGNATURE),
        body=body,
        order=order,
    )


def unpack(signature: str, data: bytes, order: str = "<") -> tuple[Value, ...]:
    """The values of those types that ``data`` holds.

    Raises:
        Malformed: it does not hold them.
    """
    try:
        value, _ = _struct_of(signature, 0)(data, 0, order)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed(f"that is not {signature[:40]!r}") from error
    values: tuple[Value, ...] = value
    return values


@lru_cache(maxsize=256)
def _struct_of(signature: str, depth: int) -> Parser:
    """What reads values of those types, one after the other, as a tuple."""
    if signature and not signature.strip("iu"):
        return _same_size(signature)
    parsers = []
    at = 0
    while at < len(signature):
        parser, at = _parser(signature, at, depth)
        parsers.append(parser)

    def read(data: bytes, at: int, order: str) -> tuple[Value, int]:
        values = []
        for parser in parsers:
            value, at = parser(data, at, order)
            values.append(value)
        return tuple(values), at

    return read


def _same_size(signature: str) -> Parser:
    """What reads numbers of four bytes."""
    size = 4 * len(signature)
    readers = {
        order: struct.Struct(order + signature.replace("u", "I")).unpack_from for order in "<>"
    }

    def read(data: bytes, at: int, order: str) -> tuple[Value, int]:
        at += -at % 4
        return readers[order](data, at), at + size

    return read


def _parser(signature: str, at: int, depth: int) -> tuple[Parser, int]:
    """What reads the first type of ``signature`` from ``at`` on, and where the next begins."""
    kind = signature[at]
    if depth > _MAX_DEPTH:
        raise Malformed("a value of too many levels")
    if kind in _NUMBERS:
        return _number(_NUMBERS[kind]), at + 1
    if kind == "b":
        return _number("I"), at + 1
    if kind in "so":
        return _text, at + 1
    if kind == "g":
        return _short_text, at + 1
    if kind == "v":
        return _variant, at + 1
    if kind in "({":
        end = _closing(signature, at)
        inside = _struct_of(signature[at + 1 : end], depth + 1)
        return _aligned(inside, 8), end + 1
    if kind == "a":
        element, end = _parser(signature, at + 1, depth + 1)
        return _array(element, 8 if signature[at + 1] in "({xtd" else 1), end
    raise Malformed(f"there is no type {kind!r}")


def _closing(signature: str, at: int) -> int:
    level = 0
    for end in range(at, len(signature)):
        level += (signature[end] in "({") - (signature[end] in ")}")
        if level == 0:
            return end
    raise Malformed("a structure without an end")


def _number(code: str) -> Parser:
    size = struct.calcsize("<" + code)
    readers = {order: struct.Struct(order + code).unpack_from for order in "<>"}

    def read(data: bytes, at: int, order: str) -> tuple[Value, int]:
        at += -at % size
        return readers[order](data, at)[0], at + size

    return read


def _text(data: bytes, at: int, order: str) -> tuple[Value, int]:
    at += -at % 4
    (length,) = struct.unpack_from(order + "I", data, at)
    end = at + 4 + length
    if end >= len(data):
        raise Malformed("a text that ends after its message")
    return data[at + 4 : end].decode("utf-8", "replace"), end + 1


def _short_text(data: bytes, at: int, order: str) -> tuple[Value, int]:
    end = at + 1 + data[at]
    if end >= len(data):
        raise Malformed("a type that ends after its message")
    return data[at + 1 : end].decode("ascii"), end + 1


def _variant(data: bytes, at: int, order: str) -> tuple[Value, int]:
    signature, at = _short_text(data, at, order)
    return _only(signature)(data, at, order)


@lru_cache(maxsize=256)
def _only(signature: str) -> Parser:
    """What reads a value of the one type that a variant holds."""
    # Variants in variants are not part of AT-SPI; refusing them bounds how deep reading goes.
    if not signature or "v" in signature:
        raise Malformed("a variant of nothing, or in a variant")
    parser, end = _parser(signature, 0, 1)
    if end != len(signature):
        raise Malformed("a variant holds one value")
    return parser


def _aligned(inside: Parser, size: int) -> Parser:
    def read(data: bytes, at: int, order: str) -> tuple[Value, int]:
        return inside(data, at + -at % size, order)

    return read


def _array(element: Parser, alignment: int) -> Parser:
    def read(data: bytes, at: int, order: str) -> tuple[Value, int]:
        at += -at % 4
        (length,) = struct.unpack_from(order + "I", data, at)
        at += 4
        at += -at % alignment
        end = at + length
        if end > len(data):
            raise Malformed("an array that ends after its message")
        values = []
        while at < end:
            before = at
            value, at = element(data, at, order)
            if at == before:
                raise Malformed("an array of nothing")
            values.append(value)
            if len(values) > _MAX_VALUES:
                raise Malformed("an array of too many values")
        return values, at

    return read
