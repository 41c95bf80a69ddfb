"""What tells the controllers that there are new lines in the log.

It only wakes: what there is to read is read from the database. While a channel does not work it
says so (``trouble``), and who follows the log asks the database instead, until it works again.
In one process the writer wakes the reader; controllers that share a PostgreSQL hear of each other
there (``store.listening``), or by a stream of Redis, if the settings name one (DragonflyDB speaks
the same). A writer never waits for any of it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from workspace.errors import Unavailable

KEY = "carrel:events"
MOST_KEPT = 100  # of the stream: each entry says no more than that there is something
BLOCK_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0
AGAIN_SECONDS = 0.5
Wake = Callable[[], None]
_log = logging.getLogger(__name__)


class Channel(Protocol):
    """One controller's end of it."""

    @property
    def trouble(self) -> str | None:
        """Why it does not work; None while it does."""

    def run(self, wake: Wake) -> AbstractAsyncContextManager[None]:
        """Call ``wake`` when there may be new lines, as long as the block runs."""

    def told(self) -> None:
        """This controller has written some."""


class Here:
    """In one process."""

    trouble: str | None = None

    def __init__(self) -> None:
        self._wake: Wake = lambda: None

    @asynccontextmanager
    async def run(self, wake: Wake) -> AsyncIterator[None]:
        self._wake = wake
        yield

    def told(self) -> None:
        self._wake()


class RedisStream:
    """By a stream of Redis: each controller adds to it when it has written, and reads all of it."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            Unavailable: it is no URL of a Redis.
        """
        self._shown = urlsplit(url).netloc.rpartition("@")[2] or urlsplit(url).path
        try:
            self._redis = Redis.from_url(
                url,
                decode_responses=True,
                protocol=2,
                socket_connect_timeout=TIMEOUT_SECONDS,
                socket_timeout=TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),  # this module does that, and tells of it
            )
        except ValueError as error:
            raise Unavailable(
                f"The Redis that CARREL_REDIS_URL names cannot be used: {error}",
                hint="Give redis://host:6379, rediss:// for TLS, or unix:///path.",
            ) from error
        self._troubles: dict[str, str] = {}
        self._written = anyio.Event()
        self._wake: Wake = lambda: None

    @property
    def trouble(self) -> str | None:
        return next(iter(self._troubles.values()), None)

    def told(self) -> None:
        self._written.set()

    @asynccontextmanager
    async def run(self, wake: Wake) -> AsyncIterator[None]:
        self._wake = wake
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._always, "write", self._write)
            tasks.start_soon(self._always, "read", self._read)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with anyio.move_on_after(TIMEOUT_SECONDS, shield=True):
                    await self._redis.aclose()

    async def _always(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except (RedisError, OSError) as error:
                if what not in self._troubles:
                    _log.warning("Redis cannot be used (%s): %s", what, error)
                self._troubles[what] = (
                    f"Redis {self._shown!r} does not answer: new events are looked for instead."
                )
                self._wake()  # from now on it is the database that is asked
                await anyio.sleep(AGAIN_SECONDS)

    def _well(self, what: str) -> None:
        if self._troubles.pop(what, None) is not None:
            _log.warning("Redis can be used again (%s)", what)

    async def _write(self) -> None:
        await self._redis.ping()
        self._well("write")
        while True:
            await self._written.wait()
            self._written = anyio.Event()
            try:  # many lines are one word
                await self._redis.xadd(KEY, {"new": "1"}, maxlen=MOST_KEPT, approximate=True)
            except BaseException:
                self._written.set()
                raise

    async def _read(self) -> None:
        last = await self._newest()
        self._well("read")
        self._wake()  # what came meanwhile
        while True:
            asked = self._redis.xread({KEY: last}, block=int(BLOCK_SECONDS * 1000), count=100)
            found: Any = await asked  # Any: its declared type is of every protocol at once
            for _, entries in found or ():
                last = entries[-1][0]
                self._wake()

    async def _newest(self) -> str:
        """The id of the newest entry: what comes after it is new."""
        found = await self._redis.xrevrange(KEY, count=1)
        return str(found[0][0]) if found else "0-0"
