"""A window over the whole screen that changes its colour when it is pressed.

Prints ``ready`` when it is on the screen, and then a line of JSON for each press and release: where
they were, and how many motions came in between.
"""

from __future__ import annotations

import json
from typing import Any

import xcffib
import xcffib.xproto as x

COLOURS = (0x1F3A5F, 0xE0B040)


def main() -> None:
    connection: Any = xcffib.connect()  # Any: xcffib carries no types
    screen = connection.get_setup().roots[connection.pref_screen]
    window = connection.generate_id()
    events = x.EventMask.ButtonPress | x.EventMask.ButtonRelease | x.EventMask.ButtonMotion
    connection.core.CreateWindow(
        screen.root_depth, window, screen.root, 0, 0,
        screen.width_in_pixels, screen.height_in_pixels, 0,
        x.WindowClass.InputOutput, screen.root_visual,
        x.CW.BackPixel | x.CW.OverrideRedirect | x.CW.EventMask,
        [COLOURS[0], 1, events | x.EventMask.Exposure],
    )  # fmt: skip
    connection.core.MapWindow(window)
    connection.flush()
    presses, motions, pressed = 0, 0, (0, 0)
    while True:
        event = connection.wait_for_event()
        if isinstance(event, x.ExposeEvent) and not presses and event.count == 0:
            print("ready", flush=True)
        elif isinstance(event, x.ButtonPressEvent):
            presses, motions, pressed = presses + 1, 0, (event.root_x, event.root_y)
            colour = COLOURS[presses % 2]
            connection.core.ChangeWindowAttributes(window, x.CW.BackPixel, [colour])
            connection.core.ClearArea(False, window, 0, 0, 0, 0)
            connection.flush()
        elif isinstance(event, x.MotionNotifyEvent):
            motions += 1
        elif isinstance(event, x.ButtonReleaseEvent):
            released = (event.root_x, event.root_y)
            print(json.dumps([pressed, released, motions]), flush=True)


if __name__ == "__main__":
    main()
