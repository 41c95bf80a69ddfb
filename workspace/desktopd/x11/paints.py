"""What was painted on the screen since a moment, to know which pictures still hold (XDamage).

The server reports once that something was painted, and nothing more until it was asked what: a
busy screen costs one report per picture. The rectangles come along with what is asked next anyway,
and are looked at only when somebody wants to know them.

On failure: nothing here fails by itself; a broken connection is the caller's to hear of.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Any

import xcffib.damage
import xcffib.xfixes
import xcffib.xproto

from workspace.desktopd.x11.boxes import Box
from workspace.desktopd.x11.display import Display

MAX_VERSIONS = 64
MAX_BOXES = 64  # of one version; more than that are told as the box around them


class Paints:
    """Counts the screen's versions, and keeps where the last ones differ."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._version = 0
        self._first = 1  # the first of the versions that have this size
        self._is_painted = True
        self._history: deque[tuple[int, list[Box]]] = deque(maxlen=MAX_VERSIONS)
        self._asked: Any = None  # Any: xcffib's cookie; of the newest version's rectangles
        self._damage: int = display.connection.generate_id()
        self._parts: int = display.connection.generate_id()
        level = xcffib.damage.ReportLevel.NonEmpty
        display.damage.Create(self._damage, display.root, level, is_checked=True).check()
        display.xfixes.CreateRegion(self._parts, 0, [])
        display.subscribe(xcffib.damage.NotifyEvent, self._on_damage)
        display.subscribe(xcffib.xproto.ConfigureNotifyEvent, self._on_configure)

    def version(self) -> int:
        """A number that stays the same while nothing is painted.

        It is that of what the server had done at the last round trip before. Pixels read after
        this call are of that version or of a later one, never of an earlier.
        """
        self._display.pump()
        if self._is_painted:
            self._is_painted = False  # before the subtraction: a late report counts once more
            self._collect()  # its answer came with that of the picture after it
            self._version += 1
            self._display.damage.Subtract(self._damage, 0, self._parts)
            self._asked = self._display.xfixes.FetchRegion(self._parts)
        return self._version

    def since(self, version: int) -> list[Box] | None:
        """Where it was painted on after that version until this one; None if nobody knows.

        Pixels outside of it that were read at ``version`` are still right.
        """
        self._collect()
        if version < self._first:
            return None
        after = [(number, boxes) for number, boxes in self._history if number > version]
        if len(after) != self._version - version:
            return None
        return [box for _, boxes in after for box in boxes]

    def _collect(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            self._history.append((self._version, _boxes(self._display.raw_reply(asked))))

    def _on_damage(self, event: Any) -> None:  # Any: xcffib carries no types
        if event.damage == self._damage:
            self._is_painted = True

    def _on_configure(self, event: Any) -> None:  # Any: as above
        self._is_painted = True
        if event.window == self._display.root:
            self._first = self._version + 1


def _boxes(reply: memoryview) -> list[Box]:
    """The rectangles of a FetchRegion reply (XFIXES 6.0, section 10), or the one around them."""
    count = (len(reply) - 32) // 8
    data = reply[8:16] if count > MAX_BOXES else reply[32 : 32 + count * 8]
    return [(x, y, x + w, y + h) for x, y, w, h in struct.iter_unpack("=hhHH", data)]
