"""The programs that describe themselves on the accessibility bus, and asking their objects.

A program is asked over its own socket where it offers one, which is twice as fast as through the
bus's daemon. On failure: one that offers none, or whose socket does not answer, is asked through
the daemon. What a program says an object is called is checked before it is sent anywhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from workspace.desktopd.accessibility.bus import Bus, Refused, Reply, Silent, answers
from workspace.desktopd.accessibility.wire import Call, Message, Value

_REGISTRY = "org.a11y.atspi.Registry"
_ROOT = "/org/a11y/atspi/accessible/root"
_DAEMON = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
_ASK_SECONDS = 0.5
_MAX_PROGRAMS = 100
_MAX_CALLS = 500
_NAME = re.compile(r":[0-9]{1,9}\.[0-9]{1,9}")
_PATH = re.compile(r"(/[A-Za-z0-9_]{1,100}){1,20}")


class Ref(NamedTuple):
    """An object of a program: the program's name on the bus, and the object's path there."""

    program: str
    path: str


class Method(NamedTuple):
    """What can be asked of an object."""

    interface: str
    member: str
    signature: str = ""
    arguments: tuple[Value, ...] = ()


def accessible(member: str) -> Method:
    return Method("org.a11y.atspi.Accessible", member)


def of(interface: str, member: str, signature: str = "", *arguments: Value) -> Method:
    """A method of one of AT-SPI's interfaces."""
    return Method(f"org.a11y.atspi.{interface}", member, signature, arguments)


def get(interface: str, name: str) -> Method:
    """What reads a property of one of AT-SPI's interfaces."""
    named = (f"org.a11y.atspi.{interface}", name)
    return Method("org.freedesktop.DBus.Properties", "Get", "ss", named)


def put(interface: str, name: str, signature: str, value: Value) -> Method:
    """What sets a property."""
    arguments = (f"org.a11y.atspi.{interface}", name, (signature, value))
    return Method("org.freedesktop.DBus.Properties", "Set", "ssv", arguments)


def as_ref(value: Value) -> Ref | None:
    """The object that a program named; None for none, and for what is no name."""
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    program, path = value
    if not isinstance(program, str) or not isinstance(path, str):
        return None
    if path.endswith("/null") or not (_NAME.fullmatch(program) and _PATH.fullmatch(path)):
        return None
    return Ref(program, path)


def _one(reply: Reply) -> Value:
    """The one value that was answered, if that is what came."""
    if reply.cancelled() or reply.exception() is not None or len(reply.result()) != 1:
        return None
    return reply.result()[0]


@dataclass
class Program:
    """A program on the bus."""

    root: Ref
    bus: Bus
    pid: int | None = None
    is_peer: bool = False  # whether the connection leads to it alone
    is_chromium: bool = False
    lacks_page_since: float | None = None
    _calls: dict[Method, Call] = field(default_factory=dict)

    def ask(self, path: str, method: Method) -> Reply:
        """Start a call on one of its objects."""
        call = self._calls.get(method)
        if call is None:
            if len(self._calls) >= _MAX_CALLS:
                self._calls.clear()
            interface, member, signature, arguments = method
            call = Call(self.root.program, interface, member, signature, *arguments)
            self._calls[method] = call
        return self.bus.start(call, path)

    async def answer(
        self, path: str, method: Method, seconds: float = _ASK_SECONDS
    ) -> tuple[Value, ...]:
        """Call and wait.

        Raises:
            Refused: an error came back, or nothing in that time.
        """
        try:
            return await asyncio.wait_for(self.ask(path, method), seconds)
        except asyncio.TimeoutError as error:
            raise Silent("there was no answer in time") from error

    def learn_pid(self, reply: Reply) -> None:
        told = _one(reply)
        self.pid = told if isinstance(told, int) else None

    def learn_toolkit(self, reply: Reply) -> None:
        self.is_chromium = _one(reply) == "Chromium"

    async def wake(self) -> None:
        """Have Chromium describe its pages.

        It does from the first time that somebody asks for attributes, and ends it when nobody has
        for half a minute in which keys or buttons were pressed.
        """
        if self.is_chromium:
            await answers([self.ask(self.root.path, accessible("GetAttributes"))], _ASK_SECONDS)

    def close(self) -> None:
        if self.is_peer:
            self.bus.close()


