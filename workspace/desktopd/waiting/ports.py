"""Waiting for a program to listen on a TCP port, by looking at the kernel's table now and then.

Nothing tells of it. Nobody is connected to: a server that counts its callers is not confused.
Reading the table takes the kernel milliseconds, however short it is; so that is done in a thread,
once for all who wait, and for a small part of the time at most.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable

from workspace.desktopd.threads import in_thread
from workspace.errors import TimedOut

_POLL_SECONDS = 0.1
_PAUSE_FACTOR = 10  # of what reading took, to the next time
_TABLES = (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6))
_LISTEN = "0A"  # of include/net/tcp_states.h
_MAX_TOLD = 50


class Ports:
    """The ports of one desktop."""

    def __init__(self) -> None:
        self._reading = asyncio.Lock()
        self._began = float("-inf")  # when the table was read last
        self._took = 0.0
        self._there: dict[int, str] = {}

    async def listens(self, port: int, seconds: float) -> str:
        """The address that is listened on, once it is."""
        clock = asyncio.get_running_loop().time
        since = clock()
        deadline = since + seconds
        while True:
            there = await self._table(since)
            if port in there:
                return there[port]
            left = deadline - clock()
            if left <= 0:
                told = ", ".join(str(each) for each in sorted(there)[:_MAX_TOLD])
                raise TimedOut(
                    f"Nothing listened on port {port} within {seconds:g} s.",
                    hint=f"The ports that are listened on: {told or 'none'}.",
                )
            pause = max(_POLL_SECONDS, _PAUSE_FACTOR * self._took)
            await asyncio.sleep(min(left, pause))
            since = clock() - min(left, pause) / 2  # what another has just read will do

    async def _table(self, since: float) -> dict[int, str]:
        """The ports that are listened on, as they were at ``since`` or later."""
        clock = asyncio.get_running_loop().time
        async with self._reading:
            if self._began < since:
                began = clock()
                self._there = await in_thread(listening)
                self._began, self._took = began, clock() - began
            return self._there


def listening() -> dict[int, str]:
    """The ports that are listened on now, with an address of each."""
    found: dict[int, str] = {}
    for path, family in _TABLES:
        try:
            with open(path, encoding="ascii") as file:
                found = parsed(file, family) | found
        except OSError:
            continue  # a machine without IPv6
    return found


def parsed(lines: Iterable[str], family: int) -> dict[int, str]:
    """The ports that a table of proc(5) has as listened on."""
    found: dict[int, str] = {}
    for line in lines:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            # Words of 32 bits in the machine's own order.
            words = [address[n : n + 8] for n in range(0, len(address), 8)]
            packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
            found[int(port, 16)] = socket.inet_ntop(family, packed)
    return found
