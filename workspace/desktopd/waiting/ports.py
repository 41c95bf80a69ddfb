"""Waiting for a program to listen on a TCP port, by looking at the kernel's table now and then.

Nothing tells of it. Nobody is connected to: a server that counts its callers is not confused.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable

from workspace.errors import TimedOut

_POLL_SECONDS = 0.05
_TABLES = (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6))
_LISTEN = "0A"  # of include/net/tcp_states.h
_MAX_TOLD = 50


async def listens(port: int, seconds: float) -> str:
    """The address that is listened on, once it is."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while True:
        there = listening()
        if port in there:
            return there[port]
        left = deadline - clock()
        if left <= 0:
            told = ", ".join(str(each) for each in sorted(there)[:_MAX_TOLD])
            raise TimedOut(
                f"Nothing listened on port {port} within {seconds:g} s.",
                hint=f"The ports that are listened on: {told or 'none'}.",
            )
        await asyncio.sleep(min(left, _POLL_SECONDS))


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
