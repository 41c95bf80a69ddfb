"""What we offer to other programs: the owner's side of a selection (ICCCM 2.0, section 2.2).

A program that pastes asks the owner for a target and is given a property of its own window; what
is long goes in pieces (INCR, section 2.7.2).

On failure: a program that asks and stops reading is forgotten after :data:`TRANSFER_SECONDS`;
what is asked for and not offered is refused, as the protocol has it.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Any

from xcffib import xproto

from workspace.desktopd.x11.contents import Contents
from workspace.desktopd.x11.display import Display

TRANSFER_SECONDS = 10.0
_PIECE = 64 << 10
_MAX_TRANSFERS = 16


@dataclass
class Offer:
    """What we offer while we own a selection; ``taken`` is set once a program has got some of it.

    The VNC server, which reads for its viewers what is copied, is no such program.
    """

    contents: Contents
    since: int  # server time from which we own it
    taken: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class _Transfer:
    """Something on its way to another program, piece by piece."""

    offer: Offer
    data: memoryview
    kind: int
    timer: asyncio.TimerHandle


class Offers:
    """Our offers on one display, by the selection's atom; made from our own ``window``."""

    def __init__(self, display: Display, window: int) -> None:
        self._display = display
        self._window = window
        self._loop = asyncio.get_running_loop()
        # The bits of an id that are not its client's; those of the server itself have no others.
        self._own_bits: int = display.connection.setup.resource_id_mask
        self._offers: dict[int, Offer] = {}
        self._transfers: dict[tuple[int, int], _Transfer] = {}
        display.subscribe(xproto.SelectionRequestEvent, self._on_request)
        display.subscribe(xproto.SelectionClearEvent, self._on_clear)
        display.subscribe(xproto.PropertyNotifyEvent, self._on_property)

    def close(self) -> None:
        for transfer in self._transfers.values():
            transfer.timer.cancel()
        self._transfers.clear()

    def current(self, selection: int) -> Offer | None:
        """What we offer there now; None if the selection is not ours."""
        return self._offers.get(selection)

    def offer(self, selection: int, contents: Contents, time: int) -> Offer:
        """Own a selection from the server's ``time`` on."""
        offer = self._offers[selection] = Offer(contents, time)
        self._display.core.SetSelectionOwner(self._window, selection, time)
        self._display.sync()
        return offer

    def give_up(self, selection: int, time: int) -> None:
        """Leave a selection without an owner, whoever owns it now."""
        self._offers.pop(selection, None)
        self._display.core.SetSelectionOwner(0, selection, time)
        self._display.sync()

    # Any, here and below: xcffib carries no types.
    def _on_clear(self, event: Any) -> None:
        offer = self._offers.get(event.selection)
        # Server times wrap around; the one of before a newer offer of ours ends nothing.
        if offer is not None and (event.time - offer.since) & 0xFFFFFFFF < 0x80000000:
            del self._offers[event.selection]

    def _on_request(self, event: Any) -> None:
        # A requestor of the oldest kind names no property: the target stands for it.
        name = event.property or event.target
        answered = self._serve(event.selection, event.requestor, name, event.target)
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

    def _serve(self, selection: int, requestor: int, name: int, target: int) -> bool:
        atom = self._display.atom
        offer = self._offers.get(selection)
        if offer is None:
            return False
        offered = {atom(each): (each, data) for each, data in offer.contents.offered().items()}
        if target == atom("TARGETS"):
            targets = [atom("TARGETS"), atom("TIMESTAMP"), *offered]
            packed = struct.pack(f"={len(targets)}I", *targets)
            self._write(requestor, name, atom("ATOM"), 32, packed)
        elif target == atom("TIMESTAMP"):
            self._write(requestor, name, atom("INTEGER"), 32, struct.pack("=I", offer.since))
        elif target in offered:
            each, data = offered[target]
            kind = atom("UTF8_STRING") if each == "TEXT" else target
            return self._send(offer, requestor, name, kind, data)
        else:
            return False
        return True

    def _write(self, window: int, name: int, kind: int, bits: int, data: bytes) -> None:
        # The view as single bytes is what xcffib packs without a list of numbers.
        values = memoryview(data).cast("c") if data else b""
        self._display.core.ChangeProperty(
            xproto.PropMode.Replace, window, name, kind, bits, len(data) * 8 // bits, values
        )

    def _send(self, offer: Offer, requestor: int, name: int, kind: int, data: bytes) -> bool:
        if len(data) <= _PIECE:
            self._write(requestor, name, kind, 8, data)
            self._give(offer, requestor)
            return True
        if len(self._transfers) >= _MAX_TRANSFERS:
            return False
        # The requestor deletes the property whenever it has read it; that asks for more.
        try:
            known = self._display.reply(self._display.core.GetWindowAttributes(requestor))
        except xproto.WindowError:
            return False
        events = known.your_event_mask | xproto.EventMask.PropertyChange
        self._display.core.ChangeWindowAttributes(requestor, xproto.CW.EventMask, [events])
        expiry = self._expiry(requestor, name)
        self._keep(requestor, name, _Transfer(offer, memoryview(data), kind, expiry))
        size = struct.pack("=I", len(data))
        self._write(requestor, name, self._display.atom("INCR"), 32, size)
        return True

    def _keep(self, requestor: int, name: int, transfer: _Transfer) -> None:
        before = self._transfers.get((requestor, name))
        if before is not None:
            before.timer.cancel()
        self._transfers[requestor, name] = transfer

    def _expiry(self, requestor: int, name: int) -> asyncio.TimerHandle:
        return self._loop.call_later(TRANSFER_SECONDS, self._transfers.pop, (requestor, name), None)

    def _on_property(self, event: Any) -> None:
        if event.state != xproto.Property.Delete:
            return
        transfer = self._transfers.get((event.window, event.atom))
        if transfer is not None:
            self._continue(event.window, event.atom, transfer)

    def _continue(self, requestor: int, name: int, transfer: _Transfer) -> None:
        piece, rest = transfer.data[:_PIECE], transfer.data[_PIECE:]
        self._write(requestor, name, transfer.kind, 8, bytes(piece))
        if piece:
            expiry = self._expiry(requestor, name)
            self._keep(requestor, name, _Transfer(transfer.offer, rest, transfer.kind, expiry))
        else:  # an empty piece is the end
            transfer.timer.cancel()
            del self._transfers[requestor, name]
            self._give(transfer.offer, requestor)

    def _give(self, offer: Offer, requestor: int) -> None:
        if requestor & ~self._own_bits:
            offer.taken.set()
