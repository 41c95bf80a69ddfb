"""The one connection to the X server, and the pump that reads its events.

Everything of Carrel's that speaks X11 goes through one :class:`Display`: it connects within a
deadline, sets up the extensions, knows the screen's size, and hands events to whoever subscribed.
Requests are made on the event loop's thread: over a local socket a round trip takes about 0.1 ms.

Waiting for a reply can read events off the socket, after which the socket is quiet and the loop
would not wake for them; so :meth:`Display.reply` always sees to it that the pump runs afterwards.

On failure: a server that cannot be reached or lacks an extension is ``StartFailed``. When the
connection breaks later, :attr:`Display.closed` is set, whoever waits is woken, and every use
inside :meth:`Display.talking` becomes ``DesktopLost``.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import xcffib
import xcffib.damage
import xcffib.shm
import xcffib.xfixes
import xcffib.xproto
import xcffib.xtest

from workspace.errors import DesktopLost, StartFailed, TimedOut

logger = logging.getLogger(__name__)

T = TypeVar("T")
_ROOT_EVENTS = xcffib.xproto.EventMask.PropertyChange | xcffib.xproto.EventMask.StructureNotify


class Display:
    """A connection with its extensions; open it with :meth:`open`, end it with :meth:`close`."""

    # Any, here and below: xcffib carries no type annotations.
    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.connection = connection
        self.core = connection.core
        self.closed = asyncio.Event()
        self._loop = loop
        self._atoms: dict[str, int] = {}
        self._handlers: dict[type[Any], list[Callable[[Any], None]]] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._pump_scheduled = False

        screen = connection.setup.roots[connection.pref_screen]
        self.root: int = screen.root
        self.root_depth: int = screen.root_depth
        self.size: tuple[int, int] = (screen.width_in_pixels, screen.height_in_pixels)
        self.xtest = self._extension(xcffib.xtest, "XTEST", 2, 2)
        self.xfixes = self._extension(xcffib.xfixes, "XFIXES", 4, 0)
        self.damage = self._extension(xcffib.damage, "DAMAGE", 1, 1)
        self.has_shm = self._offers("MIT-SHM")
        self.shm = connection(xcffib.shm.key)
        # Go on being served while another program grabs the server.
        self.xtest.GrabControl(True)
        self.core.ChangeWindowAttributes(
            self.root, xcffib.xproto.CW.EventMask, [_ROOT_EVENTS], is_checked=True
        ).check()
        self.subscribe(xcffib.xproto.ConfigureNotifyEvent, self._on_configure)
        self._fd: int = connection.get_file_descriptor()
        loop.add_reader(self._fd, self.pump)
        self._pump_soon()

    @classmethod
    async def open(cls, name: str, *, timeout: float = 10.0) -> Display:
        """Connect to the display ``name`` (":1").

        Raises:
            StartFailed: there is no such display, it does not answer, or lacks an extension.
        """
        connection = await _connect(name, timeout)
        try:
            return cls(connection, asyncio.get_running_loop())
        except xcffib.XcffibException as error:
            connection.disconnect()
            raise StartFailed(f"The display {name} refused its set-up: {error!r}.") from error
        except StartFailed:
            connection.disconnect()
            raise

    def close(self) -> None:
        """Disconnect; doing so again does nothing."""
        if self.connection is None:
            return
        self._lost()
        self.connection.disconnect()
        self.connection = None

    def _lost(self) -> None:
        if not self.closed.is_set():
            self._loop.remove_reader(self._fd)
            self.closed.set()
            self._wake()

    def hidden_window(self) -> int:
        """A new window of our own that is never shown, and tells of its properties."""
        window: int = self.connection.generate_id()
        self.core.CreateWindow(
            0,
            window,
            self.root,
            *(-1, -1, 1, 1, 0),
            xcffib.xproto.WindowClass.InputOnly,
            0,
            xcffib.xproto.CW.EventMask,
            [xcffib.xproto.EventMask.PropertyChange],
            is_checked=True,
        ).check()
        return window

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Turn a broken connection into ``DesktopLost``."""
        if self.closed.is_set():
            raise DesktopLost("The connection to the desktop's X server is closed.")
        try:
            yield
        except xcffib.ConnectionException as error:
            self._lost()
            raise DesktopLost("The connection to the desktop's X server broke.") from error

    def _offers(self, extension: str) -> bool:
        reply = self.core.QueryExtension(len(extension), extension).reply()
        return bool(reply.present)

    def _extension(self, module: Any, name: str, major: int, minor: int) -> Any:
        if not self._offers(name):
            raise StartFailed(f"The X server has no {name} extension.")
        extension = self.connection(module.key)
        # The server serves nothing of XFIXES and DAMAGE before versions were exchanged.
        query = extension.GetVersion if name == "XTEST" else extension.QueryVersion
        query(major, minor).reply()
        return extension

    # Requests.

    def reply(self, cookie: Any) -> Any:
        """The reply to a request; events that came along are dispatched soon."""
        try:
            return cookie.reply()
        finally:
            self._pump_soon()

    def raw_reply(self, cookie: Any) -> memoryview:
        """The reply as it came over the wire, without xcffib's list of an object per byte."""
        try:
            unpacker = self.connection.wait_for_reply(cookie.sequence)
            return memoryview(bytes(unpacker.buf))
        finally:
            self._pump_soon()

    def sync(self) -> None:
        """Return once the server has done all that was asked of it."""
        self.reply(self.core.GetInputFocus())

    def atom(self, name: str) -> int:
        if name not in self._atoms:
            reply = self.reply(self.core.InternAtom(False, len(name), name))
            self._atoms[name] = reply.atom
        return self._atoms[name]

    def property(
        self, window: int, name: str, *, limit: int = 65_536, delete: bool = False
    ) -> tuple[int, bytes] | None:
        """A window's property as (the atom of its type, bytes), None if it is not set.

        At most ``limit`` bytes (rounded up to 4) are read.

        Raises:
            xcffib.xproto.WindowError: there is no such window.
        """
        return self.told(self.ask(window, name, limit=limit, delete=delete))

    def ask(self, window: int, name: str, *, limit: int = 65_536, delete: bool = False) -> Any:
        """Ask for a property without waiting; the answer is for :meth:`told`."""
        words = (limit + 3) // 4
        return self.core.GetProperty(delete, window, self.atom(name), 0, 0, words)

    def told(self, cookie: Any) -> tuple[int, bytes] | None:
        """What was asked for by :meth:`ask`; see :meth:`property`."""
        raw = self.raw_reply(cookie)
        bits, kind, count = struct.unpack_from("=xB6xI4xI", raw)
        return (kind, bytes(raw[32 : 32 + count * bits // 8])) if kind else None

    def numbers(self, window: int, name: str) -> list[int]:
        """A property of 32-bit values (cardinals, atoms, windows); empty if it is not set."""
        return as_numbers(self.property(window, name))

    def send_to_root(self, window: int, message: str, *data: int) -> None:
        """Ask the window manager something by a client message (EWMH 1.5, "Root messages")."""
        payload = struct.pack("=BBHII5I", 33, 32, 0, window, self.atom(message), *data)
        mask = xcffib.xproto.EventMask
        self.core.SendEvent(
            False, self.root, mask.SubstructureRedirect | mask.SubstructureNotify, payload
        )
        self.sync()

    # Events.

    def subscribe(self, event: type[Any], handler: Callable[[Any], None]) -> None:
        """Call ``handler`` with every event of that class."""
        self._handlers.setdefault(event, []).append(handler)

    def pump(self) -> None:
        """Dispatch the events that have arrived."""
        self._pump_scheduled = False
        if self.closed.is_set():
            return
        any_event = False
        try:
            while (event := self._next_event()) is not None:
                any_event = True
                for handler in self._handlers.get(type(event), ()):
                    handler(event)
            self.connection.flush()
        except xcffib.ConnectionException:
            self._lost()
        if any_event:
            self._wake()

    def _next_event(self) -> Any:
        while True:
            try:
                return self.connection.poll_for_event()
            except xcffib.Error as error:
                # A request without a reply failed: its window went away in the meantime.
                logger.debug("X error: %r", error)

    def _pump_soon(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self.pump)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], T | None], timeout: float, what: str) -> T:
        """What ``condition`` returns once that is not None; asked again after events came.

        Raises:
            TimedOut: it did not come true in ``timeout`` seconds; the message is ``what``
                ("The panel did not appear") and that time.
            DesktopLost: the connection broke.
        """
        deadline = self._loop.time() + timeout
        while True:
            with self.talking():
                found = condition()
            if found is not None:
                return found
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait_for(waiter, deadline - self._loop.time())
            except asyncio.TimeoutError:
                raise TimedOut(f"{what} within {timeout:g} s.") from None
            finally:
                self._waiters.discard(waiter)

    def _on_configure(self, event: Any) -> None:
        if event.window == self.root:
            self.size = (event.width, event.height)


def as_numbers(found: tuple[int, bytes] | None) -> list[int]:
    """The 32-bit values of a property; empty if it is not set."""
    data = b"" if found is None else found[1]
    return [value for (value,) in struct.iter_unpack("=I", data[: len(data) // 4 * 4])]


async def _connect(name: str, timeout: float) -> Any:
    """Connect in a thread of its own: the handshake blocks, and may do so for ever."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def resolve(connection: Any, error: Exception | None) -> None:
        if done.done():
            if connection is not None:
                connection.disconnect()
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(connection)

    def connect() -> None:
        connector: Any = xcffib.connect  # Any: xcffib carries no types
        connection, failure = None, None
        try:
            connection = connector(name)
        except xcffib.XcffibException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(resolve, connection, failure)
        except RuntimeError:  # the loop was closed long after the timeout
            if connection is not None:
                connection.disconnect()

    threading.Thread(target=connect, name="x11-connect", daemon=True).start()
    try:
        return await asyncio.wait_for(done, timeout)
    except asyncio.TimeoutError:
        raise StartFailed(f"The display {name} did not answer within {timeout:g} s.") from None
    except xcffib.XcffibException as error:
        raise StartFailed(f"The display {name} cannot be reached: {error}") from error
