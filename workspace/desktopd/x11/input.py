"""Pointer and keys, played by XTEST, and what of them is held down.

Every burst of input ends with a round trip, so that when a method returns the server has taken
all of it. Modifiers and buttons that an act presses are released in ``finally``; what is pressed
to stay (``mouse_down``, ``key_down``) is remembered, for :meth:`Input.release_held`.

On failure nothing that the act itself pressed stays down, also when it is cancelled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from typing import Literal

from workspace.actions import Button
from workspace.desktopd.x11 import keys
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.keymap import Keymap, Stroke
from workspace.desktopd.x11.manager import Manager

BUTTONS: Mapping[Button, int] = {"left": 1, "middle": 2, "right": 3, "back": 8, "forward": 9}
# Between the clicks of a double click: Chromium takes two of the same millisecond for one.
_CLICK_SECONDS = 0.012
# Programs (Chromium) that find the modifier up again when they come to the click take it as plain.
_MODIFIER_SECONDS = 0.03
# Toolkits begin a drag once the pointer has moved some pixels with the button down, and talk to
# the window under it before they accept a drop: that takes them a few turns of their loops.
_DRAG_DWELL_SECONDS = 0.06
_DRAG_STEP_PIXELS = 8.0
_DRAG_PACE_SECONDS = 0.008
_DRAG_MAX_SECONDS = 1.5
# Programs are told once per frame where the pointer is: to see a corner they need a frame or two.
_DRAG_CORNER_SECONDS = 0.034
# Notches and repeats are sent in bursts of this many, the loop being let run in between.
_BURST = 20

# The core protocol's event numbers, which XTEST takes.
_EVENTS = {("key", True): 2, ("key", False): 3, ("button", True): 4, ("button", False): 5}
_MOTION = 6
_BUTTONS_MASK = 0x1F00

Held = tuple[Literal["key", "button"], int]
Point = tuple[int, int]


def interpolate(path: Sequence[Point], step: float = _DRAG_STEP_PIXELS) -> list[Point]:
    """The points to move through after the first of the path, no more than ``step`` apart."""
    points: list[Point] = []
    for (x0, y0), (x1, y1) in pairwise(path):
        count = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / step))
        points += [
            (round(x0 + (x1 - x0) * n / count), round(y0 + (y1 - y0) * n / count))
            for n in range(1, count + 1)
        ]
    return points


class Input:
    """The pointer and the keyboard of one display."""

    def __init__(self, display: Display, keymap: Keymap) -> None:
        self._display = display
        self._keymap = keymap
        self._manager = Manager(display)
        self._has_clicked = True
        self._held: dict[Held, None] = {}  # in the order they were pressed

    # What is held.

    @property
    def held(self) -> frozenset[Held]:
        return frozenset(self._held)

    def release_held(self, *, but: frozenset[Held] = frozenset()) -> None:
        """Release all that is held, the last pressed first, except ``but``."""
        release = [held for held in reversed(self._held) if held not in but]
        for kind, code in release:
            self._put(kind, code, down=False)
        if release:
            self._display.sync()

    def _put(self, kind: Literal["key", "button"], code: int, *, down: bool) -> None:
        self._display.xtest.FakeInput(_EVENTS[kind, down], code, 0, 0, 0, 0, 0)
        if down:
            self._held[kind, code] = None
        else:
            self._held.pop((kind, code), None)
        if kind == "key" and down:
            self._keymap.pressed(code)
        self._has_clicked |= kind == "button"

    # The pointer.

    def where(self) -> Point:
        reply = self._display.reply(self._display.core.QueryPointer(self._display.root))
        return reply.root_x, reply.root_y

    def is_pressed(self) -> bool:
        """Whether any key or button is, whoever pressed it."""
        place = self._display.reply(self._display.core.QueryPointer(self._display.root))
        keys = self._display.reply(self._display.core.QueryKeymap()).keys
        return bool(place.mask & _BUTTONS_MASK) or any(keys)

    def move(self, x: int, y: int) -> None:
        self._display.xtest.FakeInput(_MOTION, 0, 0, self._display.root, x, y, 0)
        self._display.sync()

    async def click(
        self, point: Point | None, button: Button, count: int, modifiers: Sequence[int]
    ) -> None:
        """Click ``count`` times, well inside any double-click interval."""
        async with self._modified(modifiers):
            if point is not None:
                self.move(*point)
            self._tap(BUTTONS[button], 1)
            for _ in range(count - 1):
                await asyncio.sleep(_CLICK_SECONDS)
                self._tap(BUTTONS[button], 1)

    def _tap(self, button: int, count: int) -> None:
        for _ in range(count):
            self._put("button", button, down=True)
            self._put("button", button, down=False)
        self._display.sync()

    def set_button(self, point: Point | None, button: Button, *, down: bool) -> None:
        if point is not None:
            self.move(*point)
        self._put("button", BUTTONS[button], down=down)
        self._display.sync()

    async def drag(self, path: Sequence[Point], button: Button, modifiers: Sequence[int]) -> None:
        """Press at the first point, move along the path, release at the last."""
        pace = min(_DRAG_PACE_SECONDS, _DRAG_MAX_SECONDS / len(interpolate(path)))
        corner = min(_DRAG_CORNER_SECONDS, _DRAG_MAX_SECONDS / len(path))
        async with self._modified(modifiers):
            self.move(*path[0])
            self._put("button", BUTTONS[button], down=True)
            try:
                self._display.sync()
                await asyncio.sleep(_DRAG_DWELL_SECONDS)
                for leg in pairwise(path):
                    for x, y in interpolate(leg):
                        self.move(x, y)
                        await asyncio.sleep(pace)
                    await asyncio.sleep(corner)
                await asyncio.sleep(_DRAG_DWELL_SECONDS)
            finally:
                self._put("button", BUTTONS[button], down=False)
                self._display.sync()

    async def scroll(self, point: Point | None, dx: int, dy: int, modifiers: Sequence[int]) -> None:
        """Turn the wheel: ``dy`` notches down (button 5) or up (4), ``dx`` right (7) or left."""
        async with self._modified(modifiers):
            if point is not None:
                self.move(*point)
            for notches, (back, forth) in ((dy, (4, 5)), (dx, (6, 7))):
                for done in range(0, abs(notches), _BURST):
                    self._tap(forth if notches > 0 else back, min(_BURST, abs(notches) - done))
                    await asyncio.sleep(0)

    # Keys.

    async def catch_up(self, *, anyway: bool = False) -> None:
        """Return once the window manager has dealt with the clicks: one may move the focus.

        ``anyway``: also if there was none, since a program may have asked for a focus.
        """
        if self._has_clicked or anyway:
            self._has_clicked = False
            await self._manager.catch_up()

    async def key(self, keysyms: Sequence[int], repeat: int) -> None:
        """Press and release a chord."""
        for done in range(repeat):
            async with self.holding(keysyms):
                pass
            if done % _BURST == _BURST - 1:
                await asyncio.sleep(0)

    async def key_down(self, keysyms: Sequence[int]) -> None:
        self._press(await self._codes(keysyms))
        self._display.sync()

    async def key_up(self, keysyms: Sequence[int]) -> None:
        for keycode in reversed(await self._codes(keysyms)):
            self._put("key", keycode, down=False)
        self._display.sync()

    @asynccontextmanager
    async def holding(self, keysyms: Iterable[int]) -> AsyncIterator[None]:
        """Hold a chord meanwhile; keys of it that are held already stay so afterwards."""
        keycodes = [k for k in await self._codes(list(keysyms)) if ("key", k) not in self._held]
        try:
            self._press(keycodes)
            yield
        finally:
            for keycode in reversed(keycodes):
                self._put("key", keycode, down=False)
            if keycodes:
                self._display.sync()

    @contextmanager
    def lifted(self, keycodes: Iterable[int]) -> Iterator[None]:
        """Let keys go that are pressed; those that we held are pressed again afterwards.

        What a person holds is not: they may have let it go meanwhile, and it would stay down.
        """
        lifted = list(keycodes)
        ours = [code for kind, code in self._held if kind == "key" and code in lifted]
        for keycode in reversed(lifted):
            self._put("key", keycode, down=False)
        try:
            yield
        finally:
            self._press(ours)
            if ours:
                self._display.sync()

    @asynccontextmanager
    async def _modified(self, keysyms: Sequence[int]) -> AsyncIterator[None]:
        """Hold modifiers around what the mouse does, long enough to be seen."""
        async with self.holding(keysyms):
            if keysyms:
                await asyncio.sleep(_MODIFIER_SECONDS)
            yield
            if keysyms:
                await asyncio.sleep(_MODIFIER_SECONDS)

    def strike(self, strokes: Iterable[Stroke], shift: int) -> None:
        """Press and release keys one after the other, each with Shift or without."""
        for stroke in strokes:
            with_shift = stroke.shift and ("key", shift) not in self._held
            codes = [shift, stroke.keycode] if with_shift else [stroke.keycode]
            self._press(codes)
            for keycode in reversed(codes):
                self._put("key", keycode, down=False)
        self._display.sync()

    def _press(self, keycodes: Iterable[int]) -> None:
        for keycode in keycodes:
            self._put("key", keycode, down=True)

    async def _codes(self, keysyms: Sequence[int]) -> list[int]:
        """The keycodes of a chord in the order to press them, with the Shift that it needs."""
        if not keysyms:
            return []
        await self.catch_up()
        strokes = await self._keymap.provide([*keysyms, keys.SHIFT])
        codes: list[int] = []
        for keysym in keysyms:
            if strokes[keysym].shift:
                codes.append(strokes[keys.SHIFT].keycode)
            codes.append(strokes[keysym].keycode)
        return list(dict.fromkeys(codes))
