"""What can be done to a desktop, and what came back: the one vocabulary of actions.

REST bodies, MCP tool inputs, SDK methods and logs all use these models. A new verb is one model
here, one handler in ``desktopd`` and one conformance check. Coordinates are whole pixels from the
top left of the screen; (0, 0) is a pixel like any other, and one outside the screen is refused
with :class:`~workspace.errors.OffScreen`, never clamped.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import (
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    model_validator,
)

Button = Literal["left", "middle", "right", "back", "forward"]
ImageFormat = Literal["jpeg", "png", "webp"]
Frame = Annotated[str, Field(min_length=1, max_length=64, description="the id of a picture")]
Pixel = Annotated[int, Field(ge=-32768, le=32767, description="pixels from the top left")]


def _a_number(value: object) -> object:
    """``value``, unless pydantic would make a number of what is none."""
    if isinstance(value, bool | str):
        raise ValueError(
            f"give a number, not {'text' if isinstance(value, str) else 'true or false'}"
        )
    return value


Number = BeforeValidator(_a_number)
Whole = Annotated[Pixel, Number]  # Pixel itself is for queries, where all is text
Point = tuple[Whole, Whole]
Chord = Annotated[
    str, Field(min_length=1, max_length=200, description="keys joined by '+': ctrl+shift+t")
]
ElementId = Annotated[
    str,
    Field(pattern=r"^e[1-9][0-9]{0,9}$", description="an element's id in the accessibility tree"),
]
Modifiers = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=40)]],
    Field(max_length=5, description="keys held during the action: ctrl, shift, alt, super"),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Region(_Model):
    """A rectangle of the screen, in pixels."""

    x: Whole
    y: Whole
    width: Annotated[int, Field(ge=1, le=32767), Number]
    height: Annotated[int, Field(ge=1, le=32767), Number]


class _Picture(_Model):
    format: ImageFormat = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100, description="of jpeg and webp")] = 80
    scale: Annotated[
        float, Field(gt=0, le=4, description="size of the picture by that of the screen")
    ] = 1.0
    cursor: Annotated[bool, Field(description="draw the mouse pointer")] = True


class Screenshot(_Picture):
    """A picture of the screen, or of a region of it; none if it is still the frame ``since``.

    With ``delta`` only what has changed since that frame: ``Observation.delta``.
    """

    type: Literal["screenshot"] = "screenshot"
    region: Region | None = None
    since: Frame | None = None
    delta: Annotated[bool, Field(description="bring only what has changed since that frame")] = (
        False
    )


class Zoom(_Picture):
    """A region at the screen's own resolution, enlarged to ``width`` pixels if given.

    A zoomed picture is for reading: coordinates of actions stay those of the screen.
    """

    type: Literal["zoom"] = "zoom"
    region: Region
    width: Annotated[int, Field(ge=1, le=4096), Number] | None = None


class CursorPosition(_Model):
    """Where the mouse pointer is: ``Observation.cursor``."""

    type: Literal["cursor_position"] = "cursor_position"


class _AtPoint(_Model):
    x: Whole | None = None
    y: Whole | None = None
    element: ElementId | None = None  # its centre, in place of x and y

    @model_validator(mode="after")
    def _both_or_neither(self) -> _AtPoint:
        if (self.x is None) != (self.y is None):
            raise ValueError("give both x and y, or neither for where the pointer is")
        if self.x is not None and self.element is not None:
            raise ValueError("give x and y, or an element, not both")
        return self


class Move(_AtPoint):
    """Move the pointer to a point, or to an element's centre."""

    type: Literal["move"] = "move"

    @model_validator(mode="after")
    def _somewhere(self) -> Move:
        if self.x is None and self.element is None:
            raise ValueError("give x and y, or an element")
        return self


class Click(_AtPoint):
    """Click at a point, on an element, or where the pointer is; ``count`` 2 is a double click."""

    type: Literal["click"] = "click"
    button: Button = "left"
    count: Annotated[int, Field(ge=1, le=3), Number] = 1
    modifiers: Modifiers = []


class MouseDown(_AtPoint):
    """Press a button and keep it down; see also ``mouse_up``."""

    type: Literal["mouse_down"] = "mouse_down"
    button: Button = "left"


class MouseUp(_AtPoint):
    """Release a button."""

    type: Literal["mouse_up"] = "mouse_up"
    button: Button = "left"


class Drag(_Model):
    """Press at the first point, move along the path, release at the last."""

    type: Literal["drag"] = "drag"
    path: Annotated[list[Point], Field(min_length=2, max_length=1000)]
    button: Button = "left"
    modifiers: Modifiers = []


class Scroll(_AtPoint):
    """Turn the wheel by notches: ``dy`` > 0 scrolls down, ``dx`` > 0 to the right."""

    type: Literal["scroll"] = "scroll"
    dx: Annotated[int, Field(ge=-100, le=100), Number] = 0
    dy: Annotated[int, Field(ge=-100, le=100), Number] = 0
    modifiers: Modifiers = []


class Type(_Model):
    """Type text, any Unicode; newline and tab are the keys Return and Tab.

    Layout, locks and keys that are held change nothing in it.
    """

    type: Literal["type"] = "type"
    text: Annotated[str, Field(max_length=100_000)]


class Key(_Model):
    """Press a chord such as ``ctrl+s``, ``Return`` or ``plus``, ``repeat`` times."""

    type: Literal["key"] = "key"
    chord: Chord
    repeat: Annotated[int, Field(ge=1, le=100), Number] = 1


class KeyDown(_Model):
    """Press keys and keep them down; the watchdog releases what nobody releases."""

    type: Literal["key_down"] = "key_down"
    chord: Chord


