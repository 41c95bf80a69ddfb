"""The selections CLIPBOARD and PRIMARY: offered to other programs, and asked of them.

X has no clipboard of its own: whoever copied last owns the selection and is asked for it (ICCCM
2.0, section 2). Here that is asked and answered from a window that is never shown, so no program
loses the focus. What is long goes in pieces (INCR, section 2.7.2), both ways.

On failure: an owner that does not answer is ``TimedOut``, contents beyond :data:`MAX_BYTES` are
``TooLarge``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from xcffib import xproto

from workspace.desktopd.x11.contents import KEPT, LATIN_1, TEXT, Contents, wanted
from workspace.desktopd.x11.display import Display, as_numbers
from workspace.desktopd.x11.offers import Offer, Offers
from workspace.errors import TooLarge
from workspace.models import Selection

MAX_BYTES = 16 << 20
_MAX_TARGETS = 100
_MAX_NAMES, _MAX_NAME = 1000, 255
_PROPERTIES = 8
_ATOMS: dict[Selection, str] = {"clipboard": "CLIPBOARD", "primary": "PRIMARY"}
T = TypeVar("T")


class Clipboard:
    """Both selections of one display.

    To use one for a moment and leave it as it was::

        saved = await clipboard.contents()
        offer = clipboard.offer(Contents.of(text="..."))
        ...  # make a program paste; offer.taken is set once it has got the text
        clipboard.offer(saved)

    What another program had copied is then offered by us, in the forms of ``contents.KEPT``.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._loop = asyncio.get_running_loop()
        self._time = 0  # the last server time seen
        self._pieces = 0  # how often the property asked for was written since it was reset
        self._answer: Any | None = None  # Any: xcffib carries no types
        self._names: dict[int, str] = {}
        # A property of its own for each question: an answer given up may still be written.
        self._properties = itertools.cycle(f"_CARREL_CLIPBOARD_{n}" for n in range(_PROPERTIES))
        self._property = ""
        self._reading = asyncio.Lock()
        self._window = display.hidden_window()
        self._offers = Offers(display, self._window)
        display.subscribe(xproto.SelectionNotifyEvent, self._on_answer)
        display.subscribe(xproto.PropertyNotifyEvent, self._on_property)

    def close(self) -> None:
        self._offers.close()

    # Ours to others.

    def offer(self, contents: Contents, selection: Selection = "clipboard") -> Offer:
        """Offer ``contents`` to whoever pastes; empty ones leave the selection without an owner.

        Raises:
            TooLarge: they have more than :data:`MAX_BYTES`.
        """
        if contents.size > MAX_BYTES:
            raise TooLarge(f"That is {contents.size} bytes; the clipboard takes {MAX_BYTES}.")
        with self._display.talking():
            self._stamp()
            atom = self._display.atom(_ATOMS[selection])
            if not contents.parts:
                self._offers.give_up(atom, self._time)
                return Offer(contents, self._time)
            return self._offers.offer(atom, contents, self._time)

    def _stamp(self) -> None:
        """Learn the server's time: appending nothing to a property tells it (ICCCM, 2.1)."""
        atom, string = self._display.atom("_CARREL_TIME"), self._display.atom("STRING")
        self._display.core.ChangeProperty(
            xproto.PropMode.Append, self._window, atom, string, 8, 0, b""
        )
        self._display.sync()
        self._display.pump()

    # Others' to us.

    async def contents(
        self,
        selection: Selection = "clipboard",
        *,
        only: tuple[str, ...] = KEPT,
        timeout: float = 5.0,
    ) -> Contents:
        """What a selection holds of the targets ``only``; nothing if it has no owner.

        Raises:
            TimedOut: the program that owns it did not answer.
            TooLarge: it has more than :data:`MAX_BYTES`.
        """
        with self._display.talking():
            async with self._reading:
                atom = self._display.atom(_ATOMS[selection])
                self._display.sync()
                self._display.pump()  # brings the news that it is not ours any more
                ours = self._offers.current(atom)
                if ours is not None:
                    parts = {t: data for t, data in ours.contents.parts.items() if t in only}
                    return Contents(parts, ours.contents.targets)
                return await self._read(atom, only, self._loop.time() + timeout)

    async def _read(self, selection: int, only: tuple[str, ...], deadline: float) -> Contents:
        core = self._display.core
        if not self._display.reply(core.GetSelectionOwner(selection)).owner:
            return Contents()
        told = await self._ask(selection, "TARGETS", deadline)
        atoms = as_numbers(told and (told[0], told[1][: 4 * _MAX_TARGETS]))
        targets = self._named(atoms)
        parts: dict[str, bytes] = {}
        # The simplest programs have text and do not say so.
        for target in wanted(targets or (TEXT, LATIN_1), only):
            if TEXT in parts and target == LATIN_1:
                continue
            found = await self._ask(selection, target, deadline)
            if found is not None:
                parts[target] = found[1]
            if sum(map(len, parts.values())) > MAX_BYTES:
                raise _too_large()
        return Contents(parts, targets or tuple(parts))

    def _named(self, atoms: list[int]) -> tuple[str, ...]:
        """The names of atoms that another program told of, but for those that are none."""
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
        core = self._display.core
        asked = {atom: core.GetAtomName(atom) for atom in atoms if atom not in self._names}
        for atom, cookie in asked.items():
            try:
                name = self._display.reply(cookie).name.to_string()
                self._names[atom] = name[:_MAX_NAME]
            except (xproto.AtomError, xproto.ValueError, UnicodeDecodeError):
                continue
        return tuple(self._names[atom] for atom in atoms if atom in self._names)

    async def _ask(self, selection: int, target: str, deadline: float) -> tuple[int, bytes] | None:
        """One target, as (the atom of its type, bytes); None if the owner does not give it."""
        display, atom = self._display, self._display.atom
        self._property = next(self._properties)
        self._answer, self._pieces = None, 0
        display.core.DeleteProperty(self._window, atom(self._property))
        self._stamp()
        asked = self._time
        display.core.ConvertSelection(
            self._window, selection, atom(target), atom(self._property), asked
        )
        display.sync()

        def answer() -> Any | None:  # Any: xcffib carries no types
            # The answer to an earlier question that was given up may still come.
            found = self._answer
            is_it = found is not None and (found.time, found.target) == (asked, atom(target))
            return found if is_it else None

        event = await self._wait(answer, deadline)
        if not event.property:
            return None
        self._pieces = 0
        found = self._take()
        if found is not None and found[0] == atom("INCR"):
            return await self._take_pieces(deadline)
        return found

    async def _take_pieces(self, deadline: float) -> tuple[int, bytes]:
        data, kind = bytearray(), 0
        while True:
            await self._wait(lambda: self._pieces or None, deadline)
            self._pieces = 0
            found = self._take()
            if found is None:
                continue
            kind, piece = found
            if not piece:
                return kind, bytes(data)
            data += piece
            if len(data) > MAX_BYTES:
                raise _too_large()

    def _take(self) -> tuple[int, bytes] | None:
        """Read and delete our property, which asks for the next piece if there is one."""
        limit = MAX_BYTES + 4
        found = self._display.property(self._window, self._property, limit=limit, delete=True)
        if found is not None and len(found[1]) > MAX_BYTES:
            raise _too_large()
        return found

    async def _wait(self, condition: Callable[[], T | None], deadline: float) -> T:
        left = max(0.0, round(deadline - self._loop.time(), 2))
        return await self._display.until(condition, left, "The clipboard's owner did not answer")

    def _on_answer(self, event: Any) -> None:  # Any, here and below: xcffib carries no types
        if event.requestor == self._window:
            self._answer = event

    def _on_property(self, event: Any) -> None:
        if event.window == self._window:
            self._time = event.time
            new = event.state == xproto.Property.NewValue
            self._pieces += new and event.atom == self._display.atom(self._property)


def _too_large() -> TooLarge:
    return TooLarge(
        f"The clipboard holds more than {MAX_BYTES} bytes.", hint="Have the program save a file."
    )
