"""The queries of desktopd's routes; what a request asks for beside its path and body."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workspace import actions as a
from workspace import browsing as b
from workspace import elements
from workspace.control import Person, Ticket
from workspace.desktopd.rfb import Role
from workspace.desktopd.shell import MAX_WAIT_SECONDS
from workspace.models import ClipboardPart, Selection, WaitSeconds

MAX_SETTLE_MS = 60_000
Offset = Annotated[int, Field(ge=0, le=1 << 62)]
Path = Annotated[str, Field(min_length=1, max_length=4096)]


class Query(BaseModel):
    """A query; a name it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Act(Query):
    """``POST /actions``."""

    settle_ms: Annotated[int, Field(ge=0, le=MAX_SETTLE_MS)] = 0
    observe: a.Observe = "none"


class Picture(Query):
    """``GET /screenshot``."""

    format: a.ImageFormat = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 80
    scale: Annotated[float, Field(gt=0, le=4)] = 1.0
    cursor: bool = True
    x: a.Pixel | None = None
    y: a.Pixel | None = None
    width: Annotated[int, Field(ge=1, le=32767)] | None = None
    height: Annotated[int, Field(ge=1, le=32767)] | None = None
    since: a.Frame | None = None
    passive: bool = False  # it is no use: see usage.py

    @model_validator(mode="after")
    def _all_or_none(self) -> Picture:
        given = [value is not None for value in (self.x, self.y, self.width, self.height)]
        if any(given) != all(given):
            raise ValueError("give all of x, y, width and height, or none")
        return self

    def action(self) -> a.Screenshot:
        region = None
        if None not in (self.x, self.y, self.width, self.height):
            region = a.Region.model_validate(self.model_dump(include={"x", "y", "width", "height"}))
        return a.Screenshot(
            format=self.format,
            quality=self.quality,
            scale=self.scale,
            cursor=self.cursor,
            region=region,
            since=self.since,
        )


class From(Query):
    """``WS /processes/{job}/stream``: offsets in bytes."""

    stdout_from: Offset = 0
    stderr_from: Offset = 0


class Poll(From):
    """``GET /processes/{job}``."""

    wait_seconds: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)] = 0


class Close(Query):
    """``POST /processes/{job}/stdin``."""

    close: bool = False


class File(Query):
    """A path, as in ``GET /files``."""

    path: Path


class Removal(File):
    """``DELETE /files``."""

    recursive: bool = False


class Upload(File):
    """``PUT /files``; the mode is octal."""

    mode: Annotated[str, Field(pattern=r"^[0-7]{3,4}$")] = "644"


class Listing(Query):
    """``GET /files/list``."""

    path: Path = "."
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    after: Annotated[str, Field(max_length=4096)] | None = None


class Applications(Query):
    """``GET /applications``."""

    limit: Annotated[int, Field(ge=1, le=500)] = 500
    after: Annotated[str, Field(max_length=255)] | None = None


class WindowWait(Query):
    """``GET /windows/wait``: texts that the title and the class hold, in whatever case."""

    title: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    window_class: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    seconds: WaitSeconds = 15

    @model_validator(mode="after")
    def _any(self) -> WindowWait:
        if self.title is None and self.window_class is None:
            raise ValueError("give a title, a window_class, or both")
        return self


class ClipboardWrite(Query):
    """``PUT /clipboard``."""

    selection: Selection = "clipboard"


class ClipboardRead(ClipboardWrite):
    """``GET /clipboard``; ``only`` asks the program that owns it for no other form."""

    only: ClipboardPart | None = None


class Ui(Query):
    """``GET /ui``; ``all`` brings also what is there for layout only."""

    format: elements.TreeFormat = "json"
    window: elements.WindowId | None = None
    max_nodes: elements.MaxNodes = 3000
    max_depth: elements.MaxDepth = 60
    seconds: elements.TreeSeconds = 1.0
    all: bool = False


class UiFind(Query):
    """``GET /ui/find``: what all must hold of an element, in whatever case."""

    role: elements.Words | None = None
    name: elements.Words | None = None
    text: elements.Words | None = None
    window: elements.WindowId | None = None
    limit: elements.MaxElements = 20
    seconds: elements.TreeSeconds = 1.0

    @model_validator(mode="after")
    def _any(self) -> UiFind:
        if self.role is None and self.name is None and self.text is None:
            raise ValueError("give a role, a name, a text, or several of them")
        return self


class UiMarks(Query):
    """``GET /ui/marks``."""

    format: a.ImageFormat = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 80
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    window: elements.WindowId | None = None
    limit: elements.MaxElements = 200


class OfTab(Query):
    """``GET /browser/pdf``, and what the next ones have too."""

    tab: b.TabId | None = None


class PageRead(OfTab):
    """``GET /browser/read``; ``find`` and ``role`` bring only the elements that fit."""

    format: b.ReadFormat = "tree"
    limit: b.Chars = b.DEFAULT_CHARS
    after: b.Offset = 0
    ref: b.Ref | None = None
    find: b.Words | None = None
    role: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    all: bool = False

    @model_validator(mode="after")
    def _of_trees(self) -> PageRead:
        if self.format != "tree" and (self.find or self.role or self.all):
            raise ValueError("find, role and all are for the format tree")
        return self


class PageLog(OfTab):
    """``GET /browser/log``."""

    kind: b.LogKind = "console"
    contains: b.Words | None = None
    level: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    failed: bool = False
    after: b.Offset = 0
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class PagePicture(OfTab):
    """``GET /browser/picture``."""

    ref: b.Ref | None = None
    full_page: bool = False
    format: Literal["jpeg", "png"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 80

    @model_validator(mode="after")
    def _one(self) -> PagePicture:
        if self.ref is not None and self.full_page:
            raise ValueError("give a ref, or full_page, not both")
        return self


class Watch(Query):
    """``WS /vnc``."""

    role: Role = "view"
    holder: Person | None = None
    grant: Annotated[str, Field(max_length=64)] | None = None


class ControlWatch(Query):
    """``GET /control``: answered at once, or when the taking ``after`` is over."""

    after: Annotated[str, Field(max_length=64)] | None = None
    wait_seconds: WaitSeconds = 0


class HandBack(Query):
    """``DELETE /control``."""

    holder: Person
    force: bool = False


class Collect(Query):
    """``DELETE /control/returned``."""

    taking: Annotated[str, Field(max_length=64)]


class Unpark(Query):
    """``DELETE /control/parked``."""

    ticket: Ticket
