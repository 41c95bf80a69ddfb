"""Screen: plays actions on the X display, one batch at a time, and says what could be seen.

On failure: a batch stops at the first action that fails; the error's ``details`` hold its ``index``
and how many were ``completed``. Whatever the failed or cancelled batch pressed is released. What a
batch that succeeded left held (``key_down``, ``mouse_down``) is released by a watchdog after
:data:`HELD_SECONDS` without an action. When the X server goes away, :attr:`Screen.closed` is set
and every call raises ``DesktopLost``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from workspace import actions as a
from workspace import models
from workspace.desktopd.accessibility.placing import Box
from workspace.desktopd.accessibility.playing import play
from workspace.desktopd.accessibility.tree import Accessibility
from workspace.desktopd.hands import Hands
from workspace.desktopd.keyboard import Holder, Keyboard
from workspace.desktopd.threads import in_thread
from workspace.desktopd.x11 import windows
from workspace.desktopd.x11.appearance import Appearance
from workspace.desktopd.x11.arranging import Windows
from workspace.desktopd.x11.capture import Capture, encode
from workspace.desktopd.x11.clipboard import Clipboard
from workspace.desktopd.x11.damage import Damage
from workspace.desktopd.x11.display import Display
from workspace.desktopd.x11.filming import Film
from workspace.desktopd.x11.frames import Frames
from workspace.desktopd.x11.input import Input
from workspace.desktopd.x11.keymap import Keymap
from workspace.desktopd.x11.keys import is_command, parse_chord, parse_chords
from workspace.desktopd.x11.settling import Settling
from workspace.desktopd.x11.typing import Typist
from workspace.desktopd.x11.watching import Watching
from workspace.elements import Marks
from workspace.errors import CarrelError, OffScreen
from workspace.summary import summary_of

logger = logging.getLogger(__name__)

HELD_SECONDS = 60.0
COMMAND_SECONDS = 0.5  # at most, from a chord to its effect
_Seen = a.Image | a.Delta
_Play = Callable[[Settling | None], Awaitable[_Seen | None]]
_LOOKS = (a.Screenshot, a.Zoom, a.CursorPosition)
_NO_INPUT = (*_LOOKS, a.Wait)


class Screen:
    """One display's screen, keyboard, mouse, windows and clipboard; end it with ``aclose``."""

    def __init__(self, display: Display, bus: str | None = None) -> None:
        self._display = display
        keymap = Keymap(display)
        self._keymap = keymap
        self._input = Input(display, keymap)
        self._capture = Capture(display)
        self._frames = Frames(display, self._capture)
        self._damage = Damage(display, self._capture)
        self.film = Film(display)
        self.clipboard = Clipboard(display)
        self._typist = Typist(display, keymap, self._input, self.clipboard)
        self.windows = Windows(display)
        self.watching = Watching(display, self._capture)
        self.appearance = Appearance(display)
        self._turn = asyncio.Lock()  # wakes its waiters in the order they came
        self._watchdog: asyncio.TimerHandle | None = None
        self._typed: a.Typed | None = None  # in the batch that is being played
        self._hands: Hands | None = None  # whose hands may be broken off in it
        self._commanded = -math.inf  # when a chord last told a program to do something
        self.accessibility = Accessibility(bus, lambda: self.size, self.windows)
        self._keyboard = Keyboard(display, self.accessibility)

    @classmethod
    async def open(cls, display: str, bus: str | None = None) -> Screen:
        """Connect to the X display ``display`` (":1"); ``bus`` is its session's, for accessibility.

        Raises:
            StartFailed: it cannot be reached, or lacks what Carrel needs.
        """
        connection = await Display.open(display)
        try:
            return cls(connection, bus)
        except BaseException:
            connection.close()
            raise

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._display.size

    @property
    def closed(self) -> asyncio.Event:
        """Set when the connection to the X server is gone."""
        return self._display.closed

    async def aclose(self) -> None:
        """Release what is held, leave the keyboard as it was, and disconnect."""
        if not self.closed.is_set():
            try:
                self.release_held()
                with self._display.talking():
                    self._keymap.close()
            except CarrelError:
                logger.info("The X server went away before the screen was closed.")
        self._cancel_watchdog()
        self.accessibility.close()
        self._damage.close()
        self.clipboard.close()
        self._frames.close()
        self.film.close()
        self._capture.close()
        self._display.close()

    async def change(self, change: models.ScreenChange) -> models.Screen:
        """Have it another size; no batch is being played then. It comes back as it then is.

        Raises:
            Unsupported, InvalidRequest: the X server cannot, or refuses that size.
        """
        async with self._turn:
            return await self.appearance.change(change)

    # Actions.

    async def act(
        self,
        actions: Sequence[a.Action],
        *,
        settle_ms: int = 0,
        observe: a.Observe = "none",
        hands: Hands | None = None,
    ) -> a.Observation:
        """Play the actions in order; batches of several callers come one after the other.

        Then wait until the screen has come to rest, ``settle_ms`` at most (not after actions
        that only look). ``observe="frame"`` brings the frame after that, what changed, what has
        the keyboard and a summary; the frame is as the last action asks for it, if that is a
        screenshot or a zoom. With ``hands`` it is the agent's, and stops where a person takes over.

        Raises:
            HumanInControl: a person has control; or took it, and this was broken off.
            OffScreen, UnknownKey, UntypableText, InvalidRequest, ElementNotFound: nothing of that
                action was done.
            DesktopLost: the X server went away.
        """
        needs_hands = not all(isinstance(each, _NO_INPUT) for each in actions)
        seen = await self._turned(
            partial(self._play_all, actions),
            last=actions[-1] if actions else None,
            only_looks=all(isinstance(action, _LOOKS) for action in actions),
            settle_ms=settle_ms,
            observe=observe,
            hands=hands,
            needs_hands=needs_hands,
        )
        return _unless_known(seen, actions)

    async def around(
        self,
        work: Callable[[], Awaitable[None]],
        *,
        settle_ms: int = 0,
        observe: a.Observe = "none",
        hands: Hands | None = None,
    ) -> a.Observation:
        """Have ``work`` do something to what is on the screen; all else is as in :meth:`act`.

        Raises:
            HumanInControl: as there; and whatever ``work`` raises.
        """

        async def play(mark: Settling | None) -> _Seen | None:
            if self._hands is None:
                await work()
            else:
                with self._hands.acting():
                    await work()
            return None

        return await self._turned(
            play,
            last=None,
            only_looks=False,
            settle_ms=settle_ms,
            observe=observe,
            hands=hands,
            needs_hands=True,
        )

    async def _turned(
        self,
        play: _Play,
        *,
        last: a.Action | None,
        only_looks: bool,
        settle_ms: int,
        observe: a.Observe,
        hands: Hands | None,
        needs_hands: bool,
    ) -> a.Observation:
        async with self._turn:
            if hands is not None and needs_hands:
                await hands.agents_turn()
            started = time.monotonic()
            self._hands = hands
            self._cancel_watchdog()
            self._typed = None
            try:
                # What it presses is let go too if its caller leaves while the screen settles.
                with self._display.talking():
                    async with self._releasing_on_failure():
                        if settle_ms == 0 and observe == "none":
                            self._damage.rouse(anew=True)  # before, too: the answer may come soon
                            picture = await play(None)
                            self._damage.rouse(anew=True)
                            return self._observation(started, picture)
                        watch = partial(self._watched, play, last, only_looks, settle_ms, started)
                        if observe != "frame":
                            return await watch(None)
                        async with self._keyboard.asking() as before:
                            return await watch(before)
            finally:
                self._start_watchdog()

    async def _watched(
        self,
        play: _Play,
        last: a.Action | None,
        only_looks: bool,
        settle_ms: int,
        started: float,
        before: asyncio.Task[Holder] | None,
    ) -> a.Observation:
        wanted = last if isinstance(last, a.Screenshot | a.Zoom) else a.Screenshot()
        mark = self._damage.mark()
        try:
            picture = await play(mark)
            settled: bool | None = None
            if settle_ms > 0 and not only_looks:
                is_plain = before is not None and wanted == a.Screenshot()
                prepare = partial(self._picture, wanted) if is_plain else None
                settled = await self._damage.settle(mark, settle_ms / 1000, prepare)
            if before is None:
                return self._observation(started, picture)
            self._display.sync()
            self._display.pump()  # brings the last changes
            now = asyncio.get_running_loop().time()
            changed, still_changing = self._damage.changed(mark), mark.still_changing(now)
            async with self._keyboard.asking() as after:
                if picture is None or wanted is not last or not only_looks:
                    picture = await self._picture(wanted)
                holder = await after
            seen = self._observation(started, picture).model_copy(
                update={
                    "effect": "changed" if changed else "no_visible_change",
                    "settled": settled,
                    "changed": changed,
                    "still_changing": still_changing,
                    "focused": holder.window,
                    "focused_element": holder.element,
                    "focus_moved": holder.has_moved_from(await before),
                }
            )
            return seen.model_copy(update={"summary": summary_of(seen)})
        finally:
            self._damage.end(mark)

    async def _play_all(self, actions: Sequence[a.Action], mark: Settling | None) -> _Seen | None:
        """Play them in order; the last picture that one of them asked for."""
        picture: _Seen | None = None
        for number, action in enumerate(actions):
            if isinstance(action, a.Type):
                await self._let_chord_act(mark)
            if mark is not None and number > 0 and not isinstance(action, _LOOKS):
                self._damage.expect(mark)
            try:
                if self._hands is None or isinstance(action, _NO_INPUT):
                    picture = await self._play(action) or picture
                else:
                    with self._hands.acting():
                        await self._play(action)
            except CarrelError as error:
                raise _placed(error, number, actions) from error.__cause__
        return picture

    def _observation(self, started: float, picture: _Seen | None) -> a.Observation:
        """What is known of actions that nobody watched."""
        return a.Observation(
            screenshot=picture if isinstance(picture, a.Image) else None,
            delta=picture if isinstance(picture, a.Delta) else None,
            cursor=self._input.where(),
            screen=self.size,
            typed=self._typed,
            elapsed_ms=round((time.monotonic() - started) * 1000, 2),
        )

    async def _play(self, action: a.Action) -> _Seen | None:
        """Do one action; everything that can be wrong with it is checked before it begins."""
        match action:
            case a.Screenshot() | a.Zoom():
                return await self._picture(action)
            case a.Move():
                if (point := await self._point(action)) is not None:
                    self._input.move(*point)
            case a.Click(button=button, count=count, modifiers=modifiers):
                held = parse_chords(modifiers)
                await self._input.click(await self._point(action), button, count, held)
            case a.MouseDown(button=button) | a.MouseUp(button=button):
                is_down = isinstance(action, a.MouseDown)
                self._input.set_button(await self._point(action), button, down=is_down)
            case a.Drag(path=path, button=button, modifiers=modifiers):
                held = parse_chords(modifiers)
                points = [self._on_screen(*point) for point in path]
                await self._input.drag(points, button, held)
            case a.Scroll(dx=dx, dy=dy, modifiers=modifiers):
                held = parse_chords(modifiers)
                await self._input.scroll(await self._point(action), dx, dy, held)
            case a.Type(text=text):
                typed = await self._typist.type(text)
                self._typed = typed if self._typed is None else self._typed + typed
            case a.Key(chord=chord, repeat=repeat):
                keysyms = parse_chord(chord)
                await self._input.key(keysyms, repeat)
                self._note_command(keysyms)
            case a.KeyDown(chord=chord):
                await self._input.key_down(parse_chord(chord))
            case a.KeyUp(chord=chord):
                keysyms = parse_chord(chord)
                await self._input.key_up(keysyms)
                self._note_command(keysyms)
            case a.HoldKey(chord=chord, seconds=seconds):
                async with self._input.holding(parse_chord(chord)):
                    await asyncio.sleep(seconds)
            case a.Wait(seconds=seconds):
                await asyncio.sleep(seconds)
            case a.FocusElement() | a.SetValue() | a.Invoke():
                await play(self.accessibility, action, self._play)
            case a.CursorPosition():
                pass  # every observation has it
        return None

    def _note_command(self, keysyms: Sequence[int]) -> None:
        if is_command(keysyms):
            self._commanded = time.monotonic()

    async def _let_chord_act(self, mark: Settling | None) -> None:
        """Before text, wait until a chord of just now has had its effect, as far as it is seen.

        A browser asks its page first whether it wants Control+L, and a dialog takes its time:
        text that comes at once would go to where the keyboard was before.
        """
        left = self._commanded + COMMAND_SECONDS - time.monotonic()
        if left <= 0:
            return
        self._commanded = -math.inf
        own = self._damage.mark() if mark is None else mark
        try:
            await self._damage.settle(own, left)
        finally:
            if mark is None:
                self._damage.end(own)

    async def _point(
        self, action: a.Move | a.Click | a.MouseDown | a.MouseUp | a.Scroll
    ) -> a.Point | None:
        if action.element is not None:
            return await self.accessibility.point(action.element)
        if action.x is None or action.y is None:
            return None
        return self._on_screen(action.x, action.y)

    def _on_screen(self, x: int, y: int) -> a.Point:
        width, height = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise OffScreen(f"({x}, {y}) is outside the screen of {width}x{height} pixels.")
        return x, y

    @asynccontextmanager
    async def _releasing_on_failure(self) -> AsyncIterator[None]:
        before = self._input.held
        try:
            yield
        except BaseException:  # cancellation too: the caller went away
            if not self.closed.is_set():
                self._input.release_held(but=before)
            raise

    # What stays held.

    def release_held(self) -> None:
        """Release every key and button that is held."""
        with self._display.talking():
            self._input.release_held()

    async def until_released(self, seconds: float) -> None:
        """Return once the server has taken what came before, and no key or button is pressed.

        At the latest after ``seconds``: a program may hold some itself.
        """
        deadline = time.monotonic() + seconds
        self._display.sync()  # what came on other sockets before is read by then
        while self._input.is_pressed() and time.monotonic() < deadline:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.005)

    async def focused_role(self) -> str | None:
        """The role of the element with the keyboard; None if nobody tells."""
        element = await self.accessibility.focused()
        return None if element is None else element.role

    def _cancel_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _start_watchdog(self) -> None:
        if self._input.held and not self.closed.is_set():
            loop = asyncio.get_running_loop()
            self._watchdog = loop.call_later(HELD_SECONDS, self._on_watchdog)

    def _on_watchdog(self) -> None:
        logger.info("Releasing what was held for %g s without an action.", HELD_SECONDS)
        try:
            self.release_held()
        except CarrelError as error:
            logger.info("%s", error)

    # Pictures.

    async def screenshot(self, request: a.Screenshot | a.Zoom) -> a.Image:
        """A picture at once; it does not wait for a batch that is being played.

        Raises:
            OffScreen: the region is not on the screen. InvalidRequest: it would be too large.
        """
        with self._display.talking():
            self._damage.rouse()
            return await self._frames.take(request)

    def is_lit(self, region: a.Region) -> bool:
        """Whether not all of it is X's black.

        Raises:
            OffScreen: the region is not on the screen.
        """
        with self._display.talking():
            self._damage.rouse()
            return self._capture.grab(self._capture.check(region), None).getbbox() is not None

    async def marks(
        self, *, format: a.ImageFormat, quality: int, scale: float, window: int | None, limit: int
    ) -> Marks:
        """A picture with a numbered box over what can be acted on; the number is the element's.

        Raises:
            WindowNotFound: there is no such window. Unavailable: there is no accessibility.
        """
        from workspace.desktopd.accessibility import marks  # loads fonts: not before it is needed

        found = await self.accessibility.actionable(window, limit)
        with self._display.talking():
            picture = self._capture.grab(self._capture.check(None), None)
        boxes = [
            (element.id[1:], Box(*element.box.model_dump().values()))
            for element in found.elements
            if element.box is not None
        ]

        def drawn() -> a.Image:
            marked = marks.draw(picture, boxes, scale)
            data = encode(marked, marked.size, format, quality)
            width, height = marked.size
            return a.Image.model_construct(format=format, width=width, height=height, data=data)

        return Marks.model_construct(
            screenshot=await in_thread(drawn), elements=found.elements, truncated=found.truncated
        )

    async def _picture(self, request: a.Screenshot | a.Zoom) -> _Seen:
        if isinstance(request, a.Screenshot) and request.delta:
            return await self._frames.changes(request)
        return await self._frames.take(request)

    # The window manager.

    async def wait_for_window_manager(self, timeout: float) -> None:
        """Return once a window manager runs; TimedOut after ``timeout`` seconds."""
        await windows.wait_for_window_manager(self._display, timeout)

    async def wait_for_panel(self, timeout: float) -> None:
        """Return once a panel is on the screen; TimedOut after ``timeout`` seconds."""
        await windows.wait_for_panel(self._display, timeout)


def _unless_known(seen: a.Observation, actions: Sequence[a.Action]) -> a.Observation:
    """Without its picture, if that is a frame which the asker has."""
    if seen.delta is not None and not seen.delta.patches:
        return seen.model_copy(update={"delta": None, "unchanged": True})
    asked = (action.since for action in actions if isinstance(action, a.Screenshot))
    known = {frame for frame in asked if frame is not None}
    if seen.screenshot is None or seen.screenshot.frame not in known:
        return seen
    return seen.model_copy(update={"screenshot": None, "unchanged": True})


def _placed(error: CarrelError, number: int, actions: Sequence[a.Action]) -> CarrelError:
    """The error, saying which action of several it was."""
    message = error.message
    if len(actions) > 1:
        message = f"action {number + 1} of {len(actions)} ({actions[number].type}): {message}"
    details = {**error.details, "index": number, "completed": number}
    return type(error)(message, hint=error.hint, details=details)