class KeyUp(_Model):
    """Release keys."""

    type: Literal["key_up"] = "key_up"
    chord: Chord


class HoldKey(_Model):
    """Hold a chord for some seconds."""

    type: Literal["hold_key"] = "hold_key"
    chord: Chord
    seconds: Annotated[float, Field(gt=0, le=30), Number]


class FocusElement(_Model):
    """Give an element the keyboard; its program is asked, and if it refuses, it is clicked."""

    type: Literal["focus_element"] = "focus_element"
    element: ElementId


class SetValue(_Model):
    """Set what an element holds: the text of an entry, or the number of a slider.

    What it then holds is read back: if that is something else, the action fails and says what.
    """

    type: Literal["set_value"] = "set_value"
    element: ElementId
    value: Annotated[str, Field(max_length=100_000)] | Annotated[float, Number]


class Invoke(_Model):
    """Do what an element is for, by its program: press, open, toggle.

    ``name`` is that of one of its actions, else its first is done. If its program refuses, and
    none was named, it is clicked.
    """

    type: Literal["invoke"] = "invoke"
    element: ElementId
    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class Wait(_Model):
    """Do nothing for some seconds."""

    type: Literal["wait"] = "wait"
    seconds: Annotated[float, Field(ge=0, le=60), Number]


Action = Annotated[
    Screenshot
    | Zoom
    | CursorPosition
    | Move
    | Click
    | MouseDown
    | MouseUp
    | Drag
    | Scroll
    | Type
    | Key
    | KeyDown
    | KeyUp
    | HoldKey
    | FocusElement
    | SetValue
    | Invoke
    | Wait,
    Field(discriminator="type"),
]
Actions = Annotated[list[Action], Field(min_length=1, max_length=100)]

ACTION: TypeAdapter[Action] = TypeAdapter(Action)
ACTIONS: TypeAdapter[list[Action]] = TypeAdapter(Actions)

Observe = Literal["none", "frame"]
Effect = Literal["changed", "no_visible_change", "not_observed"]


class Image(BaseModel):
    """An encoded picture; ``width`` and ``height`` are its own, in pixels.

    ``frame`` names its bytes: asking ``since`` it brings no picture while it would be the same.
    """

    model_config = ConfigDict(frozen=True)
    format: ImageFormat
    width: int
    height: int
    data: Base64Bytes  # raw bytes in Python, base64 in JSON
    frame: Frame | None = None


class Patch(BaseModel):
    """What is now at a region of the screen."""

    model_config = ConfigDict(frozen=True)
    region: Region
    image: Image


class Delta(BaseModel):
    """What has changed between two frames: the patches, laid over the one, make the other."""

    model_config = ConfigDict(frozen=True)
    since: Frame
    frame: Frame
    patches: Annotated[list[Patch], Field(max_length=10)]


class FocusedWindow(BaseModel):
    """The window that has the keyboard."""

    model_config = ConfigDict(frozen=True)
    id: int
    title: str
    window_class: str


class FocusedElement(BaseModel):
    """What has the keyboard in that window, as accessibility tells of it.

    ``id`` is that of the accessibility tree ("e12"); ``text`` is what an editable element holds,
    2000 characters at most, and None of any other: also of a password field.
    """

    model_config = ConfigDict(frozen=True)
    id: str
    role: str
    name: str
    text: str | None = None


class Typed(BaseModel):
    """How many characters went which way: on a key, on a spare key given them, or pasted."""

    model_config = ConfigDict(frozen=True)
    keys: int = 0
    remapped: int = 0
    pasted: int = 0

    def __add__(self, other: Typed) -> Typed:
        return Typed(
            keys=self.keys + other.keys,
            remapped=self.remapped + other.remapped,
            pasted=self.pasted + other.pasted,
        )


class Observation(BaseModel):
    """What could be seen of an action.

    ``effect`` is ``not_observed`` unless the screen was watched; ``settled`` is None then, True
    when the screen came to rest before the cap, False when it was still changing. ``changed``
    bounds what looks different from before the first action, without what moves by itself (a
    caret, a clock, a video); ``still_changing`` is where that is, and where a screen that has not
    settled was changing last. ``focused`` is the window with the keyboard, ``focus_moved`` whether
    another window or element had it before; ``focused_element`` is None where accessibility tells
    of none in time. ``summary`` says all of it in a sentence or two. ``typed`` tells how text was
    typed, of all ``type`` actions together; None if there was none. ``unchanged``: there is no
    screenshot because it would be the frame that was asked ``since``. ``delta``: nor is there one
    where a screenshot asked for a delta and less than half of it had changed. ``restarted``, told
    once: the X server had died since the last observation, every window went with it, and the
    desktop was started anew.
    """

    model_config = ConfigDict(frozen=True)
    screenshot: Image | None = None
    unchanged: bool = False
    delta: Delta | None = None
    cursor: tuple[int, int]
    screen: tuple[int, int]
    effect: Effect = "not_observed"
    settled: bool | None = None
    changed: list[Region] = []
    still_changing: list[Region] = []
    focused: FocusedWindow | None = None
    focused_element: FocusedElement | None = None
    focus_moved: bool = False
    summary: str | None = None
    typed: Typed | None = None
    restarted: bool = False
    elapsed_ms: float = 0.0


class CanAct(Protocol):
    """Anything that plays actions: a desktop's client, or what stands in for one."""

    async def act(self, *actions: Action) -> Observation:
        """Play the actions in order, stopping at the first failure; never retried.

        Raises:
            OffScreen, UnknownKey, UntypableText: nothing of that action was done; ``details``
                holds ``index`` (the failing action) and ``completed`` (how many were done).
            DesktopLost: the daemon went away; it may have been done.
        """
        ...
