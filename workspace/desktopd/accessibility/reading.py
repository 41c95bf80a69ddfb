"""Reading the elements of programs, within bounds of number, depth and time.

The elements of a level are asked for all at once, and what they are comes before what is in them:
so nothing that cannot be seen (scrolled away, behind another window, in a closed menu) is read any
further, and a table of a thousand million cells is never asked for its children, only for those in
view. Each program is read by itself: one that does not answer leaves the others whole.

Never fails: what a program does not tell, or tells wrongly, is left out.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from workspace.desktopd.accessibility import placing, words
from workspace.desktopd.accessibility.bus import answers
from workspace.desktopd.accessibility.placing import Box
from workspace.desktopd.accessibility.programs import (
    Method,
    Program,
    Ref,
    accessible,
    as_ref,
    get,
    of,
)
from workspace.desktopd.accessibility.wire import Value
from workspace.elements import Cut
from workspace.models import Window

MAX_TEXT = 2000
MAX_NAME = 500
_MANY = 3000  # children that are asked for at once
_MANY_CELLS = 200  # of a table: a program makes an object for each that is asked for
_SOME = 500  # of how many that are too many, where it is not known which are in view
_MAX_INT = (1 << 31) - 1
_AT_ONCE = 800  # calls under way: what they take of memory is held to that
_LEAVES = {"static", "separator"}
_MAX_COLUMNS, _MAX_CELLS = 200, 2000
_CLIPPING = {"scroll pane", "viewport", "document web", "internal frame", "document spreadsheet"}

_ROLE, _STATE = accessible("GetRole"), accessible("GetState")
_CHILDREN, _INDEX = accessible("GetChildren"), accessible("GetIndexInParent")
_EXTENTS = of("Component", "GetExtents", "u", 0)  # 0: of the screen
_NAME, _COUNT = get("Accessible", "Name"), get("Accessible", "ChildCount")
_VALUE, LENGTH = get("Value", "CurrentValue"), get("Text", "CharacterCount")
_FIRST = (_ROLE, _STATE, _EXTENTS)


@dataclass(slots=True)
class Node:
    """An element as it was read."""

    ref: Ref
    parent: Node | None
    depth: int
    clip: Box  # where it could be seen
    covers: Sequence[Box] = ()
    window: int | None = None
    role: str = "unknown"
    states: int = 0
    told: Box | None = None  # its box as its program says
    shift: tuple[int, int] = (0, 0)
    count: int = 0
    name: str = ""
    text: str | None = None
    value: float | None = None
    is_cell: bool = False
    children: list[Node] = field(default_factory=list)

    @property
    def box(self) -> Box | None:
        return None if self.told is None else self.told.moved(self.shift)

    def all(self) -> Iterator[Node]:
        """It and all in it, each after its parent."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


def let_go(roots: Iterable[Node]) -> None:
    """Free what was read at once: parents and children hold each other."""
    for root in roots:
        for node in list(root.all()):
            node.parent = None
            node.children.clear()


@dataclass
class Budget:
    """What reading may cost; shared by all that is read for one answer."""

    max_nodes: int = 3000
    max_depth: int = 60
    seconds: float = 1.0
    cut: set[Cut] = field(default_factory=set)
    nodes: int = 0
    _began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self._began)

    @property
    def elapsed_ms(self) -> float:
        return round((time.monotonic() - self._began) * 1000, 2)

    def take(self, wanted: int) -> int:
        """How many nodes of those may be read."""
        given = max(0, min(wanted, self.max_nodes - self.nodes))
        if given < wanted:
            self.cut.add("max_nodes")
        self.nodes += given
        return given


@dataclass
class Scene:
    """What is known of the screen beside what programs tell: its size, and its windows."""

    screen: Box
    windows: Sequence[Window]
    only: int | None = None  # the one window that is asked for


async def read(programs: Sequence[Program], scene: Scene, budget: Budget) -> list[Node]:
    """The windows of the programs with what can be seen in them; the active one first."""
    only = next((each for each in scene.windows if each.id == scene.only), None)
    asked = [each for each in programs if only is None or each.pid in (only.pid, None)]
    found = await asyncio.gather(*(_Reader(each, scene, budget).read() for each in asked))
    roots = [root for several in found for root in several]
    layers = {window.id: window.layer for window in scene.windows}
    top = len(layers)
    return sorted(
        roots,
        key=lambda root: (
            not root.states & words.ACTIVE,
            -(layers[root.window] if root.window is not None else top),
        ),
    )


