"""The text of CLIPBOARD: offered to other programs, and asked of them (ICCCM 2.0, section 2).

X has no clipboard of its own: whoever copied last owns the selection and is asked for it. Long
texts go in pieces (INCR, section 2.7.2), both ways.

On failure: an owner that does not answer is ``TimedOut``, a text beyond :data:`MAX_BYTES` is
``TooLarge``. A program that asks for our text and stops reading it is forgotten after
:data:`TRANSFER_SECONDS`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from xcffib import xproto

from workspace.desktopd.x11.display import Display
from workspace.errors import TooLarge

MAX_BYTES = 16 << 20
TRANSFER_SECONDS = 10.0
_PIECE = 64 << 10
_MAX_TRANSFERS = 16
_TEXT_TARGETS = ("UTF8_STRING", "text/plain;charset=utf-8", "text/plain", "TEXT")
_OURS = "_CARREL_CLIPBOARD"
T = TypeVar("T")


@dataclass
class _Transfer:
    """A text on its way to another program, piece by piece."""

    data: memoryview
    target: int
    timer: asyncio.TimerHandle


class Clipboard:
    """The clipboard of one display, seen from a window of our own that is never shown."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._loop = asyncio.get_running_loop()
        self._text: bytes | None = None  # what we offer while we own the selection
        self._since = 0  # server time from which we own it
        self._time = 0  # the last server time seen
        self._pieces = 0  # how often our property was written since it was reset
        self._answer: Any | None = None  # Any: xcffib carries no types
        self._transfers: dict[tuple[int, int], _Transfer] = {}
        self._reading = asyncio.Lock()
        self._window: int = display.connection.generate_id()
        display.core.CreateWindow(
            0,
            self._window,
            display.root,
            *(-1, -1, 1, 1, 0),
            xproto.WindowClass.InputOnly,
            0,
            xproto.CW.EventMask,
            [xproto.EventMask.PropertyChange],
            is_checked=True,
        ).check()
        display.subscribe(xproto.SelectionRequestEvent, self._on_request)
        display.subscribe(xproto.SelectionClearEvent, self._on_clear)
        display.subscribe(xproto.SelectionNotifyEvent, self._on_answer)
        display.subscribe(xproto.PropertyNotifyEvent, self._on_property)

    def close(self) -> None:
        for transfer in self._transfers.values():
            transfer.timer.cancel()
        self._transfers.clear()

    # Ours to others.

    def set(self, text: str) -> None:
        """Offer ``text`` to whoever pastes.

        Raises:
            TooLarge: it has more than :data:`MAX_BYTES`.
        """
        data = text.encode("utf-8", "replace")
        if len(data) > MAX_BYTES:
            raise TooLarge(f"The text has {len(data)} bytes; the clipboard takes {MAX_BYTES}.")
        display = self._display
        with display.talking():
            self._touch()
            display.sync()
            display.pump()  # brings the server's time, which the selection is owned from
            self._text, self._since = data, self._time
            display.core.SetSelectionOwner(self._window, display.atom("CLIPBOARD"), self._since)
            display.sync()

    def _touch(self) -> None:
        """Append nothing to a property: its event tells the server's time (ICCCM, 2.1)."""
        atom = self._display.atom("_CARREL_TIME")
        string = self._display.atom("STRING")
        self._display.core.ChangeProperty(
            xproto.PropMode.Append, self._window, atom, string, 8, 0, b""
        )

    # Any, here and below: xcffib carries no types.
    def _on_clear(self, event: Any) -> None:
        if event.selection == self._display.atom("CLIPBOARD"):
            self._text = None

    def _on_request(self, event: Any) -> None:
        # A requestor of the oldest kind names no property: the target stands for it.
        name = event.property or event.target
        answered = self._serve(event.requestor, name, event.target)
        answer = struct.pack(
            "=BxHIIIII8x",
            31,  # SelectionNotify
            0,
            event.time,
            event.requestor,
            event.selection,
            event.target,
            name if answered else 0,
        )
        self._display.core.SendEvent(False, event.requestor, 0, answer)

    def _serve(self, requestor: int, name: int, target: int) -> bool:
        atom = self._display.atom
        if self._text is None:
            return False
        if target == atom("TARGETS"):
            targets = [atom(each) for each in ("TARGETS", "TIMESTAMP", *_TEXT_TARGETS)]
            packed = struct.pack(f"={len(targets)}I", *targets)
            self._write(requestor, name, atom("ATOM"), 32, packed)
        elif target == atom("TIMESTAMP"):
            self._write(requestor, name, atom("INTEGER"), 32, struct.pack("=I", self._since))
        elif target in [atom(each) for each in _TEXT_TARGETS]:
            kind = atom("UTF8_STRING") if target == atom("TEXT") else target
            return self._send(requestor, name, kind, self._text)
        else:
            return False
        return True

    def _write(self, window: int, name: int, kind: int, bits: int, data: bytes) -> None:
        # The view as single bytes is what xcffib packs without a list of numbers.
        values = memoryview(data).cast("c") if data else b""
        self._display.core.ChangeProperty(
            xproto.PropMode.Replace, window, name, kind, bits, len(data) * 8 // bits, values
        )

    def _send(self, requestor: int, name: int, kind: int, text: bytes) -> bool:
        if len(text) <= _PIECE:
            self._write(requestor, name, kind, 8, text)
            return True
        if len(self._transfers) >= _MAX_TRANSFERS:
            return False
        # The requestor deletes the property whenever it has read it; that asks for more.
        self._display.core.ChangeWindowAttributes(
            requestor, xproto.CW.EventMask, [xproto.EventMask.PropertyChange]
        )
        self._keep(
            requestor, name, _Transfer(memoryview(text), kind, self._expiry(requestor, name))
        )
        size = struct.pack("=I", len(text))
        self._write(requestor, name, self._display.atom("INCR"), 32, size)
        return True

    def _keep(self, requestor: int, name: int, transfer: _Transfer) -> None:
        before = self._transfers.get((requestor, name))
        if before is not None:
            before.timer.cancel()
        self._transfers[requestor, name] = transfer

    def _expiry(self, requestor: int, name: int) -> asyncio.TimerHandle:
        return self._loop.call_later(TRANSFER_SECONDS, self._transfers.pop, (requestor, name), None)

    def _continue(self, requestor: int, name: int, transfer: _Transfer) -> None:
        piece, rest = transfer.data[:_PIECE], transfer.data[_PIECE:]
        self._write(requestor, name, transfer.target, 8, bytes(piece))
        if piece:
            expiry = self._expiry(requestor, name)
            self._keep(requestor, name, _Transfer(rest, transfer.target, expiry))
        else:  # an empty piece is the end
            transfer.timer.cancel()
            del self._transfers[requestor, name]

    # Others' to us.

    async def get(self, *, timeout: float = 5.0) -> str:
        """The clipboard's text; empty if it holds none.

        Raises:
            TimedOut: the program that owns it did not answer.
            TooLarge: it has more than :data:`MAX_BYTES`.
        """
        with self._display.talking():
            display, atom = self._display, self._display.atom
            async with self._reading:
                display.pump()
                if self._text is not None:
                    return self._text.decode("utf-8")
                deadline = self._loop.time() + timeout
                for target in ("UTF8_STRING", "STRING"):
                    owner = display.reply(display.core.GetSelectionOwner(atom("CLIPBOARD"))).owner
                    if not owner:
                        return ""
                    data = await self._ask(target, deadline)
                    if data is not None:
                        return data.decode(
                            "utf-8" if target == "UTF8_STRING" else "latin-1", "replace"
                        )
                return ""

    async def _ask(self, target: str, deadline: float) -> bytes | None:
        display, atom = self._display, self._display.atom
        self._answer, self._pieces = None, 0
        display.core.DeleteProperty(self._window, atom(_OURS))
        self._touch()
        display.sync()
        display.pump()
        selection = (self._window, atom("CLIPBOARD"), atom(target), atom(_OURS), self._time)
        asked = self._time
        display.core.ConvertSelection(*selection)
        display.sync()

        def answer() -> Any | None:  # Any: xcffib carries no types
            # The answer to an earlier question that was given up may still come.
            found = self._answer
            return found if found is not None and found.time == asked else None

        event = await self._wait(answer, deadline)
        if not event.property:
            return None
        self._pieces = 0
        found = self._take()
        if found is None:
            return None
        if found[0] != atom("INCR"):
            return found[1]
        return await self._take_pieces(deadline)

    async def _take_pieces(self, deadline: float) -> bytes:
        data = bytearray()
        while True:
            await self._wait(lambda: self._pieces or None, deadline)
            self._pieces = 0
            found = self._take()
            if found is None:
                continue
            if not found[1]:
                return bytes(data)
            data += found[1]
            if len(data) > MAX_BYTES:
                raise _too_large()

    def _take(self) -> tuple[int, bytes] | None:
        """Read and delete our property, which asks for the next piece if there is one."""
        found = self._display.property(self._window, _OURS, limit=MAX_BYTES + 4, delete=True)
        if found is not None and len(found[1]) > MAX_BYTES:
            raise _too_large()
        return found

    async def _wait(self, condition: Callable[[], T | None], deadline: float) -> T:
        left = max(0.0, deadline - self._loop.time())
        return await self._display.until(condition, left, "The clipboard's owner did not answer")

    def _on_answer(self, event: Any) -> None:
        if event.requestor == self._window:
            self._answer = event

    def _on_property(self, event: Any) -> None:
        new = event.state == xproto.Property.NewValue
        if event.window == self._window:
            self._time = event.time
            self._pieces += new and event.atom == self._display.atom(_OURS)
        elif not new:
            transfer = self._transfers.get((event.window, event.atom))
            if transfer is not None:
                self._continue(event.window, event.atom, transfer)


def _too_large() -> TooLarge:
    return TooLarge(
        f"The clipboard holds more than {MAX_BYTES} bytes.", hint="Have the program save a file."
    )
