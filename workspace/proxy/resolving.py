"""From a permitted name to the addresses that may be connected to.

A name of which any address may not be reached is refused whole: that is what a rebinding looks
like. The answer is kept for some seconds; what is connected to is always what was looked at.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from workspace.egress import address_of
from workspace.proxy.addresses import Network, why_refused

RESOLVE_SECONDS = 10.0
KEEP_SECONDS = 5.0
MAX_KEPT = 256
MAX_ADDRESSES = 16
_THREADS = 4  # of a resolver that hangs, so many; others wait their RESOLVE_SECONDS

Resolve = Callable[[str], Awaitable[Sequence[str]]]


class Refused(Exception):
    """A request that the rules do not permit: why, for people to read."""


class Failed(Exception):
    """A permitted request that came to nothing: why."""


class Resolver:
    """One desktop's. ``resolve`` is given by tests."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._resolve = resolve or self._system
        self._pool: ThreadPoolExecutor | None = None
        self._kept: dict[str, tuple[float, Sequence[str]]] = {}

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def addresses(self, host: str, private: Sequence[Network]) -> Sequence[str]:
        """Where a host in its normal form is.

        Raises:
            Refused: one of its addresses may not be reached.
            Failed: it has none.
        """
        literal = address_of(host)
        found = [host] if literal is not None else await self._look_up(host)
        for text in found:
            address = address_of(text)
            why = "no address" if address is None else why_refused(address, private)
            if why is not None:
                what = host if literal is not None else f"{host} stands for {text}, which"
                raise Refused(f"{what} is {why}")
        return found

    async def _look_up(self, host: str) -> Sequence[str]:
        at, known = self._kept.get(host, (0.0, ()))
        if known and time.monotonic() - at < KEEP_SECONDS:
            return known
        try:
            found = await asyncio.wait_for(self._resolve(host), RESOLVE_SECONDS)
        except asyncio.TimeoutError:
            raise Failed(f"{host} could not be looked up in {RESOLVE_SECONDS:.0f} s") from None
        except OSError as error:
            raise Failed(f"{host} could not be looked up: {error.strerror or error}") from error
        unique = list(dict.fromkeys(found))[:MAX_ADDRESSES]
        if not unique:
            raise Failed(f"{host} has no address")
        while len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[host] = time.monotonic(), unique
        return unique

    async def _system(self, host: str) -> Sequence[str]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolve")
        found = await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
        return [str(each[4][0]) for each in found]
