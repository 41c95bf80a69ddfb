"""The connection to one tool server: held by a task of its own, looked after, made again.

What speaks MCP is given (``open``): this room knows only that a server lists tools and is called.
A call is never repeated. Whatever breaks is an error that its caller sees, and has the connection
looked after at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from typing import Protocol

import anyio

from controller.tools import checking
from controller.tools.health import Health
from workspace.errors import CarrelError, TimedOut, ToolNotFound, ToolsDown, TooMany
from workspace.tools import CALL_SECONDS, Json, ToolAnswer

PROBE_SECONDS = 15.0
ANSWER_SECONDS = 10.0  # that a server has to list its tools
MAX_CALLS = 32  # of one server, at once
CONNECT_SECONDS = 25.0  # until whoever wants to call is told that it does not come up
_log = logging.getLogger(__name__)


class Listing(Protocol):
    """What a server listed: MCP's own objects, and whether that is all."""

    @property
    def tools(self) -> Sequence[object]: ...
    @property
    def is_whole(self) -> bool: ...


class Server(Protocol):
    """A tool server that is connected. Both raise ToolsDown, and are bounded by who calls them."""

    async def tools(self) -> Listing: ...
    async def call(self, tool: str, arguments: Json) -> ToolAnswer: ...


Open = Callable[[], AbstractAsyncContextManager[Server]]


class Link:
    """One server's. ``run`` it in a task; it connects until that is cancelled.

    With ``rests_after`` seconds without a call it ends, and when its server does.
    """

    def __init__(
        self,
        name: str,
        open: Open,
        *,
        probe_seconds: float = PROBE_SECONDS,
        rests_after: float | None = None,
        taken: Sequence[str] = (),
        changed: Callable[[], None] = lambda: None,
        health: Health | None = None,
    ) -> None:
        self.name = name
        self.health = health or Health()
        self._ended_at: float | None = None
        self._open = open
        self._probe_seconds = probe_seconds
        self._rests_after = rests_after
        self._taken = taken
        self._changed = changed
        self._server: Server | None = None
        self._offered: tuple[bytes, checking.Offer] | None = None  # of which listing, by digest
        self._known = anyio.Event()  # how it is, for the first time
        self._again = anyio.Event()  # look after it at once
        self._calls = 0
        self._last_call = time.monotonic()

    async def run(self) -> None:
        """Connect, look after it, and connect again."""
        try:
            while True:
                at_once = await self._connected()
                if self._rests_after is not None:
                    return
                await self._pause(0.0 if at_once else self._probe_seconds)
        finally:
            self._ended_at = time.monotonic()
            self._known.set()

    @property
    def ended_for(self) -> float:
        """For how many seconds it has not been run any more; 0 while it is."""
        return 0.0 if self._ended_at is None else time.monotonic() - self._ended_at

    async def _connected(self) -> bool:
        """One connection, to its end; whether it is to be made again at once."""
        is_asked = False
        try:
            async with self._open() as server:
                while not self._rests():
                    with anyio.fail_after(ANSWER_SECONDS):
                        listing = await server.tools()
                    self._note(self._offer(listing))
                    self._server = server
                    self._known.set()
                    is_asked = await self._pause(self._probe_seconds)
        except CarrelError as error:
            self._miss(error.message)
        except TimeoutError:
            self._miss(f"It did not list its tools in {ANSWER_SECONDS:g} s.")
        except Exception as error:  # what a hostile server makes of a library
            _log.warning("the tool server %s: %s", self.name, error, exc_info=True)
            self._miss("It answered what no tool server says.")
        finally:
            self._server = None
        return is_asked and self.health.state == "up"

    def _offer(self, listing: Listing) -> checking.Offer:
        """What is taken of it; what is listed as before is not looked at again."""
        told = json.dumps([listing.tools, listing.is_whole]).encode()
        digest = hashlib.sha256(told).digest()
        if self._offered is None or self._offered[0] != digest:
            offer = checking.offer(listing.tools, is_whole=listing.is_whole, taken=self._taken)
            self._offered = (digest, offer)
        return self._offered[1]

    def _rests(self) -> bool:
        if self._rests_after is None or self._calls:
            return False
        return time.monotonic() - self._last_call >= self._rests_after

    async def _pause(self, seconds: float) -> bool:
        """Wait that long, or until somebody has found that it does not answer: True then."""
        with anyio.move_on_after(seconds):
            await self._again.wait()
        is_asked, self._again = self._again.is_set(), anyio.Event()
        return is_asked

    def _note(self, offer: checking.Offer) -> None:
        if self.health.succeeded(offer, datetime.now(timezone.utc)):
            _log.info("the tool server %s is up with %d tools", self.name, len(offer.tools))
            self._changed()

    def _miss(self, reason: str) -> None:
        is_final = self._rests_after is not None  # its process is gone
        if self.health.failed(reason, datetime.now(timezone.utc), is_final=is_final):
            _log.warning("the tool server %s is down: %s", self.name, self.health.reason)
            self._changed()
        self._known.set()

    async def known(self, seconds: float = CONNECT_SECONDS) -> None:
        """Return once it is known how it is, or after that time."""
        with anyio.move_on_after(seconds):
            await self._known.wait()

    async def call(
        self, tool: str, arguments: Json, *, seconds: float = CALL_SECONDS
    ) -> ToolAnswer:
        """What a tool answers.

        Raises:
            ToolsDown: its server is down, or broke off.
            ToolNotFound: it has none of that name.
            InvalidRequest, TooLarge: the arguments are not what it takes.
            TooMany: as many calls wait as may.
            TimedOut: it has not answered in ``seconds``.
        """
        server = self._server
        if server is None or self.health.state != "up":
            raise ToolsDown(f"The tool server {self.name} is down: {self._why()}")
        known = self.health.tools
        if (info := known.get(tool)) is None:
            names = ", ".join(list(known)[:30])
            raise ToolNotFound(
                f"The tool server {self.name} has no tool {tool[:60]!r}.",
                hint=f"It has: {names}." if names else None,
            )
        checking.arguments(info.input_schema, arguments)
        if self._calls >= MAX_CALLS:
            raise TooMany(
                f"{MAX_CALLS} calls of the tool server {self.name} are not answered yet.",
                hint="Wait for one of them.",
                details={"retry_after_seconds": 1},
            )
        self._calls += 1
        try:
            with anyio.fail_after(seconds):
                return await server.call(tool, arguments)
        except TimeoutError as error:
            raise TimedOut(f"{self.name}: {tool} has not answered in {seconds:g} s.") from error
        except ToolsDown:
            self._again.set()
            raise
        finally:
            self._calls -= 1
            self._last_call = time.monotonic()

    def _why(self) -> str:
        return self.health.reason or "it has not answered yet."
