"""The log live: one tail for a controller, which all who follow the log read by.

The newest lines are held here; the database is asked for more when the channel (``channel``) says
that there are some, once for all readers. Each reader has nothing but a position: what it has not
read yet lies here, and if it falls behind that, in the database, from where it goes on by itself.
So a slow reader costs no memory and holds nobody up; who sends to it cuts it off when it does not
read at all. Ids become visible in their order (``store.appending``): a reader gets each line once,
and misses none between history and now.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

import anyio

from controller.channel import Channel
from controller.store import Seen, Store
from workspace.errors import CarrelError, Unavailable
from workspace.models import Event

MOST_HELD = 2000  # lines
MOST_HELD_BYTES = 4 << 20
MOST_READERS = 1000
PAGE = 500
HEARTBEAT_SECONDS = 15.0
ASK_SECONDS = 2.0  # though the channel says nothing: it only wakes, and may lose a word
ASK_WITHOUT_SECONDS = 0.25  # while the channel does not work
_log = logging.getLogger(__name__)


class Told(NamedTuple):
    """A line of the log, and its JSON, which is made once for all readers."""

    id: int
    text: str
    event: Event
    tenant: str | None = None  # whose workspace it is of, where that was looked up


class Tail:
    """The newest lines of one store; ``run`` it as long as somebody may follow."""

    def __init__(self, store: Store, channel: Channel) -> None:
        self._store = store
        self._channel = channel
        self._held: deque[Told] = deque()
        self._held_bytes = 0
        self._from = 0  # later ones are held
        self._last: int | None = None  # the newest one known; None while nobody reads
        self._readers = 0
        self._woken = anyio.Event()
        self._news = anyio.Event()
        self._beginning = anyio.Lock()

    @property
    def trouble(self) -> str | None:
        """What makes readers wait longer than they should; None: nothing."""
        return self._channel.trouble

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Read what is new as long as the block runs."""
        async with self._channel.run(self.wake), anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    def wake(self) -> None:
        """There may be new lines."""
        self._woken.set()

    @asynccontextmanager
    async def follow(
        self, seen: Seen, after: int | None
    ) -> AsyncIterator[AsyncIterator[Sequence[Told]]]:
        """The lines after that id, or from now on, some at a time; none of them: a heartbeat.

        From when the block begins, "now" is over: what is written then comes.

        Raises:
            Unavailable: too many follow, or the database does not answer.
        """
        if self._readers >= MOST_READERS:
            raise Unavailable("Too many follow the log here.", hint="Try another controller.")
        self._readers += 1
        try:
            newest = await self._begin()
            async with aclosing(self._groups(seen, newest if after is None else after)) as groups:
                yield groups
        finally:
            self._readers -= 1
            if not self._readers:
                self._forget()

    async def _groups(self, seen: Seen, position: int) -> AsyncGenerator[Sequence[Told], None]:
        while True:
            known, news = await self._begin(), self._news
            if position < self._from:
                page = await self._store.events(seen, after=position, limit=PAGE)
                position = page[-1].id if page else position
                if len(page) < PAGE:  # those that were known then were there to be found
                    position = max(position, known)
                if page:
                    yield [_told(event) for event in page]
                continue
            found = self._after(position)
            position = max(position, known)
            if wanted := [told for told in found if seen.has(told.event, told.tenant)]:
                yield wanted
            elif not found:
                with anyio.move_on_after(HEARTBEAT_SECONDS) as waiting:
                    await news.wait()
                if waiting.cancelled_caught:
                    yield []

    async def _begin(self) -> int:
        """The newest line known; all that come after it will be held here."""
        if self._last is None:
            async with self._beginning:
                if self._last is None:
                    self._last = self._from = await self._store.last_event()
                    self._woken.set()
        return self._last

    def _forget(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        self._last = None

    def _after(self, position: int) -> list[Told]:
        found = []
        for told in reversed(self._held):
            if told.id <= position:
                break
            found.append(told)
        return found[::-1]

    async def _run(self) -> None:
        while True:
            is_well = self._channel.trouble is None
            with anyio.move_on_after(ASK_SECONDS if is_well else ASK_WITHOUT_SECONDS):
                await self._woken.wait()
            self._woken = anyio.Event()
            try:
                while self._last is not None and await self._read_on(self._last):
                    pass
            except CarrelError as error:
                _log.warning("new events cannot be read: %s", error.message)
                await anyio.sleep(ASK_WITHOUT_SECONDS)
            except Exception:  # the next round comes, whatever this one ran into
                _log.exception("new events cannot be read")
                await anyio.sleep(ASK_SECONDS)

    async def _read_on(self, last: int) -> bool:
        """Read a page of what is new; whether there may be more."""
        page = await self._store.events(after=last, limit=PAGE)
        if not page or self._last != last:  # or the last reader went away meanwhile
            return False
        of = {each.workspace_id for each in page if each.workspace_id is not None}
        whose = await self._store.tenants_of(of)
        if self._last != last:
            return False
        for event in page:
            told = _told(event, whose.get(event.workspace_id or ""))
            self._held.append(told)
            self._held_bytes += len(told.text)
        self._last = page[-1].id
        while len(self._held) > MOST_HELD or self._held_bytes > MOST_HELD_BYTES:
            dropped = self._held.popleft()
            self._held_bytes -= len(dropped.text)
            self._from = dropped.id
        self._news.set()
        self._news = anyio.Event()
        return len(page) == PAGE


def _told(event: Event, tenant: str | None = None) -> Told:
    return Told(event.id, event.model_dump_json(), event, tenant)
