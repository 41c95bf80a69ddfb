"""From the elements that were read to those that are told: what has no meaning of its own goes,
and what was in it moves up. Pure, but that elements are given their ids here (:class:`Ids`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from workspace.actions import Region
from workspace.desktopd.accessibility import words
from workspace.desktopd.accessibility.placing import Box, is_covered
from workspace.desktopd.accessibility.programs import Ref
from workspace.desktopd.accessibility.reading import Node
from workspace.elements import Element

_MAX_IDS = 20_000
_LAYOUT = {
    "filler", "panel", "root pane", "section", "viewport", "scroll pane", "split pane", "separator",
    "scroll bar", "layered pane", "glass pane", "redundant object", "unknown",
    "static", "label", "paragraph", "image", "invalid", "extended",
}  # fmt: skip
_SAYING_TWICE = {"static", "label"}


class Known(NamedTuple):
    """What is remembered of an element that was told."""

    ref: Ref
    shift: tuple[int, int]
    window: int | None


class Ids:
    """The ids of elements: short, one for each as long as it lives, and not too many.

    Those that were told longest ago are forgotten first; a number is never given again.
    """

    def __init__(self, most: int = _MAX_IDS) -> None:
        self._most = most
        self._last = 0
        self._ids: dict[Ref, str] = {}
        self._known: OrderedDict[str, Known] = OrderedDict()

    def of(self, ref: Ref, shift: tuple[int, int] = (0, 0), window: int | None = None) -> str:
        known = self._ids.get(ref)
        if known is None:
            self._last += 1
            known = self._ids[ref] = f"e{self._last}"
        if known not in self._known or window is not None:
            self._known[known] = Known(ref, shift, window)
        self._known.move_to_end(known)
        if len(self._known) > self._most:
            _, forgotten = self._known.popitem(last=False)
            del self._ids[forgotten.ref]
        return known

    def get(self, element: str) -> Known | None:
        return self._known.get(element)


def is_told(node: Node) -> bool:
    """Whether a model has use for it, and not only for what is in it."""
    if node.parent is None or node.states & words.FOCUSED:
        return True
    if node.is_cell or node.role == "table cell":
        return bool(node.text or (node.name and not node.is_cell) or node.states & words.SELECTED)
    if node.role in _LAYOUT:
        return bool(node.name) and not _repeats(node) and node.role not in ("scroll bar", "panel")
    return bool(node.name or node.text) or node.role in words.TOLD or _is_editable(node)


def _repeats(node: Node) -> bool:
    """Whether it says only what the element that it is in has said."""
    parent = node.parent
    while parent is not None and not parent.name and parent.role in _LAYOUT:
        parent = parent.parent
    return node.role in _SAYING_TWICE and parent is not None and node.name in parent.name


def _is_editable(node: Node) -> bool:
    return bool(node.states & words.EDITABLE and node.states & words.FOCUSABLE)


def is_in_reach(node: Node) -> bool:
    """Whether one can click it: it does something, and its middle is not behind a window."""
    if node.box is None or node.role not in words.ACTIONABLE:
        return False
    middle = Box(*node.box.centre, 1, 1)
    is_usable = node.states & (words.SENSITIVE | words.ENABLED) and node.states & words.SHOWING
    return bool(is_usable) and middle.is_in(node.clip) and not is_covered(middle, node.covers)


def outlined(
    roots: Iterable[Node], ids: Ids, is_kept: Callable[[Node], bool] = is_told
) -> list[Element]:
    """The nodes that are kept, in order, as elements of a tree of their own."""
    elements: list[Element] = []
    waiting: list[tuple[Node, str | None, int]] = [(root, None, 0) for root in roots]
    waiting.reverse()
    while waiting:
        node, parent, depth = waiting.pop()
        if is_kept(node):
            told = element(node, ids, parent, depth)
            elements.append(told)
            parent, depth = told.id, depth + 1
        waiting.extend((child, parent, depth) for child in reversed(node.children))
    return elements


def element(node: Node, ids: Ids, parent: str | None = None, depth: int = 0) -> Element:
    """A node as it is told, with its id."""
    box = node.box
    region = None
    if box is not None:
        region = Region.model_construct(x=box.x, y=box.y, width=box.width, height=box.height)
    return Element.model_construct(
        id=ids.of(node.ref, node.shift, node.window),
        role=node.role,
        name=node.name,
        text=node.text,
        value=node.value,
        states=words.state_names(node.states),
        box=region,
        depth=depth,
        parent=parent,
        window=node.window,
    )


class Wanted(NamedTuple):
    """What is looked for; each that is given must hold. Texts in whatever case."""

    role: str | None = None
    name: str | None = None
    text: str | None = None

    def fits(self, node: Node) -> bool:
        if self.role is not None and node.role != _as_role(self.role):
            return False
        if self.name is not None and self.name.casefold() not in node.name.casefold():
            return False
        if self.text is None:
            return True
        said = f"{node.name}\n{node.text or ''}".casefold()
        return self.text.casefold() in said


def _as_role(name: str) -> str:
    role = name.strip().casefold().replace("_", " ").replace("-", " ")
    return {"push button": "button", "textbox": "entry", "checkbox": "check box"}.get(role, role)


def matching(roots: Iterable[Node], wanted: Wanted, limit: int) -> Iterator[Node]:
    """The nodes that fit, in order, without those that only repeat what they are in."""
    found = 0
    for root in roots:
        for node in root.all():
            if found >= limit:
                return
            if wanted.fits(node) and not _repeats(node):
                found += 1
                yield node
