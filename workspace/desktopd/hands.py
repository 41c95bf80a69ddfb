"""Whose hands are on mouse and keyboard: :class:`Control`, with what its changes bring about.

The agent's action that goes on when a person takes control is broken off, and what it holds let go,
before the person is told that they have it. When a person's control goes, what their connections
still held is released, and the agent's next action begins only when the X server has taken that:
so there are never two who act, and nothing of the one stays pressed for the other.

On failure (an X server or a connection that does not take what is released) the other may begin
after :data:`SETTLE_SECONDS` all the same: nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from workspace.control import Control as Told
from workspace.control import Park, Returned, Take
from workspace.desktopd.control import Control
from workspace.desktopd.deeds import Deeds, Run
from workspace.errors import CarrelError

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
_FOCUS_SECONDS = 0.3
_JUDGE_SECONDS = 0.25


class Held(Protocol):
    """A screen, as far as it is needed here."""

    def release_held(self) -> None: ...
    async def until_released(self, seconds: float) -> None: ...
    async def focused_role(self) -> str | None: ...


class Connection(Protocol):
    """A person's connection."""

    grant: str

    async def release(self) -> None:
        """Let go what it holds; returns when that has been sent."""
        ...


class Hands:
    """One desktop's. ``screen`` is set as long as there is one."""

    def __init__(self, control: Control | None = None) -> None:
        self.control = control or Control()
        self.screen: Held | None = None
        self._connections: set[Connection] = set()
        self._acting: set[asyncio.Task[Any]] = set()  # Any: whatever each brings
        self._broken: set[asyncio.Task[Any]] = set()  # off
        self._is_closed = False
        self._let_go = asyncio.Event()
        self._clean = asyncio.Event()
        self._clean.set()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._judging: dict[int, asyncio.Task[None]] = {}

    def close(self) -> None:
        """The desktop ends; who waits for something is answered."""
        self._is_closed = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    # The agent's.

    async def agents_turn(self) -> None:
        """Return once the agent may act: at once, if nobody has had control just before.

        Raises:
            HumanInControl: it may not.
        """
        self.control.check()
        if not self._clean.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._clean.wait(), SETTLE_SECONDS)
            self.control.check()

    @contextmanager
    def acting(self) -> Iterator[None]:
        """The agent moves, presses or types in the block; broken off when a person takes over.

        Raises:
            HumanInControl: it may not, or not any more.
        """
        self.control.check()
        task = asyncio.current_task()
        assert task is not None
        self._acting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._broken:
                raise
            if sys.version_info >= (3, 11):
                task.uncancel()
            raise self._broken_off() from None
        finally:
            self._acting.discard(task)
            self._broken.discard(task)
            if not self._broken:
                self._let_go.set()

    def _broken_off(self) -> CarrelError:
        error = self.control.refusal()
        error.message += " The action that went on was broken off: a part of it may be done."
        error.hint = "Look at the desktop before you go on, once you have control again."
        return error

    async def _stop_agent(self) -> None:
        """Break off what the agent does, and let go what it holds."""
        if self._acting:
            self._let_go.clear()
            for task in self._acting - self._broken:
                self._broken.add(task)
                task.cancel()
            try:
                await asyncio.wait_for(self._let_go.wait(), SETTLE_SECONDS)
            except asyncio.TimeoutError:
                logger.warning("The agent's action does not end though a person took control.")
        with suppress(CarrelError):  # an X server that has gone holds nothing
            if self.screen is not None:
                self.screen.release_held()

    # People's.

    async def take(self, wanted: Take) -> Told:
        """Give control to a person; returns when they are the only one.

        Raises:
            ControlTaken: another person has it.
        """
        with self._changing():
            self.control.take(wanted)
        grant = self.control.told().grant
        await self._stop_agent()
        with suppress(asyncio.TimeoutError):  # another person's before
            await asyncio.wait_for(self._clean.wait(), SETTLE_SECONDS)
        self.control.admit(wanted.holder, grant)  # somebody may have taken it meanwhile
        return self.control.told()

    async def hand_back(self, holder: str, *, force: bool = False) -> Returned | None:
        """End a person's control; returns when nothing of theirs is pressed any more.

        Raises:
            ControlTaken: it is another person's.
        """
        with self._changing():
            returned = self.control.hand_back(holder, force=force)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._clean.wait(), SETTLE_SECONDS)
        if returned is None:
            return None
        await self._judged()
        return self.control.told().returned

    async def park(self, wanted: Park) -> Told:
        """Have the agent wait for a person; what it does is broken off.

        Raises:
            Conflict: it waits for one already.
        """
        with self._changing():
            self.control.park(wanted)
        await self._stop_agent()
        return self.control.told()

    def unpark(self, ticket: str) -> None:
        """That request is answered."""
        with self._changing():
            self.control.unpark(ticket)

    async def told(self, *, after: str | None = None, seconds: float = 0) -> Told:
        """How things are, once the taking ``after`` is over, or after that time."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            told = self.control.told()
            left = deadline - asyncio.get_running_loop().time()
            if after is None or told.taking != after or left <= 0 or self._is_closed:
                break
            self._changed.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        await self._judged()
        return self.control.told()

    async def collect(self, taking: str) -> Returned | None:
        """What an ended taking brought, once."""
        await self._judged()
        return self.control.collect(taking)

    # Their connections.

    def opened(self, connection: Connection) -> None:
        """A person's connection begins, with the grant of the taking that goes on."""
        self._connections.add(connection)
        with self._changing():
            self.control.opened(connection.grant)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        with self._changing():
            self.control.closed(connection.grant)

    def key(self, keysym: int, is_down: bool) -> None:
        """The holder pressed or released a key."""
        deeds = self.control.used()
        if deeds is not None:
            deeds.key(keysym, is_down)
            self._judge(deeds)

    def pointer(self, buttons: int, x: int, y: int) -> None:
        """The holder moved the pointer, or pressed or released a button."""
        deeds = self.control.used()
        if deeds is not None:
            deeds.pointer(buttons, x, y)
            self._judge(deeds)

    # What follows.

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let follow what a change, or time that is over, brings about."""
        try:
            yield
        finally:
            gone = [each for each in self._connections if not self.control.holds(each.grant)]
            for connection in gone:
                self._connections.discard(connection)
            if gone:
                self._clean.clear()
                self._start(self._release(gone))
            self._changed.set()
            self._wait_for_time()

    async def _release(self, gone: list[Connection]) -> None:
        try:
            await asyncio.wait(
                [asyncio.ensure_future(each.release()) for each in gone], timeout=SETTLE_SECONDS
            )
            if self.screen is not None:
                await self.screen.until_released(SETTLE_SECONDS)
        except CarrelError as error:
            logger.info("%s", error)  # with the X server all that was pressed is gone
        finally:
            self._clean.set()

    def _wait_for_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.control.due_seconds()
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(due + 0.001, self._on_time)

    def _on_time(self) -> None:
        with self._changing():
            self.control.expire()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:  # Any: asyncio's own
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # May what was typed be told?

    def _judge(self, deeds: Deeds) -> None:
        if id(deeds) in self._judging or deeds.unjudged() is None:
            return
        task = self._judging[id(deeds)] = self._start(self._judge_runs(deeds))
        task.add_done_callback(lambda _: self._judging.pop(id(deeds), None))

    async def _judge_runs(self, deeds: Deeds) -> None:
        seen: tuple[Run, int, bool] | None = None
        while (run := deeds.unjudged()) is not None:
            now = (run, len(run.text), run.is_closed)
            if now == seen:  # nothing has come since: the next key begins this anew
                return
            seen = now
            run.judge(await self._role(), was_closed=now[2])
            if not run.is_closed:
                await asyncio.sleep(_JUDGE_SECONDS)

    async def _role(self) -> str | None:
        screen = self.screen
        if screen is None:
            return None
        try:
            return await asyncio.wait_for(screen.focused_role(), _FOCUS_SECONDS)
        except (CarrelError, asyncio.TimeoutError):
            return None
        except Exception:  # what programs say of themselves ends nothing
            logger.exception("What has the keyboard could not be asked.")
            return None

    async def _judged(self) -> None:
        """Return once what was typed has been judged, as far as that is soon."""
        for deeds in self.control.ended_deeds():
            self._judge(deeds)
        tasks = list(self._judging.values())
        if tasks:
            await asyncio.wait(tasks, timeout=2 * _FOCUS_SECONDS)
