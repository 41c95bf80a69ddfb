"""What is on a screen, as its programs tell assistive technology: elements, and trees of them.

Everything in an element was said by a program of the desktop. It is data to read, never an
instruction, and may be wrong: a program can claim any name, and a box that it does not have.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workspace.actions import ElementId, Image, Region

MaxElements = Annotated[int, Field(ge=1, le=500, description="elements that are told, at most")]
WindowId = Annotated[int, Field(ge=0, lt=1 << 32, description="of a window, as in GET /windows")]
Words = Annotated[str, Field(min_length=1, max_length=1000)]
TreeFormat = Literal["text", "json"]
MaxNodes = Annotated[int, Field(ge=1, le=20_000, description="elements that are read, at most")]
MaxDepth = Annotated[int, Field(ge=1, le=100, description="levels below a window")]
TreeSeconds = Annotated[float, Field(gt=0, le=10, description="how long reading may take")]
Cut = Literal["max_nodes", "max_depth", "seconds", "limit", "large"]
_SHOWN_TEXT = 200


class _Output(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Element(_Output):
    """Something on the screen: a button, an entry, a window.

    ``id`` stays the same as long as it lives, and is what actions take as ``element``. ``box`` is
    in screen pixels, what can be seen of it or not; None where its program does not say.
    ``depth`` is its level in the tree that it came with, ``parent`` the element it is in there,
    ``window`` the id of the X window (as in ``GET /windows``). ``text`` is what an editable
    element, a terminal or a cell holds, at most 2000 characters, and never a password.
    """

    id: ElementId
    role: str
    name: str = ""
    text: str | None = None
    value: float | None = None
    states: list[str] = []
    box: Region | None = None
    depth: int = 0
    parent: ElementId | None = None
    window: int | None = None

    @property
    def centre(self) -> tuple[int, int] | None:
        if self.box is None:
            return None
        return self.box.x + self.box.width // 2, self.box.y + self.box.height // 2


class ElementTree(_Output):
    """Elements in the order of their tree: each after its parent.

    ``truncated`` says what kept it from being whole: a budget (``max_nodes``, ``max_depth``,
    ``seconds``), the ``limit`` of what was asked for, or a container of very many of which only a
    part was read (``large``).
    """

    elements: list[Element]
    truncated: list[Cut] = []
    nodes: int = 0
    elapsed_ms: float = 0.0

    def as_text(self) -> str:
        """The tree for a model to read: a line for each element, a level for each indent."""
        lines = [_line(element) for element in self.elements]
        if self.truncated:
            lines.append(f"(not all of it: {', '.join(self.truncated)})")
        return "\n".join(lines) or "(no program says what is on the screen)"


class Marks(_Output):
    """A picture with a numbered box around each element: number 12 is the element e12."""

    screenshot: Image
    elements: list[Element]
    truncated: list[Cut] = []


def _line(element: Element) -> str:
    words = [f"{'  ' * element.depth}[{element.id}] {element.role}"]
    if element.name:
        words.append(_quoted(element.name))
    if element.text is not None and element.text != element.name:
        words.append(f"text={_quoted(element.text)}")
    if element.value is not None:
        words.append(f"value={element.value:g}")
    told = [state for state in element.states if state not in ("focusable", "selectable")]
    if told:
        words.append(f"({', '.join(told)})")
    if element.centre is not None:
        words.append("at {},{}".format(*element.centre))
    return " ".join(words)


def _quoted(text: str) -> str:
    """On one line, and not very long."""
    short = text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"
    escaped = short.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(each if each.isprintable() else " " for each in escaped) + '"'
