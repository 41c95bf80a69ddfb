"""PostgreSQL's word that there are new lines: a connection of its own that listens.

Its end is told by the driver at once; a server that hangs shows by a question now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from controller.store import databases
from controller.store.appending import CHANNEL

ASK_SECONDS = 5.0  # whether it still answers
ANSWER_SECONDS = 3.0
AGAIN_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Listening:
    """A :class:`controller.channel.Channel` by LISTEN; who writes notifies in its transaction."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.trouble: str | None = None

    def told(self) -> None:
        """The database tells everybody, this one too."""

    @asynccontextmanager
    async def run(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, wake)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _run(self, wake: Callable[[], None]) -> None:
        while True:
            try:
                await self._listen(wake)
            except databases.FAILURES as error:
                if self.trouble is None:
                    _log.warning("the database cannot be listened to: %s", error)
            self.trouble = (
                f"The database {databases.shown(self._url)!r} cannot be listened to: "
                "new events are looked for instead."
            )
            wake()  # from now on it is asked
            await anyio.sleep(AGAIN_SECONDS)

    async def _listen(self, wake: Callable[[], None]) -> None:
        """Until the connection ends."""
        connection = await databases.dial(self._url)
        ended = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(CHANNEL, lambda *_: wake())
            if self.trouble is not None:
                _log.warning("the database is listened to again")
            self.trouble = None
            wake()  # what came meanwhile
            while not ended.is_set():
                with anyio.move_on_after(ASK_SECONDS):
                    await ended.wait()
                    return
                await asyncio.wait_for(connection.execute("SELECT 1"), ANSWER_SECONDS)
        finally:
            connection.terminate()
