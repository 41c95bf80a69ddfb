"""A person at a desktop, as far as the daemon sees one: a VNC client that moves and types."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection

from tests.workspace.desktopd.conftest import Daemon
from workspace.desktop import Desktop

SHIFT = 0xFFE1


class Person:
    """One connection that is open."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def greet(self) -> None:
        await self._socket.recv()
        await self._socket.send(b"RFB 003.008\n")
        await self._socket.recv()
        await self._socket.send(b"\x01")
        await self._socket.recv()
        await self._socket.send(b"\x01")
        await self._socket.recv()

    async def point(self, x: int, y: int, buttons: int = 0) -> None:
        await self._socket.send(struct.pack(">BBHH", 5, buttons, x, y))

    async def key(self, keysym: int, *, down: bool) -> None:
        await self._socket.send(struct.pack(">BBHI", 4, down, 0, keysym))

    async def type(self, text: str) -> None:
        for character in text:
            keysym = 0xFF0D if character == "\n" else ord(character)
            await self.key(keysym, down=True)
            await self.key(keysym, down=False)

    async def heard(self) -> None:
        """Return once the server has dealt with all that passed: it answers in order."""
        await self._socket.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 4, 4))
        while (await self._socket.recv())[0] != 0:
            pass


@asynccontextmanager
async def at(daemon: Daemon, desktop: Desktop, name: str) -> AsyncIterator[Person]:
    """A person with control, who hands it back by leaving, unless it is gone by then."""
    taken = await desktop.take_control(holder=name)
    async with connected(daemon, name, taken.grant) as person:
        yield person


@asynccontextmanager
async def connected(daemon: Daemon, name: str, grant: str | None) -> AsyncIterator[Person]:
    async with daemon.web_socket(f"/vnc?role=control&holder={name}&grant={grant}") as socket:
        person = Person(socket)
        await person.greet()
        yield person
