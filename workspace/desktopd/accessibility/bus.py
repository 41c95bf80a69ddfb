"""A connection to a D-Bus: calls that do not wait for one another, and signals as they come.

One message after the other would cost a tree a round trip for each node; here many calls are under
way at once, :meth:`Bus.start` them and gather. On failure: a call that its object refuses, or that
is not answered, is :class:`Refused`; when the connection is gone (closed, or a message came that
holds together no more) every call under way and every later one is :class:`Gone`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from workspace.desktopd.accessibility import wire
from workspace.desktopd.accessibility.wire import Call, Malformed, Message, Value

logger = logging.getLogger(__name__)

_SECONDS = 5.0
_MAX_UNANSWERED = 20_000
_MAX_GREETING = 4096
_MAX_BYTES = 2 << 20  # of a message; what is longer is thrown away unread
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
Reply = asyncio.Future[tuple[Value, ...]]


class Refused(Exception):
    """The other side answered with an error, or with what is no answer."""


class Silent(Refused):
    """There was no answer in time: what was asked may have been done, or yet be."""


class Gone(Refused):
    """The connection is closed."""


class Bus(asyncio.Protocol):
    """One connection; end it with :meth:`close`."""

    def __init__(self, on_signal: Callable[[Message], None] | None = None) -> None:
        self._on_signal = on_signal
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._unsent = bytearray()
        self._skipped = 0  # bytes to come of a message that is too long
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._speaks = False  # whether the greeting is over
        self._serial = 0
        self._calls: dict[int, Reply] = {}
        self.closed = asyncio.Event()
        self.name = ""

    @classmethod
    async def connect(
        cls,
        address: str,
        on_signal: Callable[[Message], None] | None = None,
        *,
        is_peer: bool = False,
    ) -> Bus:
        """Connect to a bus, or to a program of its own address (``is_peer``).

        Raises:
            Gone: it cannot be reached, or does not let this user in.
        """
        bus = cls(on_signal)
        try:
            await asyncio.wait_for(bus._connect(address, is_peer), _SECONDS)
        except (OSError, Refused, asyncio.TimeoutError) as error:
            bus.close()
            raise Gone(f"{address[:200]} cannot be reached: {error}") from error
        except BaseException:
            bus.close()
            raise
        return bus

    async def _connect(self, address: str, is_peer: bool) -> None:
        path = unix_path(address)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, path)
        assert self._transport is not None, "connection_made was called"
        uid = str(os.getuid()).encode().hex().encode()
        self._transport.write(b"\0AUTH EXTERNAL " + uid + b"\r\n")
        if not (await self._lines.get()).startswith(b"OK "):
            raise Gone("it does not let this user in")
        self._speaks = True
        self._transport.write(b"BEGIN\r\n")
        if not is_peer:
            (name,) = await self.start(Call(_BUS[0], _BUS[0], "Hello"), _BUS[1])
            self.name = str(name)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a socket's"
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        skipped = min(self._skipped, len(data))
        self._skipped -= skipped
        self._buffer += data[skipped:]
        try:
            if self._speaks:
                self._take_messages()
            else:
                self._take_lines()
        except Malformed as error:
            logger.warning("A program of the desktop broke its D-Bus connection: %s.", error)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        calls, self._calls = self._calls, {}
        for reply in calls.values():
            if not reply.done():
                reply.set_exception(Gone("the connection was closed"))
        self._lines.put_nowait(b"")

    def _take_lines(self) -> None:
        if len(self._buffer) > _MAX_GREETING:
            raise Malformed("a greeting that does not end")
        while (end := self._buffer.find(b"\r\n")) >= 0:
            self._lines.put_nowait(bytes(self._buffer[:end]))
            del self._buffer[: end + 2]

    def _take_messages(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= wire.FIXED_BYTES:
            end = at + wire.message_bytes(buffer[at : at + wire.FIXED_BYTES])
            if end - at > _MAX_BYTES:
                # Not a reason to hang up: others are on the same bus.
                self._skipped, at = max(0, end - len(buffer)), min(end, len(buffer))
                continue
            if end > len(buffer):
                break
            self._take(wire.parse(bytes(buffer[at:end])))
            at = end
        del buffer[:at]

    def _take(self, message: Message) -> None:
        if message.kind == wire.SIGNAL:
            if self._on_signal is not None:
                try:
                    self._on_signal(message)
                except Exception:  # what one program sent must not end what others say
                    logger.exception("A program's signal could not be read.")
            return
        reply = self._calls.pop(message.reply_serial, None)
        if reply is None or reply.done():
            return  # nobody waits for it any more, or it is a call: none are served here
        if message.kind == wire.ERROR:
            reply.set_exception(Refused(message.error[:200]))
            return
        try:
            reply.set_result(message.values())
        except Malformed as error:
            reply.set_exception(Refused(str(error)))

    # What callers use.

    def start(self, call: Call, path: str) -> Reply:
        """Send a call; its answer is awaited by whoever wants it, and dropped if cancelled."""
        reply: Reply = asyncio.get_running_loop().create_future()
        if self.closed.is_set() or self._transport is None:
            reply.set_exception(Gone("the connection is closed"))
            return reply
        if len(self._calls) >= _MAX_UNANSWERED:
            self._calls = {serial: each for serial, each in self._calls.items() if not each.done()}
            if len(self._calls) >= _MAX_UNANSWERED:
                reply.set_exception(Refused("too many calls are not answered"))
                return reply
        self._serial = self._serial % 0x7FFFFFFF + 1
        self._calls[self._serial] = reply
        if not self._unsent:  # what is asked in one go is sent in one go
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent += call.message(self._serial, path)
        return reply

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, bytearray()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(unsent)

    async def call(self, call: Call, path: str, seconds: float = _SECONDS) -> tuple[Value, ...]:
        """Call and wait for the answer.

        Raises:
            Refused: an error came back, or nothing in that time.
        """
        try:
            return await asyncio.wait_for(self.start(call, path), seconds)
        except asyncio.TimeoutError as error:
            raise Silent("there was no answer in time") from error

    def close(self) -> None:
        self.closed.set()
        if self._transport is not None:
            self._transport.abort()


async def answers(replies: Sequence[Reply], seconds: float) -> list[tuple[Value, ...] | None]:
    """What each call brought; None for one that was refused, or not answered in that time."""
    if not replies:
        return []
    try:
        await asyncio.wait(replies, timeout=max(0.0, seconds))
        return [_told(reply) for reply in replies]
    finally:
        for reply in replies:
            if not reply.cancel() and not reply.cancelled():
                reply.exception()  # seen, or asyncio would complain of it


def _told(reply: Reply) -> tuple[Value, ...] | None:
    if not reply.done() or reply.cancelled() or reply.exception() is not None:
        return None
    return reply.result()


def unix_path(address: str) -> str:
    """The socket's path of the first address that is one; an abstract one begins with NUL.

    Raises:
        Gone: there is none.
    """
    for each in address.split(";"):
        kind, _, rest = each.partition(":")
        options = dict(pair.partition("=")[::2] for pair in rest.split(","))
        if kind == "unix" and "path" in options:
            return unquote(options["path"])
        if kind == "unix" and "abstract" in options:
            return "\0" + unquote(options["abstract"])
    raise Gone(f"{address[:200]} has no unix socket")