class _Reader:
    """Reads one program."""

    def __init__(self, program: Program, scene: Scene, budget: Budget) -> None:
        self._program = program
        self._scene = scene
        self._budget = budget
        self._seen: set[Ref] = {program.root}

    async def read(self) -> list[Node]:
        children = await self._ask([(self._program.root.path, _CHILDREN)])
        level = self._made(None, children[0])
        await self._look(level)
        await self._tell(level)
        roots = [node for node in level if self._place(node)]
        level = [node for node in roots if node.states & words.SHOWING]
        while level and self._budget.left > 0:
            level = await self._descend(level)
        if level:
            self._budget.cut.add("seconds")
        return [root for root in roots if root.window is not None or _says_anything(root)]

    async def _ask(self, asked: Sequence[tuple[str, Method]]) -> list[Value]:
        """What each answered, without the tuple around it; None for what did not."""
        told: list[tuple[Value, ...] | None] = []
        for start in range(0, len(asked), _AT_ONCE):
            replies = [self._program.ask(*each) for each in asked[start : start + _AT_ONCE]]
            told += await answers(replies, self._budget.left)
        if None in told and self._budget.left <= 0:
            self._budget.cut.add("seconds")
        return [None if each is None or len(each) != 1 else each[0] for each in told]

    # The levels.

    async def _descend(self, level: list[Node]) -> list[Node]:
        """Read what is in the nodes of a level; those of the next that can be seen come back."""
        there = await self._children(level)
        await self._look(there)
        seen = [node for node in there if self._is_seen(node)]
        await self._tell(seen)
        for node in seen:
            if node.parent is not None:
                node.parent.children.append(node)
        return seen

    async def _children(self, level: list[Node]) -> list[Node]:
        deep = [node for node in level if node.count > 0]
        if deep and deep[0].depth >= self._budget.max_depth:
            self._budget.cut.add("max_depth")
            return []
        few = [node for node in deep if node.count <= _many(node)]
        lists = await self._ask([(node.ref.path, _CHILDREN) for node in few])
        told = {id(node): self._made(node, refs) for node, refs in zip(few, lists, strict=True)}
        for node in deep:
            if id(node) not in told:
                told[id(node)] = await self._some_children(node)
        return [child for node in deep for child in told[id(node)]]

    def _made(self, parent: Node | None, refs: Value, *, are_cells: bool = False) -> list[Node]:
        """Nodes for the objects that a program named, as many as may be read."""
        if not isinstance(refs, list):
            return []
        new: list[Ref] = []
        for told in refs:
            ref = as_ref(told)
            # An object of another program (embedded there) is read with that program.
            if ref is None or ref.program != self._program.root.program or ref in self._seen:
                continue
            self._seen.add(ref)
            new.append(ref)
        given = self._budget.take(len(new))
        if parent is None:
            return [Node(ref, None, 0, self._scene.screen) for ref in new[:given]]
        return [
            Node(
                ref, parent, parent.depth + 1, _clip(parent), parent.covers, parent.window,
                is_cell=are_cells,
            )
            for ref in new[:given]
        ]  # fmt: skip

    async def _look(self, nodes: Sequence[Node]) -> None:
        """Read what each is and where."""
        told = await self._ask([(node.ref.path, method) for node in nodes for method in _FIRST])
        for number, node in enumerate(nodes):
            role, states, box = told[len(_FIRST) * number :][: len(_FIRST)]
            node.role = words.role_name(role)
            node.states = words.state_bits(states)
            node.told = placing.as_box(box)
            if node.parent is not None and node.told is not None:
                node.shift = placing.shifted(
                    node.parent.told, node.parent.shift, node.role, node.told
                )

    def _is_seen(self, node: Node) -> bool:
        if not node.states & words.SHOWING or node.states & words.DEFUNCT:
            return False
        box = node.box
        if box is None:
            return node.role != "menu bar"  # LibreOffice's own, which GTK's stands in for
        visible = box.within(node.clip)
        return visible is not None and not placing.is_covered(visible, node.covers)

    async def _tell(self, nodes: Sequence[Node]) -> None:
        """Read the names, texts and values."""
        asked: list[tuple[Node, Method]] = []
        for node in nodes:
            asked += [(node, method) for method in _details(node)]
        told = await self._ask([(node.ref.path, method) for node, method in asked])
        texts: list[tuple[Node, Method]] = []
        for (node, method), value in zip(asked, told, strict=True):
            if method is _NAME and isinstance(value, str):
                node.name = value[:MAX_NAME].strip()
            elif method is _COUNT and isinstance(value, int):
                node.count = max(0, value)
            elif method is _VALUE and isinstance(value, float) and math.isfinite(value):
                node.value = value
            elif method is LENGTH and isinstance(value, int):
                node.text = ""
                if value > 0:
                    texts.append((node, text_of(value, is_end=node.role == "terminal")))
        told = await self._ask([(node.ref.path, method) for node, method in texts])
        for (node, _), value in zip(texts, told, strict=True):
            if isinstance(value, str):
                node.text = value[:MAX_TEXT]

    # Windows.

    def _place(self, node: Node) -> bool:
        """Find the X window that a program's frame is; whether it is to be read."""
        windows = self._scene.windows
        window = placing.window_of(node.name, node.told, self._program.pid, windows)
        if self._scene.only is not None:
            if window is None or window.id != self._scene.only:
                return False
            node.window = window.id
            return True
        if window is None:
            return bool(node.states & words.SHOWING)
        node.window = window.id
        node.covers = placing.covers_of(window, windows)
        if "minimised" in window.state:
            node.states = node.states & ~words.SHOWING | words.ICONIFIED
        return True

    # Containers of very many.

    async def _some_children(self, node: Node) -> list[Node]:
        if node.role in words.TABLES:
            refs = await self._cells_in_view(node)
            if refs:
                return self._made(node, refs, are_cells=True)
        self._budget.cut.add("large")
        at = [of("Accessible", "GetChildAtIndex", "i", index) for index in range(_SOME)]
        return self._made(node, await self._ask([(node.ref.path, method) for method in at]))

    async def _cells_in_view(self, table: Node) -> list[Value]:
        """The cells of a table that can be seen, from the first to the last of them."""
        visible = None if table.told is None else table.told.within(_clip(table, shifted=False))
        if visible is None:
            return []
        first = await self._cell_at(table, visible.x + 2, visible.y + 2)
        last = await self._cell_at(table, visible.right - 3, visible.bottom - 3)
        if first is None:
            return []
        rows, columns = await self._ask(
            [(table.ref.path, get("Table", "NRows")), (table.ref.path, get("Table", "NColumns"))]
        )
        if last is None and _is_place(rows) and _is_place(columns):
            last = rows - 1, columns - 1
        if last is None:
            return []
        wide = max(1, min(last[1] - first[1] + 1, _MAX_COLUMNS))
        high = max(1, min(last[0] - first[0] + 1, _MAX_CELLS // wide))
        at = [
            of("Table", "GetAccessibleAt", "ii", row, column)
            for row in range(first[0], first[0] + high)
            for column in range(first[1], first[1] + wide)
        ]
        return await self._ask([(table.ref.path, method) for method in at])

    async def _cell_at(self, table: Node, x: int, y: int) -> tuple[int, int] | None:
        """The row and column of the cell at that point, as the program counts pixels."""
        at = of("Component", "GetAccessibleAtPoint", "iiu", x, y, 0)
        ref = as_ref((await self._ask([(table.ref.path, at)]))[0])
        if ref is None:
            return None
        (index,) = await self._ask([(ref.path, _INDEX)])
        if not _is_place(index):
            return None
        asked = [of("Table", f"Get{what}AtIndex", "i", index) for what in ("Row", "Column")]
        row, column = await self._ask([(table.ref.path, method) for method in asked])
        return (row, column) if _is_place(row) and _is_place(column) else None


def _is_place(value: Value) -> bool:
    """Whether that is a number that can be sent back."""
    return isinstance(value, int) and 0 <= value <= _MAX_INT


def _many(node: Node) -> int:
    return _MANY_CELLS if node.role in words.TABLES else _MANY


def _clip(node: Node, *, shifted: bool = True) -> Box:
    """Where what is in it can be seen; without ``shifted``, as its program counts pixels."""
    clip, box = node.clip, node.box
    if box is not None and node.role in _CLIPPING:
        clip = box.within(clip) or clip
    return clip if shifted else clip.moved((-node.shift[0], -node.shift[1]))


def _details(node: Node) -> Iterator[Method]:
    yield _NAME
    if node.role not in _LEAVES:
        yield _COUNT
    if holds_text(node.role, node.states) or node.is_cell:
        yield LENGTH
    if node.role in words.VALUES:
        yield _VALUE


def holds_text(role: str, states: int) -> bool:
    """Whether its text is told: what one types into, but no password."""
    if role == "password text" or role in words.WINDOWS | words.TABLES:
        return False
    return bool(states & words.EDITABLE) or role in words.TEXTS


def text_of(length: int, *, is_end: bool = False, most: int = MAX_TEXT) -> Method:
    """What reads a text of that length, or the part of it that is told.

    The end is told exactly: LibreOffice gives nothing of a text that is shorter than it is asked.
    """
    end = min(length, _MAX_INT) if is_end else min(length, most)
    return of("Text", "GetText", "ii", max(0, end - most), end)


def _says_anything(root: Node) -> bool:
    """Whether a frame that is no X window is a menu or a tooltip, and not one that is hidden."""
    return any(node.name for node in root.all())
