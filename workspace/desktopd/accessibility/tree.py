"""Accessibility: what the programs of a desktop say is on the screen, and acting on it by that.

It connects to the accessibility bus when it is first asked for something, and stays: from then on
it follows which element has the keyboard, and Chromium (156) may crash when the last that asked it
goes away. On failure: where no
bus answers, reading brings nothing and acting is ``Unavailable``; programs that do not answer are
left out (:mod:`reading`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from workspace.actions import FocusedElement
from workspace.desktopd.accessibility import focus, outline, words
from workspace.desktopd.accessibility.acting import Handle
from workspace.desktopd.accessibility.bus import Refused
from workspace.desktopd.accessibility.focus import Focus, HasWindows
from workspace.desktopd.accessibility.outline import Ids, Wanted
from workspace.desktopd.accessibility.placing import Box
from workspace.desktopd.accessibility.programs import Program, Programs
from workspace.desktopd.accessibility.reading import Budget, Node, Scene, let_go, read
from workspace.desktopd.accessibility.wire import Message
from workspace.elements import Element, ElementTree
from workspace.errors import ElementNotFound, Unavailable, WindowNotFound

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_PAGE_SECONDS = 0.05
_PAGES_SECONDS = 4.0
_RAISE_SECONDS = 1.5
_SCROLL_SECONDS = 2.0
_RAISED_SECONDS = 0.01
_CHANGE_RULES = (
    "type='signal',interface='org.a11y.atspi.Event.Object'",
    "type='signal',interface='org.a11y.atspi.Event.Window'",
)
_CHANGE_EVENTS = (
    "object:children-changed",
    "object:text-changed",
    "object:property-change:accessible-name",
    "object:state-changed:showing",
    "window:create",
)


class Accessibility:
    """The elements of one desktop; end it with :meth:`close`."""

    def __init__(
        self,
        session_bus: str | None,
        size: Callable[[], tuple[int, int]],
        windows: HasWindows,
    ) -> None:
        self._session_bus = session_bus
        self._size = size
        self._windows = windows
        self._ids = Ids()
        self._programs: Programs | None = None
        self._connecting: asyncio.Future[None] | None = None
        self._focus = Focus(self._ids, size, windows)
        self._changed = asyncio.Event()
        self._waiting = 0

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._programs is not None:
            self._programs.close()
            self._programs = None

    async def _connected(self) -> Programs:
        """The programs.

        Raises:
            Unavailable: there is no accessibility bus.
        """
        if self._programs is not None and not self._programs.closed.is_set():
            return self._programs
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(_look_at)  # also if nobody waits any more
        # Who asks may have little time: connecting goes on for the next.
        await asyncio.shield(self._connecting)
        assert self._programs is not None, "it has just been connected"
        return self._programs

    async def _connect(self) -> None:
        if self._session_bus is None:
            raise Unavailable("This desktop has no accessibility.", hint="Use pixels instead.")
        try:
            programs = await Programs.connect(self._session_bus, self._on_signal)
            try:
                await programs.listen(*focus.RULES)
                await programs.want_events(*focus.EVENTS)
            except BaseException:
                programs.close()
                raise
        except Refused as error:
            raise Unavailable(
                "The desktop's accessibility does not answer.",
                hint="Use pixels instead, or try again in a moment.",
            ) from error
        if self._programs is not None:
            self._programs.close()  # its bus has gone, but not the programs' own sockets
        self._programs = programs

    # Reading.

    async def tree(
        self,
        *,
        window: int | None = None,
        max_nodes: int = 3000,
        max_depth: int = 60,
        seconds: float = 1.0,
        everything: bool = False,
    ) -> ElementTree:
        """What can be seen, as a tree; with ``everything`` also what is there for layout only.

        Raises:
            WindowNotFound: there is no such window. Unavailable: there is no accessibility.
        """
        budget = Budget(max_nodes, max_depth, seconds)
        kept = (lambda node: True) if everything else outline.is_told
        async with self._reading(budget, window) as roots:
            return _tree(outline.outlined(roots, self._ids, kept), budget)

    async def find(
        self,
        *,
        role: str | None = None,
        name: str | None = None,
        text: str | None = None,
        window: int | None = None,
        limit: int = 20,
        seconds: float = 1.0,
    ) -> ElementTree:
        """The elements that can be seen and fit, at most ``limit``; none is no error.

        ``role`` is the whole role, ``name`` a part of the name, ``text`` a part of the name or of
        what it holds, in whatever case. They are told without the tree that they are in.
        """
        budget = Budget(seconds=seconds)
        wanted = Wanted(role, name, text)
        async with self._reading(budget, window) as roots:
            return self._first(outline.matching(roots, wanted, limit + 1), limit, budget)

    async def actionable(self, window: int | None, limit: int) -> ElementTree:
        """What can be seen and acted on, at most ``limit``; all of it has a box."""
        budget = Budget()
        async with self._reading(budget, window) as roots:
            seen = (node for root in roots for node in root.all() if outline.is_in_reach(node))
            return self._first(seen, limit, budget)

    def _first(self, nodes: Iterable[Node], limit: int, budget: Budget) -> ElementTree:
        found = list(itertools.islice(nodes, limit + 1))
        if len(found) > limit:
            budget.cut.add("limit")
        return _tree([outline.element(node, self._ids) for node in found[:limit]], budget)

    async def texts(self, *, seconds: float = 1.0) -> list[str]:
        """All names and texts that can be seen, in order, each once."""
        async with self._reading(Budget(seconds=seconds)) as roots:
            nodes = (node for root in roots for node in root.all())
            said = (each for node in nodes for each in (node.name, node.text))
            return list(dict.fromkeys(each for each in said if each))

    async def wait_for_text(self, text: str, seconds: float) -> bool:
        """Whether ``text`` is, or within that time comes to be, among the names and texts seen.

        In whatever case, within one name or text. It reads again when a program says that
        something changed, and every 0.25 s for those that do not say so.
        """
        deadline = time.monotonic() + seconds
        wanted = Wanted(text=text)
        async with self._hearing_of_changes():
            while True:
                self._changed.clear()
                left = deadline - time.monotonic()
                async with self._reading(Budget(seconds=max(0.2, min(1.0, left)))) as roots:
                    if any(wanted.fits(node) for root in roots for node in root.all()):
                        return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                try:
                    await asyncio.wait_for(self._changed.wait(), min(_POLL_SECONDS, left))
                except asyncio.TimeoutError:
                    continue
                await asyncio.sleep(min(0.03, left))  # changes come in heaps

    @asynccontextmanager
    async def _hearing_of_changes(self) -> AsyncIterator[None]:
        programs = await self._connected()
        self._waiting += 1
        try:
            if self._waiting == 1:
                await _unless_refused(programs, wanted=True)
            yield
        finally:
            self._waiting -= 1
            if self._waiting == 0 and not programs.closed.is_set():
                await asyncio.shield(_unless_refused(programs, wanted=False))

    @asynccontextmanager
    async def _reading(
        self, budget: Budget, window: int | None = None
    ) -> AsyncIterator[list[Node]]:
        roots = await self._read(budget, window)
        try:
            yield roots
        finally:
            let_go(roots)

    async def _read(self, budget: Budget, window: int | None) -> list[Node]:
        windows = self._windows.listed()
        if window is not None and window not in {each.id for each in windows}:
            raise WindowNotFound(f"There is no window {window}.")
        scene = Scene(Box(0, 0, *self._size()), windows, window)
        programs = await self._connected()
        try:
            there = await programs.listed()
        except Refused as error:
            raise Unavailable("The desktop's accessibility does not answer.") from error
        await asyncio.gather(*(each.wake() for each in there))
        while True:
            trial = Budget(budget.max_nodes, budget.max_depth, max(0.05, budget.left))
            roots = await read(there, scene, trial)
            budget.nodes, budget.cut = trial.nodes, trial.cut
            # What a budget has cut off may have been the page.
            is_awaited = _await_pages(there, roots) and not trial.cut
            if not is_awaited:
                return roots
            if budget.left < 2 * _PAGE_SECONDS:
                budget.cut.add("seconds")
                return roots
            let_go(roots)
            await asyncio.sleep(_PAGE_SECONDS)

    # The element with the keyboard.

    def _on_signal(self, message: Message) -> None:
        self._focus.follow(message)
        self._changed.set()

    async def focused(self) -> FocusedElement | None:
        """The element with the keyboard; None if no program says that it has it.

        It is known from the programs' events, so that asking takes a few calls to one program.
        """
        try:
            return await self._focus.element(await self._connected())
        except (Unavailable, Refused):
            return None

    # Acting.

    async def handle(self, element: str) -> Handle:
        """An element to act on.

        Raises:
            ElementNotFound: no element has that id, or its program has ended.
        """
        known = self._ids.get(element)
        if known is None:
            raise ElementNotFound(f"There is no element {element}.")
        programs = await self._connected()
        program = programs.get(known.ref.program)
        if program is None or program.bus.closed.is_set():
            raise ElementNotFound(f"The program of the element {element} has ended.")
        return Handle(element, program, known.ref.path, known.shift)

    async def point(self, element: str) -> tuple[int, int]:
        """Where to click an element: the middle of what can be seen of it.

        It is scrolled into view and its window raised, where that is needed and can be done.

        Raises:
            ElementNotFound: it is gone, or nowhere on the screen.
        """
        handle = await self.handle(element)
        screen = Box(0, 0, *self._size())
        await self.raise_window(element)
        deadline, is_asked = time.monotonic() + _SCROLL_SECONDS, False
        while True:
            _, states, box = await handle.look()
            visible = None if box is None else box.within(screen)
            if visible is not None and states & words.SHOWING:
                return visible.centre
            if time.monotonic() > deadline:
                break
            if not is_asked:
                await handle.scroll_into_view()
                is_asked = True
            await asyncio.sleep(_RAISED_SECONDS)
        raise ElementNotFound(
            f"The element {element} is not on the screen.",
            hint="Open or scroll to what it is in, then ask for the elements again.",
        )

    async def raise_window(self, element: str) -> None:
        """Have its window on top, as far as it has one and that is done in time."""
        known = self._ids.get(element)
        if known is None or known.window is None:
            return
        deadline = time.monotonic() + _RAISE_SECONDS
        is_asked = False
        while time.monotonic() < deadline:
            there = {each.id: each for each in self._windows.listed()}
            window = there.get(known.window)
            if window is None or window.kind in ("panel", "desktop"):
                return
            above = (each for each in there.values() if each.layer > window.layer)
            if window.is_focused or (
                is_asked and not any(each.kind in ("normal", "dialog") for each in above)
            ):
                return
            if not is_asked:
                self._windows.focus(window.id)
                is_asked = True
            await asyncio.sleep(_RAISED_SECONDS)


def _look_at(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()


def _await_pages(programs: Sequence[Program], roots: Sequence[Node]) -> bool:
    """Whether to read again, because a browser does not tell its page yet: not for ever."""
    now = time.monotonic()
    is_awaited = False
    for program in programs:
        # One that is hidden altogether has nothing in it.
        shown = (each for each in roots if each.window is not None and each.children)
        own = [each for each in shown if each.ref.program == program.root.program]
        lacks = any(not any(_is_page(node) for node in root.all()) for root in own)
        if not program.is_chromium or not lacks:
            program.lacks_page_since = None
            continue
        program.lacks_page_since = program.lacks_page_since or now
        is_awaited |= now - program.lacks_page_since < _PAGES_SECONDS
    return is_awaited


def _is_page(node: Node) -> bool:
    return node.role == "document web" and bool(node.children)


def _tree(elements: list[Element], budget: Budget) -> ElementTree:
    return ElementTree.model_construct(
        elements=elements,
        truncated=sorted(budget.cut),
        nodes=budget.nodes,
        elapsed_ms=budget.elapsed_ms,
    )


async def _unless_refused(programs: Programs, *, wanted: bool) -> None:
    try:
        if wanted:
            await programs.listen(*_CHANGE_RULES)
            await programs.want_events(*_CHANGE_EVENTS)
        else:
            await programs.want_events(*_CHANGE_EVENTS, wanted=False)
            await programs.deafen(*_CHANGE_RULES)
    except Refused as error:
        logger.info("Programs cannot be asked for events: %s.", error)
