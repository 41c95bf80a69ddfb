"""A window over the whole screen that changes its colour when it is pressed.

Prints ``ready`` when it is on the screen.
"""

from __future__ import annotations

from typing import Any

import xcffib
import xcffib.xproto as x

COLOURS = (0x1F3A5F, 0xE0B040)


def main() -> None:
    connect: Any = xcffib.connect  # Any: xcffib carries no types
    connection = connect()
    screen = connection.get_setup().roots[connection.pref_screen]
    window = connection.generate_id()
    connection.core.CreateWindow(
        screen.root_depth, window, screen.root, 0, 0,
        screen.width_in_pixels, screen.height_in_pixels, 0,
        x.WindowClass.InputOutput, screen.root_visual,
        x.CW.BackPixel | x.CW.OverrideRedirect | x.CW.EventMask,
        [COLOURS[0], 1, x.EventMask.ButtonPress | x.EventMask.Exposure],
    )  # fmt: skip
    connection.core.MapWindow(window)
    connection.flush()
    presses = 0
    while True:
        event = connection.wait_for_event()
        if isinstance(event, x.ExposeEvent) and not presses and event.count == 0:
            print("ready", flush=True)
        elif isinstance(event, x.ButtonPressEvent):
            presses += 1
            colour = COLOURS[presses % 2]
            connection.core.ChangeWindowAttributes(window, x.CW.BackPixel, [colour])
            connection.core.ClearArea(False, window, 0, 0, 0, 0)
            connection.flush()


if __name__ == "__main__":
    main()
