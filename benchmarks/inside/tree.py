"""The accessibility tree as OSWorld reads it: pyatspi node by node, without a budget.

Run by the system's own Python, which has pyatspi: ``python3 -m benchmarks.inside.tree COUNT``.
Prints ``{"samples": [milliseconds, ...], "nodes": how many}``.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import xml.etree.ElementTree as xml
from contextlib import suppress
from typing import Any

DEPTH, WIDTH = 50, 1024
GLib: Any = importlib.import_module("gi.repository.GLib")  # Any: it carries no types


def node(pyatspi: Any, found: Any, depth: int) -> xml.Element:  # Any: pyatspi carries no types
    """One accessible and all below it, with all that can be asked of it."""
    element = xml.Element("node", role=found.getRoleName(), name=found.name)
    for state in found.getState().get_states():
        element.set(str(pyatspi.stateToString(state)), "true")
    for attribute in found.getAttributes():
        key, _, told = attribute.partition(":")
        element.set("attr." + key, told)
    for interface in (component, text, value, action):
        with suppress(NotImplementedError):
            interface(pyatspi, found, element)
    if depth < DEPTH:
        for index, child in enumerate(found):
            if index >= WIDTH:
                break
            if child is not None:
                element.append(node(pyatspi, child, depth + 1))
    return element


def component(pyatspi: Any, found: Any, element: xml.Element) -> None:  # Any: as above
    box = found.queryComponent().getExtents(pyatspi.XY_SCREEN)
    element.set("screencoord", str((box.x, box.y)))
    element.set("size", str((box.width, box.height)))


def text(pyatspi: Any, found: Any, element: xml.Element) -> None:  # Any: as above
    read = found.queryText()
    element.text = read.getText(0, read.characterCount).replace("\ufffc", "")


def value(pyatspi: Any, found: Any, element: xml.Element) -> None:  # Any: as above
    read = found.queryValue()
    for name in ("currentValue", "minimumValue", "maximumValue", "minimumIncrement"):
        with suppress(GLib.GError):  # the program says that it has one, and has none
            element.set(name, str(getattr(read, name)))


def action(pyatspi: Any, found: Any, element: xml.Element) -> None:  # Any: as above
    read = found.queryAction()
    for index in range(read.nActions):
        element.set("action." + read.getName(index), read.getDescription(index))
        element.set("keybinding." + read.getName(index), read.getKeyBinding(index))


def main(count: str) -> None:
    pyatspi = importlib.import_module("pyatspi")
    samples, nodes = [], 0
    for _ in range(int(count)):
        begin = time.perf_counter()
        root = xml.Element("desktop-frame")
        for application in pyatspi.Registry.getDesktop(0):
            root.append(node(pyatspi, application, 1))
        xml.tostring(root)
        samples.append((time.perf_counter() - begin) * 1000)
        nodes = sum(1 for _ in root.iter())
    print(json.dumps({"samples": samples, "nodes": nodes}))


if __name__ == "__main__":
    main(sys.argv[1])
