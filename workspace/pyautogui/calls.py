"""PyAutoGUI: one desktop by pyautogui's calls, with its names, arguments and defaults (0.9.54).

What differs, and why: ``PAUSE`` is 0 (one waits for a desktop, not by habit); ``FAILSAFE`` does
nothing (the pointer is no person's, so a corner is no plea to stop); text may be any Unicode; a key
of an unknown name or a point outside the screen is refused, where pyautogui does nothing or
something else; ``logScreenshot`` does nothing. Waits are the desktop's own, in the same batch as
what they separate; a slow movement is a path of at most :data:`player.MAX_STEPS` points.

On failure a call raises what :meth:`workspace.desktop.Desktop.act` does: what the batch pressed is
released, and nothing is retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from workspace import actions as a
from workspace.errors import InvalidRequest, NotFound, Unsupported
from workspace.pyautogui import pictures, player
from workspace.pyautogui.player import Box, Player, Point, Size, Tween, linear
from workspace.sync import SyncDesktop
from workspace.transport import asked

if TYPE_CHECKING:
    from PIL.Image import Image

_AGAIN_SECONDS = 0.05  # between two looks for a picture
Spot: TypeAlias = "float | Sequence[float] | str | None"  # a str is a picture's file


def _clicking(count: int, button: str) -> Callable[..., None]:
    def call(
        self: PyAutoGUI,
        x: Spot = None,
        y: float | None = None,
        interval: float = 0.0,
        duration: float = 0.0,
        tween: Tween = linear,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        self.click(x, y, count, interval, button, duration, tween, _pause=_pause)

    return call


def _clicking_often(count: int) -> Callable[..., None]:
    def call(
        self: PyAutoGUI,
        x: Spot = None,
        y: float | None = None,
        interval: float = 0.0,
        button: str | int = "left",
        duration: float = 0.0,
        tween: Tween = linear,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        self.click(x, y, count, interval, button, duration, tween, _pause=_pause)

    return call


def _setting(kind: Callable[..., a.Action]) -> Callable[..., None]:
    def call(
        self: PyAutoGUI,
        x: Spot = None,
        y: float | None = None,
        button: str | int = "primary",
        duration: float = 0.0,  # does nothing, in pyautogui too
        tween: Tween = linear,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        which, (left, top) = player.button(button), player.pair(self._spot(x, y))
        self._play([asked(kind, x=left, y=top, button=which)], _pause)

    return call


class PyAutoGUI:
    """``desktop`` by pyautogui's calls; ``PAUSE`` seconds follow each of them that acts."""

    LEFT, MIDDLE, RIGHT, PRIMARY, SECONDARY = "left", "middle", "right", "primary", "secondary"
    linear, easeInQuad = staticmethod(player.linear), staticmethod(player.ease_in)
    easeOutQuad, easeInOutQuad = staticmethod(player.ease_out), staticmethod(player.ease_in_out)
    ImageNotFoundException = NotFound

    def __init__(self, desktop: SyncDesktop) -> None:
        self._player = Player(desktop)
        self.PAUSE = 0.0
        self.FAILSAFE = True

    # Where things are.

    def position(self, x: float | None = None, y: float | None = None) -> Point:
        """Where the pointer is; ``x`` and ``y``, if given, stand in for its own."""
        at = self._player.look().cursor
        x, y = at[0] if x is None else x, at[1] if y is None else y
        return Point(player.whole(x), player.whole(y))

    def size(self) -> Size:
        return Size(*self._player.look().screen)

    def onScreen(self, x: Spot, y: float | None = None) -> bool:
        at = self._spot(x, y)
        width, height = self._player.look().screen
        return at is None or (0 <= at[0] < width and 0 <= at[1] < height)

    def center(self, coords: Sequence[float]) -> Point:
        left, top, width, height = player.wholes(coords, 4)
        return Point(left + width // 2, top + height // 2)

    # The mouse.

    def moveTo(
        self,
        x: Spot = None,
        y: float | None = None,
        duration: float = 0.0,
        tween: Tween = linear,
        logScreenshot: object = False,
        _pause: bool = True,
    ) -> None:
        self._play(self._player.path(self._spot(x, y), duration, tween), _pause)

    def moveRel(
        self,
        xOffset: float | Sequence[float] | None = None,
        yOffset: float | None = None,
        duration: float = 0.0,
        tween: Tween = linear,
        logScreenshot: object = False,
        _pause: bool = True,
    ) -> None:
        self._play(
            self._player.path(self._player.beside(xOffset, yOffset), duration, tween), _pause
        )

    move = moveRel

    mouseDown = _setting(a.MouseDown)
    mouseUp = _setting(a.MouseUp)

    def click(
        self,
        x: Spot = None,
        y: float | None = None,
        clicks: int = 1,
        interval: float = 0.0,
        button: str | int = "primary",
        duration: float = 0.0,
        tween: Tween = linear,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        which, at, clicks = player.button(button), self._spot(x, y), player.count(clicks)
        actions: list[a.Action] = []
        if not clicks or player.seconds(duration) > player.INSTANT_SECONDS:
            actions += self._player.path(at, duration, tween)
        (left, top), most = player.pair(at), 1 if interval else 3
        for done in range(0, clicks, most):
            count = min(most, clicks - done)
            actions.append(asked(a.Click, button=which, count=count, x=left, y=top))
            actions += player.wait(interval)
        self._play(actions, _pause)

    leftClick = _clicking(1, "left")
    rightClick = _clicking(1, "right")
    middleClick = _clicking(1, "middle")
    doubleClick = _clicking_often(2)
    tripleClick = _clicking_often(3)

    def dragTo(
        self,
        x: Spot = None,
        y: float | None = None,
        duration: float = 0.0,
        tween: Tween = linear,
        button: str | int = "primary",
        logScreenshot: object = None,
        _pause: bool = True,
        mouseDownUp: bool = True,
    ) -> None:
        at = self._spot(x, y)
        self._play(
            self._player.drag(at, duration, tween, player.button(button), mouseDownUp), _pause
        )

    def dragRel(
        self,
        xOffset: float | Sequence[float] | None = 0,
        yOffset: float | None = 0,
        duration: float = 0.0,
        tween: Tween = linear,
        button: str | int = "primary",
        logScreenshot: object = None,
        _pause: bool = True,
        mouseDownUp: bool = True,
    ) -> None:
        at = self._player.beside(xOffset, yOffset)
        which = player.button(button)
        drag = [] if at is None else self._player.drag(at, duration, tween, which, mouseDownUp)
        self._play(drag, _pause)

    drag = dragRel

    def scroll(
        self,
        clicks: float,
        x: Spot = None,
        y: float | None = None,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        """Turn the wheel: a positive number scrolls up."""
        self._play(player.turns(self._spot(x, y), "dy", -player.whole(clicks)), _pause)

    vscroll = scroll

    def hscroll(
        self,
        clicks: float,
        x: Spot = None,
        y: float | None = None,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        """Turn the wheel sideways: a positive number scrolls to the right."""
        self._play(player.turns(self._spot(x, y), "dx", player.whole(clicks)), _pause)

    # The keyboard.

    def typewrite(
        self,
        message: str | Sequence[str],
        interval: float = 0.0,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        """Type a text, or press the keys of a list of names."""
        if isinstance(message, str) and not interval:
            self._play([asked(a.Type, text=message)] if message else [], _pause)
            return
        is_text = isinstance(message, str)
        parts = list(message) if is_text else player.keys(message)
        if len(parts) > player.MAX_ACTIONS:
            raise player.too_many()
        actions: list[a.Action] = []
        for part in parts:
            actions.append(asked(a.Type, text=part) if is_text else asked(a.Key, chord=part))
            actions += player.wait(interval)
        self._play(actions, _pause)

    write = typewrite

    def press(
        self,
        keys: str | Sequence[str],
        presses: int = 1,
        interval: float = 0.0,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        names, presses = player.keys(keys), player.count(presses)
        if presses * (len(names) + 1) > player.MAX_ACTIONS:
            raise player.too_many()
        actions: list[a.Action] = []
        if len(names) == 1 and not interval:
            for done in range(0, presses, 100):
                repeat = min(100, presses - done)
                actions.append(asked(a.Key, chord=names[0], repeat=repeat))
        else:
            for _ in range(presses):
                actions += [*(asked(a.Key, chord=name) for name in names), *player.wait(interval)]
        self._play(actions, _pause)

    def keyDown(self, key: str, logScreenshot: object = None, _pause: bool = True) -> None:
        """Press a key and keep it down: sixty seconds without an action release it."""
        self._play([asked(a.KeyDown, chord=player.key(key))], _pause)

    def keyUp(self, key: str, logScreenshot: object = None, _pause: bool = True) -> None:
        self._play([asked(a.KeyUp, chord=player.key(key))], _pause)

    def hotkey(
        self,
        *args: str | Sequence[str],
        interval: float = 0.0,
        logScreenshot: object = None,
        _pause: bool = True,
    ) -> None:
        """Press the keys in order, release them in reverse: ``hotkey("ctrl", "shift", "t")``."""
        names = player.keys(args[0] if args and not isinstance(args[0], str) else args)
        self._play(player.together(names, interval), _pause)

    @contextmanager
    def hold(
        self, keys: str | Sequence[str], logScreenshot: object = None, _pause: bool = True
    ) -> Iterator[None]:
        """Keep keys down for a ``with`` block."""
        names = player.keys(keys)
        self._play([asked(a.KeyDown, chord=name) for name in names], _pause)
        try:
            yield
        finally:
            self._play([asked(a.KeyUp, chord=name) for name in names], False)

    # Pictures.

    def screenshot(
        self, imageFilename: str | Path | None = None, region: Sequence[float] | None = None
    ) -> Image:
        """The screen, or its part ``(left, top, width, height)``; written to a file if named."""
        part = None
        if region is not None:
            left, top, width, height = player.wholes(region, 4)
            part = asked(a.Region, x=left, y=top, width=width, height=height)
        seen = self._player.act(a.Screenshot(format="png", region=part, cursor=False)).screenshot
        assert seen is not None, "a screenshot brings a picture"
        picture = pictures.decoded(seen.data)
        if imageFilename is not None:
            picture.save(imageFilename)
        return picture

    def pixel(self, x: float, y: float) -> tuple[int, int, int]:
        """The colour at a point: red, green, blue."""
        red, green, blue = self.screenshot(region=(x, y, 1, 1)).tobytes()[:3]
        return red, green, blue

    def pixelMatchesColor(
        self, x: float, y: float, expectedRGBColor: Sequence[int], tolerance: int = 0
    ) -> bool:
        expected, most = player.wholes(expectedRGBColor, 3), player.whole(tolerance)
        pairs = zip(self.pixel(x, y), expected, strict=True)
        return all(abs(seen - wanted) <= most for seen, wanted in pairs)

    def locateOnScreen(
        self,
        image: str | Path | Image,
        minSearchTime: float = 0,
        *,
        grayscale: bool = False,
        region: Sequence[float] | None = None,
        confidence: float | None = None,
    ) -> Box:
        """Where a picture is on the screen, pixel for pixel; ``minSearchTime`` is a deadline.

        Raises:
            NotFound: it is not there. Unsupported: ``confidence`` was asked for.
        """
        if confidence not in (None, 1, 0.999):  # 0.999 is pyscreeze's word for exact
            raise Unsupported(
                "Pictures are found pixel for pixel: confidence needs OpenCV, which is not used.",
                hint="Leave confidence out, and give a picture cut from a screenshot.",
            )
        needle = pictures.opened(image)
        left, top = (0, 0) if region is None else player.wholes(region, 4)[:2]
        deadline = time.monotonic() + player.seconds(minSearchTime)
        while True:
            at = pictures.find(needle, self.screenshot(region=region), grayscale=grayscale)
            if at is not None:
                return Box(left + at[0], top + at[1], needle.width, needle.height)
            if time.monotonic() >= deadline:
                raise NotFound("The picture is not on the screen.", hint="Take a screenshot.")
            self.sleep(_AGAIN_SECONDS)

    def locateCenterOnScreen(
        self,
        image: str | Path | Image,
        minSearchTime: float = 0,
        **how: Any,  # Any: as locateOnScreen takes them
    ) -> Point:
        """The middle of :meth:`locateOnScreen`."""
        return self.center(self.locateOnScreen(image, minSearchTime, **how))

    def sleep(self, seconds: float) -> None:
        self._player.sleep(seconds)

    # What the arguments mean.

    def _play(self, actions: Sequence[a.Action], _pause: bool) -> None:
        self._player.play(actions, self.PAUSE if _pause else 0)

    def _spot(self, x: Spot, y: float | None) -> Point | None:
        """The point meant, in any of pyautogui's ways; None for where the pointer is."""
        if isinstance(x, str):
            return self.locateCenterOnScreen(x)
        if x is not None and not isinstance(x, float | int):
            if y is not None or not isinstance(x, Sequence) or len(x) not in (2, 4):
                raise InvalidRequest("Give (x, y) or (left, top, width, height), or two numbers.")
            return self.center(player.wholes(x, 4)) if len(x) == 4 else Point(*player.wholes(x, 2))
        if x is None and y is None:
            return None
        if x is None or y is None:
            return self.position(x, y)
        return Point(player.whole(x), player.whole(y))
