"""What toolkits ask of the desktop: theme, icons, fonts, dots per inch; told to all, and live.

The XSETTINGS protocol (freedesktop.org, 0.5): the owner of the selection ``_XSETTINGS_S0`` keeps
them in a property of its window, and programs watch that. Programs without a toolkit read the
X resources (``RESOURCE_MANAGER``), when they start. desktopd does both itself, as no window manager
of ours does: a settings daemon would be one more program in every desktop.

On failure: another settings daemon that takes the selection is let be.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from xcffib import xproto

from workspace.desktopd.x11.display import Display

_SETTINGS = "_XSETTINGS_SETTINGS"
_INTEGER, _STRING = 0, 1
_LITTLE_ENDIAN = 0

Value = int | str


def packed(settings: Mapping[str, Value], serial: int) -> bytes:
    """The property's bytes; every setting is as new as ``serial``."""
    parts = [struct.pack("<B3xII", _LITTLE_ENDIAN, serial, len(settings))]
    for name, value in sorted(settings.items()):
        kind = _INTEGER if isinstance(value, int) else _STRING
        key = name.encode("ascii")
        parts.append(struct.pack("<BxH", kind, len(key)) + _padded(key) + struct.pack("<I", serial))
        if isinstance(value, int):
            parts.append(struct.pack("<i", value))
        else:
            text = value.encode()
            parts.append(struct.pack("<I", len(text)) + _padded(text))
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class XSettings:
    """The settings of one display; they last as long as its connection."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._serial = 0
        self._window: int = display.connection.generate_id()
        display.core.CreateWindow(
            0, self._window, display.root, -1, -1, 1, 1, 0,
            xproto.WindowClass.InputOnly, 0, xproto.CW.OverrideRedirect, [1],
        )  # fmt: skip

    def tell(self, settings: Mapping[str, Value], resources: Mapping[str, str]) -> None:
        """Have every program see these, and no others."""
        display, core = self._display, self._display.core
        data = packed(settings, self._serial)
        self._change(self._window, _SETTINGS, display.atom(_SETTINGS), data)
        lines = "".join(f"{name}:\t{value}\n" for name, value in sorted(resources.items()))
        self._change(display.root, "RESOURCE_MANAGER", xproto.Atom.STRING, lines.encode())
        if self._serial == 0:
            selection = display.atom("_XSETTINGS_S0")
            core.SetSelectionOwner(self._window, selection, 0)
            manager = display.atom("MANAGER")
            news = struct.pack(
                "=BBHII5I", 33, 32, 0, display.root, manager, 0, selection, self._window, 0, 0
            )
            core.SendEvent(False, display.root, xproto.EventMask.StructureNotify, news)
        self._serial += 1
        display.sync()

    def _change(self, window: int, name: str, kind: int, data: bytes) -> None:
        mode = xproto.PropMode.Replace
        self._display.core.ChangeProperty(
            mode, window, self._display.atom(name), kind, 8, len(data), data
        )
