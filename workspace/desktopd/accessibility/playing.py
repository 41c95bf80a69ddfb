"""The actions that name an element, each with what is done where its program refuses.

What a program does not do by itself is done as a person would: by a click on it, and by keys. An
error says so of an element that is gone, or that holds something else than it was given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from workspace import actions as a
from workspace.desktopd.accessibility.acting import WillNot
from workspace.desktopd.accessibility.tree import Accessibility
from workspace.errors import InvalidRequest

ElementAction = a.FocusElement | a.SetValue | a.Invoke
Play = Callable[[a.Action], Awaitable[object]]


async def play(accessibility: Accessibility, action: ElementAction, act: Play) -> None:
    """Do one of them; ``act`` plays the mouse and the keys where that is needed.

    Raises:
        ElementNotFound: it is gone, or nowhere on the screen.
        InvalidRequest: it has no such action, or holds nothing of that kind.
        TimedOut: it was set, and holds something else.
    """
    match action:
        case a.FocusElement(element=element):
            await _focus(accessibility, element, act)
        case a.SetValue(element=element, value=value):
            await _set_value(accessibility, element, value, act)
        case a.Invoke(element=element, name=name):
            await _invoke(accessibility, element, name, act)


async def _focus(accessibility: Accessibility, element: str, act: Play) -> None:
    handle = await accessibility.handle(element)
    await handle.look()
    await accessibility.raise_window(element)
    try:
        await handle.focus()
    except WillNot:
        await act(a.Click(element=element))


async def _set_value(
    accessibility: Accessibility, element: str, value: str | float, act: Play
) -> None:
    handle = await accessibility.handle(element)
    try:
        await handle.set_value(value)
    except WillNot as refusal:
        role, is_typed = await handle.takes_typing()
        if not is_typed:
            raise InvalidRequest(
                f"The element {element} ({role}) does not let itself be set: {refusal}.",
                hint="Click it, or use the keyboard.",
            ) from refusal
        await _focus(accessibility, element, act)
        await act(a.Key(chord="ctrl+a"))
        await handle.selects()
        text = value if isinstance(value, str) else f"{value:g}"
        await act(a.Type(text=text) if text else a.Key(chord="BackSpace"))
        await handle.has_text(text)


async def _invoke(accessibility: Accessibility, element: str, name: str | None, act: Play) -> None:
    handle = await accessibility.handle(element)
    await handle.look()
    try:
        await handle.invoke(name)
    except WillNot as refusal:
        if name is not None:
            raise InvalidRequest(
                f"The element {element} does not do {name[:60]!r}: {refusal}.", hint="Click it."
            ) from refusal
        await act(a.Click(element=element))