class Programs:
    """The programs on one accessibility bus; end it with :meth:`close`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: dict[str, Program] = {}
        self._listing = asyncio.Lock()
        self._listings: set[asyncio.Task[list[Program]]] = set()

    @classmethod
    async def connect(cls, session_bus: str, on_signal: Callable[[Message], None]) -> Programs:
        """Connect to the accessibility bus of a session.

        Raises:
            Refused: there is none.
        """
        session = await Bus.connect(session_bus)
        try:
            asking = Call("org.a11y.Bus", "org.a11y.Bus", "GetAddress")
            (address,) = await session.call(asking, "/org/a11y/bus")
            return cls(await Bus.connect(str(address), on_signal))
        except ValueError as error:  # not one answer, or no address
            raise Refused("it names no accessibility bus") from error
        finally:
            session.close()

    @property
    def closed(self) -> asyncio.Event:
        return self._bus.closed

    async def listen(self, *rules: str) -> None:
        """Have signals that match those rules sent here."""
        for rule in rules:
            await self._bus.call(Call(_DAEMON[0], _DAEMON[0], "AddMatch", "s", rule), _DAEMON[1])

    async def deafen(self, *rules: str) -> None:
        for rule in rules:
            await self._bus.call(Call(_DAEMON[0], _DAEMON[0], "RemoveMatch", "s", rule), _DAEMON[1])

    async def want_events(self, *names: str, wanted: bool = True) -> None:
        """Have programs send events of those names, or no longer."""
        member = "RegisterEvent" if wanted else "DeregisterEvent"
        for name in names:
            call = Call(_REGISTRY, _REGISTRY, member, "s", name)
            await self._bus.call(call, "/org/a11y/atspi/registry")

    async def listed(self) -> list[Program]:
        """The programs that are there now.

        Raises:
            Refused: the registry does not answer.
        """
        # Who asks may have little time: meeting a program goes on for the next.
        listing = asyncio.ensure_future(self._list())
        self._listings.add(listing)
        listing.add_done_callback(self._listed)
        return await asyncio.shield(listing)

    def _listed(self, listing: asyncio.Task[list[Program]]) -> None:
        self._listings.discard(listing)
        if not listing.cancelled():
            listing.exception()  # seen, though nobody may wait any more

    async def _list(self) -> list[Program]:
        async with self._listing:
            asking = Call(_REGISTRY, "org.a11y.atspi.Accessible", "GetChildren")
            try:
                (children,) = await self._bus.call(asking, _ROOT)
            except ValueError as error:
                raise Refused("the registry's answer is none") from error
            roots = [as_ref(child) for child in children] if isinstance(children, list) else []
            there = {root.program: root for root in roots[:_MAX_PROGRAMS] if root is not None}
            for name in self._known.keys() - there.keys():
                self._known.pop(name).close()
            new = [root for name, root in there.items() if self._is_unknown(name)]
            await asyncio.gather(*(self._meet(root) for root in new))
            return [self._known[name] for name in there]

    def _is_unknown(self, name: str) -> bool:
        known = self._known.get(name)
        return known is None or known.bus.closed.is_set()

    def get(self, name: str) -> Program | None:
        """One that was listed before."""
        return self._known.get(name)

    async def _meet(self, root: Ref) -> None:
        """Learn what there is to know of a program, and the quickest way to it."""
        program = Program(root, self._bus)
        asking = Call(_DAEMON[0], _DAEMON[0], "GetConnectionUnixProcessID", "s", root.program)
        pid = self._bus.start(asking, _DAEMON[1])
        toolkit = program.ask(root.path, get("Application", "ToolkitName"))
        # They may come later than that, from a busy program: then they are known from then on.
        pid.add_done_callback(program.learn_pid)
        toolkit.add_done_callback(program.learn_toolkit)
        where = program.ask(root.path, of("Application", "GetApplicationBusAddress"))
        await asyncio.wait([pid, toolkit, where], timeout=_ASK_SECONDS)
        (address,) = await answers([where], 0)
        if address is not None and len(address) == 1 and address[0]:
            try:
                connecting = Bus.connect(str(address[0]), is_peer=True)
                program.bus = await asyncio.wait_for(connecting, _ASK_SECONDS)
                program.is_peer = True
            except (Refused, ValueError, asyncio.TimeoutError):
                pass  # through the daemon, then
        self._known[root.program] = program

    def close(self) -> None:
        for listing in self._listings:
            listing.cancel()
        for program in self._known.values():
            program.close()
        self._known.clear()
        self._bus.close()
