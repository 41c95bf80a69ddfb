"""What pyautogui's arguments mean, as Carrel's actions, and how they are played.

Pure but for :class:`Player`. A wrong argument is InvalidRequest before anything is done; so is a
call that would come to more than :data:`MAX_ACTIONS` actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from workspace import actions as a
from workspace.errors import InvalidRequest, OffScreen
from workspace.sync import SyncDesktop
from workspace.transport import asked

MAX_ACTIONS = 10_000  # of one call
MAX_STEPS = 48  # of a slow movement: with its waits and its button it fits one batch
MAX_SECONDS = 60.0
INSTANT_SECONDS = 0.1  # pyautogui's MINIMUM_DURATION: what is shorter happens at once
_STEP_SECONDS = 0.05
_MAX_BATCH = 100
_FAR = 32767

Tween: TypeAlias = Callable[[float], float]
At: TypeAlias = tuple[int, int]
_BUTTONS: Mapping[str | int, a.Button] = {
    **{"left": "left", "middle": "middle", "right": "right"},
    **{"primary": "left", "secondary": "right", 1: "left", 2: "middle", 3: "right"},
}


class Point(NamedTuple):
    x: int
    y: int


class Size(NamedTuple):
    width: int
    height: int


class Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def linear(n: float) -> float:
    return n


def ease_in(n: float) -> float:
    return n * n


def ease_out(n: float) -> float:
    return n * (2 - n)


def ease_in_out(n: float) -> float:
    return 2 * n * n if n < 0.5 else 1 - 2 * (1 - n) ** 2


class Player:
    """Plays actions on one desktop, unobserved, as pyautogui does."""

    def __init__(self, desktop: SyncDesktop) -> None:
        self._desktop = desktop

    def act(self, *actions: a.Action) -> a.Observation:
        return self._desktop.act(*actions, settle_ms=0, observe="none")

    def look(self) -> a.Observation:
        return self.act(a.CursorPosition())

    def play(self, actions: Sequence[a.Action], pause: float = 0) -> None:
        """Play them, in batches that a desktop takes, and wait ``pause`` seconds."""
        if len(actions) > MAX_ACTIONS:
            raise too_many()
        for batch in _batches([*actions, *wait(pause)]):
            self.act(*batch)

    def sleep(self, duration: float) -> None:
        left = seconds(duration, most=86_400)
        while left > 0:
            self.act(a.Wait(seconds=min(left, MAX_SECONDS)))
            left -= MAX_SECONDS

    def path(self, at: At | None, duration: float, tween: Tween) -> list[a.Action]:
        """The way there in ``duration`` seconds; at once if that is short."""
        if at is None:
            return []
        if seconds(duration) <= INSTANT_SECONDS:
            return [asked(a.Move, x=at[0], y=at[1])]
        seen = self.look()
        (x0, y0), (width, height) = seen.cursor, seen.screen
        if not (0 <= at[0] < width and 0 <= at[1] < height):  # before half the way is gone
            raise OffScreen(f"{at} is outside the screen of {width}x{height} pixels.")
        count = min(MAX_STEPS, int(duration / _STEP_SECONDS))
        actions: list[a.Action] = []
        for step in range(1, count + 1):
            part = 1.0 if step == count else tween(step / count)
            # What a tween overshoots stays on the screen: only the end was asked for.
            x = min(max(round(x0 + (at[0] - x0) * part), 0), width - 1)
            y = min(max(round(y0 + (at[1] - y0) * part), 0), height - 1)
            actions += [a.Wait(seconds=duration / count), asked(a.Move, x=x, y=y)]
        return actions

    def drag(
        self, at: At | None, duration: float, tween: Tween, button: a.Button, presses: bool
    ) -> list[a.Action]:
        if at is None:
            raise InvalidRequest("A drag needs a point to drag to.")
        if presses and seconds(duration) <= INSTANT_SECONDS:
            return [asked(a.Drag, path=[self.look().cursor, at], button=button)]
        path = self.path(at, duration, tween)
        return [a.MouseDown(button=button), *path, a.MouseUp(button=button)] if presses else path

    def beside(self, across: object, down: object) -> At | None:
        """The point so far from the pointer; None for no distance."""
        if isinstance(across, Sequence) and not isinstance(across, str):
            across, down = wholes(across, 2)
        dx, dy = whole(across or 0), whole(down or 0)
        if not (dx or dy):
            return None
        x, y = self.look().cursor
        return x + dx, y + dy


def _batches(actions: Sequence[a.Action]) -> Iterator[list[a.Action]]:
    """As many at once as one request takes, and no more waiting in one than a wait may take."""
    batch: list[a.Action] = []
    waits = 0.0
    for action in actions:
        takes = action.seconds if isinstance(action, a.Wait) else 0.0
        if batch and (len(batch) == _MAX_BATCH or waits + takes > MAX_SECONDS + 1):
            yield batch
            batch, waits = [], 0.0
        batch.append(action)
        waits += takes
    if batch:
        yield batch


def whole(value: object) -> int:
    """A coordinate or distance, rounded towards zero as pyautogui does."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"Give a number, not {type(value).__name__}.")
    if not abs(value) <= _FAR:
        raise OffScreen("A number is too far from any screen, or none.")
    return int(value)


