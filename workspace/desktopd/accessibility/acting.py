"""Acting on an element through its program: setting what it holds, giving it the keyboard,
invoking what it does.

On failure: an element that is not there any more, or not on the screen, is ``ElementNotFound``;
one whose program does not answer is ``TimedOut``; what its program will not do is
:class:`WillNot`, and whoever asked may click instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from workspace.desktopd.accessibility import placing, words
from workspace.desktopd.accessibility.bus import Gone, Refused, Silent, answers
from workspace.desktopd.accessibility.placing import Box
from workspace.desktopd.accessibility.programs import Method, Program, accessible, get, of, put
from workspace.desktopd.accessibility.reading import LENGTH, MAX_NAME, MAX_TEXT, holds_text, text_of
from workspace.desktopd.accessibility.wire import Value
from workspace.errors import ElementNotFound, InvalidRequest, TimedOut

_SECONDS = 2.0
_HOLDS_SECONDS = 4.0  # from being set to being seen to hold it
_FOCUS_SECONDS = 0.4
_SELECT_SECONDS = 1.5
_POLL_SECONDS = 0.02
_MAX_READ = 100_001
_MAX_ACTIONS = 20
_NUMBER = get("Value", "CurrentValue")


class WillNot(Exception):
    """Its program does not do that for this element."""


class Handle:
    """One element, as it is now."""

    def __init__(
        self, element: str, program: Program, path: str, shift: tuple[int, int] = (0, 0)
    ) -> None:
        self.id = element
        self.program = program
        self._path = path
        self._shift = shift

    async def _ask(self, *methods: Method) -> list[Value]:
        replies = [self.program.ask(self._path, method) for method in methods]
        return _values(await answers(replies, _SECONDS))

    def gone(self) -> ElementNotFound:
        return ElementNotFound(f"The element {self.id} is not there any more.")

    async def look(self) -> tuple[str, int, Box | None]:
        """Its role, states and box.

        Raises:
            ElementNotFound: it is gone. TimedOut: its program does not answer.
        """
        asked = accessible("GetRole"), accessible("GetState"), of("Component", "GetExtents", "u", 0)
        replies = [self.program.ask(self._path, method) for method in asked]
        role, states, box = _values(await answers(replies, _SECONDS))
        if any(reply.cancelled() for reply in replies[:2]):
            raise TimedOut(
                f"The program of the element {self.id} does not answer.",
                hint="It is busy, or hangs: look at its window, or try again in a moment.",
            )
        bits = words.state_bits(states)
        if role is None or states is None or not role or bits & words.DEFUNCT:
            raise self.gone()
        told = placing.as_box(box)
        return words.role_name(role), bits, None if told is None else told.moved(self._shift)

    async def said(self) -> tuple[str, str | None]:
        """Its name, and its text if it is one to type into, but not a password's."""
        role, states, _ = await self.look()
        (name,) = await self._ask(get("Accessible", "Name"))
        text = await self._text(MAX_TEXT) if holds_text(role, states) else None
        return name[:MAX_NAME].strip() if isinstance(name, str) else "", text

    async def _text(self, most: int) -> str | None:
        (length,) = await self._ask(LENGTH)
        if not isinstance(length, int) or length <= 0:
            return "" if length == 0 else None
        (text,) = await self._ask(text_of(length, most=most))
        return text[:most] if isinstance(text, str) else None

    async def scroll_into_view(self) -> None:
        """Ask for it to be shown, where its program can."""
        await self._ask(of("Component", "ScrollTo", "u", 6))  # ANYWHERE

    async def focus(self) -> None:
        """Give it the keyboard.

        Raises:
            WillNot: its program does not, or it does not take it.
        """
        await self._ask(of("Component", "GrabFocus"))
        deadline = time.monotonic() + _FOCUS_SECONDS
        while True:  # whether it was granted is not told rightly by all
            _, states, _ = await self.look()
            if states & words.FOCUSED:
                return
            if time.monotonic() > deadline:
                raise WillNot("it does not take the keyboard")
            await asyncio.sleep(_POLL_SECONDS)

    async def invoke(self, name: str | None) -> None:
        """Do its action of that name, or its first.

        Raises:
            WillNot: it has none, or does not do it. InvalidRequest: it has none of that name.
            TimedOut: its program does not answer.
        """
        names = await self._actions()
        number = 0
        if name is not None:
            fitting = [index for index, each in enumerate(names) if each == name.casefold()]
            if not fitting:
                there = ", ".join(repr(each[:60]) for each in names[:20] if each) or "none"
                raise InvalidRequest(
                    f"The element {self.id} has no action {name[:60]!r}.",
                    hint=f"Its actions are: {there}. Or click it.",
                )
            number = fitting[0]
        if not names:
            raise WillNot("it has no actions")
        await self._done(of("Action", "DoAction", "i", number))

    async def _actions(self) -> list[str]:
        (count,) = await self._ask(get("Action", "NActions"))
        if not isinstance(count, int) or count < 0:
            return []
        asked = [of("Action", "GetName", "i", number) for number in range(min(count, _MAX_ACTIONS))]
        told = await self._ask(*asked)
        return [each.casefold() if isinstance(each, str) else "" for each in told]

    async def set_value(self, value: str | float) -> None:
        """Set its text or number, and see that it took it.

        Raises:
            InvalidRequest: it holds neither, or only numbers. TimedOut: it did not take it.
        """
        role, states, _ = await self.look()
        number, characters = await self._ask(_NUMBER, LENGTH)
        has_text = isinstance(characters, int) and _is_typed(role, states)
        if isinstance(number, float) and (not has_text or not isinstance(value, str)):
            await self._set_number(value)
        elif has_text:
            await self._set_text(value if isinstance(value, str) else f"{value:g}")
        else:
            raise InvalidRequest(
                f"The element {self.id} ({role}) holds nothing that can be set.",
                hint="Click it, or set the entry, slider or check box beside it.",
            )

    async def _set_number(self, value: str | float) -> None:
        try:
            wanted = float(value)
        except ValueError:
            raise InvalidRequest(
                f"The element {self.id} holds a number.", hint="Give a number."
            ) from None
        lowest, highest = await self._ask(
            get("Value", "MinimumValue"), get("Value", "MaximumValue")
        )
        if isinstance(lowest, float) and isinstance(highest, float) and lowest < highest:
            if not lowest <= wanted <= highest:
                raise InvalidRequest(
                    f"The element {self.id} takes {lowest:g} to {highest:g}, not {wanted:g}."
                )
        await self._done(put("Value", "CurrentValue", "d", wanted))
        await self._until_it_holds(self._number, wanted)

    async def _number(self) -> Value:
        return (await self._ask(_NUMBER))[0]

    async def _set_text(self, text: str) -> None:
        await self._done(of("EditableText", "SetTextContents", "s", text))
        await self.has_text(text)

    async def takes_typing(self) -> tuple[str, bool]:
        """Its role, and whether one types into it."""
        role, states, _ = await self.look()
        return role, _is_typed(role, states)

    async def selects(self) -> None:
        """Return once some of its text is selected, if it has any; at last after a moment.

        Browsers take keys and clicks by different ways: what comes next might overtake them.
        """
        deadline = time.monotonic() + _SELECT_SECONDS
        while time.monotonic() < deadline:
            length, count = await self._ask(LENGTH, of("Text", "GetNSelections"))
            if not isinstance(length, int) or length <= 0 or count:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def has_text(self, text: str) -> None:
        """Return once it holds that text; TimedOut if it does not. A password's is not read."""
        role, _, _ = await self.look()
        if role != "password text":
            await self._until_it_holds(lambda: self._text(_MAX_READ), text)

    async def _done(self, method: Method) -> None:
        try:
            answer = await self.program.answer(self._path, method, _SECONDS)
        except Gone as error:
            raise self.gone() from error
        except Silent as error:  # not to be done again by other means
            raise TimedOut(
                f"The program of the element {self.id} has not answered.",
                hint="It may have done what was asked: look at it before you go on.",
            ) from error
        except Refused as error:
            raise WillNot(str(error)) from error
        if answer and answer[0] in (False, 0):
            raise WillNot("its program does not do it")

    async def _until_it_holds(
        self, reading: Callable[[], Awaitable[Value]], wanted: str | float
    ) -> None:
        deadline = time.monotonic() + _HOLDS_SECONDS
        while True:
            held = await reading()
            if _is_same(held, wanted):
                return
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"The element {self.id} was set, but holds {_shown(held)}.",
                    hint="Its program changed what it was given, or is busy: look at it again.",
                )
            await asyncio.sleep(_POLL_SECONDS)


def _values(told: Sequence[tuple[Value, ...] | None]) -> list[Value]:
    """Each answer without the tuple around it; None for what is no single value."""
    return [None if each is None or len(each) != 1 else each[0] for each in told]


def _is_same(held: Value, wanted: Value) -> bool:
    if isinstance(wanted, float):
        return isinstance(held, float) and abs(held - wanted) <= 1e-6 * max(1.0, abs(wanted))
    # Some texts end with a line's end of their own.
    return isinstance(held, str) and held.rstrip("\n") == str(wanted).rstrip("\n")


def _shown(held: Value) -> str:
    if isinstance(held, str):
        return f"{len(held)} other characters"
    return f"{held:g}" if isinstance(held, float) else "nothing that can be read"


def _is_typed(role: str, states: int) -> bool:
    return bool(states & words.EDITABLE) and role not in words.TABLES | words.WINDOWS
