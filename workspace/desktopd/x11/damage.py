"""Whether the screen changes, where, and when it has come to rest (XDamage on the root window).

The server is asked for delta rectangles: what is damaged and has not been subtracted yet is not
reported again. So a busy screen costs nothing while nobody watches; and while someone waits, one
subtraction per :data:`_TURN_SECONDS` bounds how many reports it makes. What they mean is decided
by :mod:`~workspace.desktopd.x11.settling`.

To know what moves by itself before the next action, the screen is looked at for a moment some
times after each action or picture (:data:`_LOOKS_AFTER`), unless it stands still; then no more.

On failure: a broken connection ends the wait with ``DesktopLost``, and the looks without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import xcffib
import xcffib.damage
import xcffib.xproto

from workspace.actions import Region
from workspace.desktopd.x11.boxes import Box, regions
from workspace.desktopd.x11.capture import Capture
from workspace.desktopd.x11.comparing import Comparing
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.settling import Background, Settling

_TURN_SECONDS = 0.008  # half of a browser's frame
_LOOKS_AFTER = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # seconds from one look to the next
_LOOK_SECONDS = 0.12
# Programs that change these, of the root or of the active window, repaint in stages.
_STAGES = ("_NET_ACTIVE_WINDOW", "_NET_CLIENT_LIST", "_NET_WM_NAME")


class Damage:
    """The changes of one display's screen; one mark is live at a time. End it with ``close``."""

    def __init__(self, display: Display, capture: Capture) -> None:
        self._display = display
        self._comparing = Comparing(display, capture)
        self._loop = asyncio.get_running_loop()
        self._background = Background()
        self._mark: Settling | None = None
        self._marked = 0  # the number of the request that began it
        self._compared: tuple[int, list[Box]] | None = None  # the effect after so many paints
        self._news = asyncio.Event()
        self.frames = 0  # reports seen
        self._is_painted = False  # since every place was made to report again
        self._looks = 0  # how many there were since it was roused
        self._is_looking = False
        self._next_look: asyncio.TimerHandle | None = None
        self._next_turn: asyncio.TimerHandle | None = None
        self._damage: int = display.connection.generate_id()
        level = xcffib.damage.ReportLevel.DeltaRectangles
        display.damage.Create(self._damage, display.root, level, is_checked=True).check()
        self._stages = {display.atom(name) for name in _STAGES}
        display.subscribe(xcffib.damage.NotifyEvent, self._on_damage)
        display.subscribe(xcffib.xproto.PropertyNotifyEvent, self._on_property)
        self.rouse()

    def close(self) -> None:
        """Look no more, and give back what was kept."""
        self._stop_looking()
        self._comparing.close()

    def _stop_looking(self) -> None:
        for timer in (self._next_look, self._next_turn):
            if timer is not None:
                timer.cancel()
        self._next_look = self._next_turn = None
        self._is_looking = False

    # While someone acts.

    def mark(self) -> Settling:
        """Collect changes from now on; the mark before ends."""
        self._stop_looking()
        self._display.sync()
        self._display.pump()  # brings what was repainted until now
        now = self._loop.time()
        self._mark = Settling(self._background, now)
        self._background.act()
        self._marked = self._arm(now)
        self._comparing.remember()
        self._compared = None
        self._news.clear()
        return self._mark

    def expect(self, mark: Settling) -> None:
        """Wait for a change anew: what came before this moment is no answer to the next action."""
        self._display.sync()
        self._display.pump()
        now = self._loop.time()
        self._arm(now)  # so that the same place reports again
        mark.expect(now)

    def end(self, mark: Settling) -> None:
        """Stop collecting for ``mark``."""
        if self._mark is mark:
            mark.end()
            self._mark = None
            self._arm(self._loop.time())
            self.rouse(anew=True)

    async def settle(
        self, mark: Settling, cap: float, prepare: Callable[[], Awaitable[object]] | None = None
    ) -> bool:
        """Wait until the screen has changed since ``mark`` and is quiet again.

        True as soon as it has settled (also by not changing for a while); False if ``cap``
        seconds pass first. ``prepare`` is called in a lull that may turn out to be the rest: what
        it does is done while there is nothing to do but wait.
        """
        started = self._loop.time()
        mark.wait(started)
        prepared = 0
        while True:
            self._news.clear()
            with self._display.talking():
                self._arm(self._loop.time())
                self._display.sync()
                self._display.pump()
            now, due = self._loop.time(), mark.due()
            if now >= due:
                if not mark.is_restless and mark.doubt(now):
                    continue
                if not mark.is_restless or self._effect(mark):
                    return True
                mark.calm()
                continue
            if now >= started + cap:
                return not mark.is_restless
            lull = mark.lull() if prepared != mark.paints else None
            if lull is not None and now >= lull:
                prepared = mark.paints
                if self._effect(mark) and prepare is not None:
                    await prepare()
                continue
            until = min(due, started + cap, due if lull is None else lull)
            try:
                await asyncio.wait_for(self._news.wait(), until - now)
            except asyncio.TimeoutError:
                continue
            await asyncio.sleep(_TURN_SECONDS)

    def changed(self, mark: Settling) -> list[Region]:
        """Where the screen looks different from how it was at ``mark``."""
        return regions(self._effect(mark))

    def _effect(self, mark: Settling) -> list[Box]:
        if self._compared is None or self._compared[0] != mark.paints:
            self._compared = mark.paints, mark.effect(self._comparing.different(mark.painted))
        return self._compared[1]

    def _arm(self, now: float) -> int:
        """Let every place report again; the number of that request."""
        cookie = self._display.damage.Subtract(self._damage, 0, 0)
        self._is_painted = False
        self._background.arm(now)
        return int(cookie.sequence) & 0xFFFF

    def _on_damage(self, event: Any) -> None:  # Any: xcffib carries no types
        if event.damage != self._damage:
            return
        self.frames += 1
        self._is_painted = True
        now, area = self._loop.time(), event.area
        box = (area.x, area.y, area.x + area.width, area.y + area.height)
        # Reports from before the mark are older than its request (16 bits that wrap around).
        if self._mark is not None and (event.sequence - self._marked) & 0xFFFF < 0x8000:
            self._mark.paint(box, now)
            self._news.set()
            return
        self._background.see(box, now, is_late=self._looks == 0)
        if self._is_looking and self._next_turn is None:
            self._next_turn = self._loop.call_later(_TURN_SECONDS, self._turn)

    def _on_property(self, event: Any) -> None:  # Any: as above
        if event.atom not in self._stages:
            return
        if self._mark is not None:
            self._mark.stage()
        else:
            self.rouse(anew=True)  # a window that is being filled does not move by itself

    # While nobody does.

    def rouse(self, *, anew: bool = False) -> None:
        """Someone looks or acts: take some looks from now on.

        ``anew`` begins with the first again: a late answer to an action is none of what moves by
        itself.
        """
        if anew:
            self._background.act()
        if self._mark is None and (anew or self._next_look is None):
            self._stop_looking()
            self._looks = 0
            self._look_later()

    def _look_later(self) -> None:
        if self._looks < len(_LOOKS_AFTER):
            seconds = _LOOKS_AFTER[self._looks]
            self._next_look = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._looks += 1
        if self._is_painted:
            self._is_looking = True
            self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look_away)
            self._turn()
        else:
            self._look_away()

    def _look_away(self) -> None:
        if self._is_looking:
            now = self._loop.time()
            self._background.look_away(now - _LOOK_SECONDS, now)
        self._stop_looking()
        self._look_later()

    def _turn(self) -> None:
        self._next_turn = None
        if self._display.closed.is_set():
            self._stop_looking()
            return
        try:
            self._arm(self._loop.time())
            self._display.connection.flush()
        except xcffib.ConnectionException:
            self._stop_looking()  # whoever uses the display next is told
