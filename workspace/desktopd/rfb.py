"""What a VNC client says, taken apart and filtered by who has control: pure, no sockets.

Follows RFC 6143 (RFB 3.8) and the community's extensions of it that TigerVNC serves. Encodings
whose use would change the grammar of the client's own messages (extended mouse buttons, GII,
audio, xvp) are taken out of SetEncodings, so that the server never offers them and this parser
never loses its place. Anything it does not know is a :class:`ProtocolError`: a stream that cannot
be parsed cannot be filtered. At most one message is kept waiting for its end; clipboard texts
longer than the server would take are dropped as they come.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

Role = Literal["view", "control"]

MAX_CUT_TEXT = 256 * 1024  # TigerVNC's MaxCutText
_MAX_ENCODINGS = 1024
_MAX_HELD = 256
_GRAMMAR_CHANGING = frozenset({-305, -309, -316, -259})

_SET_ENCODINGS, _KEY, _POINTER, _CUT_TEXT = 2, 4, 5, 6
_XVP, _SET_DESKTOP_SIZE, _QEMU = 250, 251, 255
# What a viewer may not send; nobody may send xvp (switch the machine off).
_INPUT = frozenset({_KEY, _POINTER, _CUT_TEXT, _SET_DESKTOP_SIZE, _QEMU, _XVP})

_FIXED = {0: 20, 3: 10, _KEY: 8, _POINTER: 6, 150: 10, _XVP: 4}


class Gate(Protocol):
    """Who decides whether a client's input passes, message by message, and hears what passed."""

    def admits(self) -> bool: ...
    def key(self, keysym: int, is_down: bool) -> None: ...
    def pointer(self, buttons: int, x: int, y: int) -> None: ...


class ProtocolError(Exception):
    """The client said something that cannot be passed on."""


@dataclass
class Held:
    """The keys and buttons that a client has pressed and not released."""

    keys: dict[tuple[int, ...], bytes] = field(default_factory=dict)
    buttons: int = 0
    x: int = 0
    y: int = 0

    def note_key(self, key: tuple[int, ...], is_down: bool, release: bytes) -> None:
        if not is_down:
            self.keys.pop(key, None)
        elif len(self.keys) < _MAX_HELD:
            self.keys[key] = release
        else:
            raise ProtocolError("too many keys held")

    def release(self) -> bytes:
        """The messages that release all of it."""
        messages = b"".join(self.keys.values())
        if self.buttons:
            messages += struct.pack(">BBHH", _POINTER, 0, self.x, self.y)
        self.keys.clear()
        self.buttons = 0
        return messages


class ClientStream:
    """The client's side of one connection; feed it bytes as they come.

    Without a gate it is a viewer's: no input of it passes.
    """

    def __init__(self, gate: Gate | None) -> None:
        self._gate = gate
        self._buffer = bytearray()
        self._skip = 0
        self._step: Callable[[], bytes | None] = self._version
        self.held = Held()

    def feed(self, data: bytes) -> bytes:
        """What to pass on to the server.

        Raises:
            ProtocolError: the connection must be closed.
        """
        self._buffer += data
        passed = bytearray()
        while True:
            skipped = min(self._skip, len(self._buffer))
            del self._buffer[:skipped]
            self._skip -= skipped
            if self._skip or not self._buffer:
                return bytes(passed)
            message = self._step()
            if message is None:
                return bytes(passed)
            passed += message

    def _take(self, count: int) -> bytes | None:
        if len(self._buffer) < count:
            return None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _version(self) -> bytes | None:
        version = self._take(12)
        if version is None:
            return None
        if version[:8] != b"RFB 003." or version[8:] < b"008\n" or not version[8:11].isdigit():
            raise ProtocolError("only RFB 3.8 is spoken")
        self._step = self._security
        return b"RFB 003.008\n"

    def _security(self) -> bytes | None:
        choice = self._take(1)
        if choice is not None and choice != b"\x01":
            raise ProtocolError("only the security type None is served")
        self._step = self._client_init
        return choice

    def _client_init(self) -> bytes | None:
        if self._take(1) is None:
            return None
        self._step = self._message
        return b"\x01"  # shared: a watcher never ends another's connection

    def _message(self) -> bytes | None:
        kind = self._buffer[0]
        length = self._length(kind)
        if length is None:
            return None
        if kind == _CUT_TEXT and length > MAX_CUT_TEXT + 8:
            self._skip = length
            return b""
        message = self._take(length)
        if message is None:
            return None
        if kind == _XVP or (kind in _INPUT and not self._admits()):
            return b""
        if kind == _SET_ENCODINGS:
            return _without_grammar_changes(message)
        self._note(kind, message)
        return message

    def _admits(self) -> bool:
        return self._gate is not None and self._gate.admits()

    def _length(self, kind: int) -> int | None:
        """The length of the message at hand; None while that cannot be told yet."""
        if kind in _FIXED:
            return _FIXED[kind]
        if kind == _SET_ENCODINGS:
            return self._counted(4, lambda head: int.from_bytes(head[2:4], "big") * 4)
        if kind == _CUT_TEXT:  # a negative length marks the extended clipboard's messages
            return self._counted(8, lambda head: abs(int.from_bytes(head[4:8], "big", signed=True)))
        if kind == 248:  # Fence
            return self._counted(9, lambda head: head[8])
        if kind == _SET_DESKTOP_SIZE:
            return self._counted(8, lambda head: head[6] * 16)
        if kind == _QEMU:
            return self._counted(2, self._qemu_rest)
        raise ProtocolError(f"message type {kind} is not served")

    def _counted(self, head: int, rest: Callable[[bytes], int]) -> int | None:
        if len(self._buffer) < head:
            return None
        return head + rest(bytes(self._buffer[:head]))

    @staticmethod
    def _qemu_rest(head: bytes) -> int:
        if head[1] != 0:
            raise ProtocolError(f"QEMU message {head[1]} is not served")
        return 10

    def _note(self, kind: int, message: bytes) -> None:
        gate = self._gate
        if gate is None:
            return
        if kind == _KEY:
            (keysym,) = struct.unpack_from(">I", message, 4)
            self.held.note_key((keysym,), bool(message[1]), message[:1] + b"\0" + message[2:])
            gate.key(keysym, bool(message[1]))
        elif kind == _QEMU:
            down, keysym, code = struct.unpack_from(">HII", message, 2)
            release = message[:2] + b"\0\0" + message[4:]
            self.held.note_key((keysym, code), bool(down), release)
            gate.key(keysym, bool(down))
        elif kind == _POINTER:
            self.held.buttons, self.held.x, self.held.y = struct.unpack_from(">BHH", message, 1)
            gate.pointer(self.held.buttons, self.held.x, self.held.y)


def _without_grammar_changes(message: bytes) -> bytes:
    count = int.from_bytes(message[2:4], "big")
    if count > _MAX_ENCODINGS:
        raise ProtocolError("too many encodings")
    wanted = struct.unpack_from(f">{count}i", message, 4)
    kept = [encoding for encoding in wanted if encoding not in _GRAMMAR_CHANGING]
    return struct.pack(f">BBH{len(kept)}i", _SET_ENCODINGS, 0, len(kept), *kept)