def wholes(values: object, count: int) -> list[int]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        raise InvalidRequest(f"Give {count} numbers.")
    return [whole(value) for value in values]


def seconds(value: object, most: float = MAX_SECONDS) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise InvalidRequest(f"Give from 0 to {most:g} seconds.")
    return float(value)


def count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_ACTIONS:
        raise InvalidRequest(f"Give a whole number from 0 to {MAX_ACTIONS}.")
    return value


def button(name: object) -> a.Button:
    plain = name.lower() if isinstance(name, str) else name
    known = _BUTTONS.get(plain) if isinstance(plain, str | int) else None
    if known is None:
        raise InvalidRequest(
            "There is no such mouse button.",
            hint="Name left, middle or right (1, 2, 3), primary or secondary; turn with scroll().",
        )
    return known


def key(name: object) -> str:
    """A key's name as pyautogui compares it: without case, if it is longer than a character."""
    if not isinstance(name, str):
        raise InvalidRequest(f"Give a key's name, not {type(name).__name__}.")
    return name.lower() if len(name) > 1 else name


def keys(names: object) -> list[str]:
    if isinstance(names, str):
        return [key(names)]
    if not isinstance(names, Sequence) or len(names) > MAX_ACTIONS:
        raise InvalidRequest("Give a key's name, or a list of them.")
    return [key(name) for name in names]


def pair(at: At | None) -> tuple[int, int] | tuple[None, None]:
    return (None, None) if at is None else at


def wait(interval: float) -> list[a.Action]:
    return [a.Wait(seconds=seconds(interval))] if interval else []


def turns(at: At | None, way: Literal["dx", "dy"], notches: int) -> list[a.Action]:
    """The wheel turned by any number of notches."""
    (x, y), sign = pair(at), 1 if notches > 0 else -1
    parts = [sign * min(100, abs(notches) - done) for done in range(0, abs(notches), 100)]
    if way == "dx":
        return [asked(a.Scroll, x=x, y=y, dx=part) for part in parts]
    return [asked(a.Scroll, x=x, y=y, dy=part) for part in parts]


def together(names: Sequence[str], interval: float) -> list[a.Action]:
    """Keys pressed in order and released in reverse; as one chord if nothing is between them."""
    if not names:
        return []
    if not interval:
        chord = "+".join("plus" if name == "+" else name for name in names)
        return [asked(a.Key, chord=chord)]
    actions: list[a.Action] = []
    for name in names:
        actions += [asked(a.KeyDown, chord=name), *wait(interval)]
    for name in reversed(names):
        actions += [asked(a.KeyUp, chord=name), *wait(interval)]
    return actions


def too_many() -> InvalidRequest:
    return InvalidRequest(f"One call may come to {MAX_ACTIONS} actions.", hint="Do it in parts.")
