"""Which element has the keyboard, by what programs say when it moves.

An event brings the element, so that asking costs a few calls to one program. Where no event came
(a program was there before us), the window with the keyboard is searched, once in a while. Never
fails: what is not known is None.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from workspace.actions import FocusedElement
from workspace.desktopd.accessibility import words
from workspace.desktopd.accessibility.acting import Handle
from workspace.desktopd.accessibility.outline import Ids
from workspace.desktopd.accessibility.placing import Box
from workspace.desktopd.accessibility.programs import Programs, Ref, as_ref
from workspace.desktopd.accessibility.reading import Budget, Node, Scene, let_go, read
from workspace.desktopd.accessibility.wire import Malformed, Message
from workspace.errors import ElementNotFound, TimedOut
from workspace.models import Window

logger = logging.getLogger(__name__)

_OBJECT = "type='signal',interface='org.a11y.atspi.Event.Object'"
RULES = (
    f"{_OBJECT},member='StateChanged',arg0='focused'",
    f"{_OBJECT},member='ActiveDescendantChanged'",
)
EVENTS = ("object:state-changed:focused", "object:active-descendant-changed")
_SECONDS = 0.5  # for a search
_EVERY_SECONDS = 1.0  # at most


class HasWindows(Protocol):
    """What is known of the X windows."""

    def listed(self) -> list[Window]: ...
    def focus(self, window: int) -> None: ...


class Focus:
    """Follows the keyboard from element to element."""

    def __init__(self, ids: Ids, size: Callable[[], tuple[int, int]], windows: HasWindows) -> None:
        self._ids = ids
        self._size = size
        self._windows = windows
        self._at: Ref | None = None
        self._moves = 0
        self._searching: asyncio.Future[None] | None = None
        self._searched_at = 0.0

    def follow(self, message: Message) -> None:
        """Take note of an event, of whatever kind."""
        try:
            if message.member == "ActiveDescendantChanged":  # a cell or a row of the element
                inner = as_ref(message.values()[3])
                if inner is not None and inner.program == message.sender:
                    self._at = inner
            elif message.member == "StateChanged":
                self._follow_state(message)
        except (Malformed, IndexError, ValueError):
            logger.info("A program sent an event that cannot be read.")

    def _follow_state(self, message: Message) -> None:
        self._moves += 1
        state, is_set = message.values()[:2]
        at = as_ref((message.sender, message.path))
        if state == "focused" and is_set == 1:
            self._at = at
        elif state == "focused" and at == self._at:
            self._at = None

    async def element(self, programs: Programs) -> FocusedElement | None:
        """The element that has it as this is asked, which may be beside an action that moves it.

        Raises Refused if the registry does not answer.
        """
        moves = self._moves
        found = await self._read(programs)
        if found is not None or self._moves != moves:
            return found
        if time.monotonic() - self._searched_at > _EVERY_SECONDS:
            self._searched_at = time.monotonic()
            self._searching = asyncio.ensure_future(self._search(programs))
            self._searching.add_done_callback(_look_at)
            await asyncio.shield(self._searching)  # it goes on for the next who asks
        return await self._read(programs) if self._moves == moves else None

    async def _read(self, programs: Programs) -> FocusedElement | None:
        ref = self._at
        if ref is None:
            return None
        program = programs.get(ref.program)
        if program is None:
            await programs.listed()
            program = programs.get(ref.program)
        window = self._active()
        if program is None or (window and window.pid and window.pid != program.pid):
            return None
        handle = Handle(self._ids.of(ref), program, ref.path)
        try:
            await program.wake()
            role, states, _ = await handle.look()
            if not states & words.FOCUSED:
                return None
            name, text = await handle.said()
        except (ElementNotFound, TimedOut):
            return None
        return FocusedElement(id=handle.id, role=role, name=name, text=text)

    def _active(self) -> Window | None:
        return next((each for each in self._windows.listed() if each.is_focused), None)

    async def _search(self, programs: Programs) -> None:
        window = self._active()
        if window is None:
            return
        scene = Scene(Box(0, 0, *self._size()), [window], window.id)
        roots = await read(await programs.listed(), scene, Budget(seconds=_SECONDS))
        held = [node for root in roots for node in root.all() if node.states & words.FOCUSED]
        # Qt says so of what is around it and in it, too.
        best = max(held, key=_takes_keys, default=None)
        if best is not None:
            self._at = best.ref
        let_go(roots)


def _takes_keys(node: Node) -> tuple[bool, bool, int]:
    return bool(node.states & words.EDITABLE), bool(node.states & words.FOCUSABLE), node.depth


def _look_at(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()
