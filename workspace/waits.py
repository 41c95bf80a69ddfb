"""What can be waited for in a desktop, and what came: the one vocabulary of waiting.

REST bodies, the MCP tool and the SDK's methods use these models. Each wait is one call that is
answered as soon as it is so, at the latest after ``seconds`` with
:class:`~workspace.errors.TimedOut`, whose hint says what there was instead. What is so already is
answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from workspace.actions import ElementId, Region
from workspace.models import FileInfo, WaitSeconds, Window

_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class _Wait(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: WaitSeconds = 15


class TextAppears(_Wait):
    """Until a text is shown by some program, by what it tells assistive programs."""

    type: Literal["text_appears"] = "text_appears"
    text: _Text


class TextGone(_Wait):
    """Until a text is not shown any more."""

    type: Literal["text_gone"] = "text_gone"
    text: _Text


class RegionChanges(_Wait):
    """Until a part of the screen (all of it if none is named) looks other than when asked."""

    type: Literal["region_changes"] = "region_changes"
    region: Region | None = None


class RegionStable(_Wait):
    """Until a part of the screen has looked the same for ``stable_ms``.

    A text caret that blinks where it did is no change.
    """

    type: Literal["region_stable"] = "region_stable"
    region: Region | None = None
    stable_ms: Annotated[int, Field(ge=1, le=30_000)] = 500


class _OfWindow(_Wait):
    title: _Text | None = None
    window_class: _Text | None = None

    @model_validator(mode="after")
    def _any(self) -> _OfWindow:
        if self.title is None and self.window_class is None:
            raise ValueError("give a title, a window_class, or both")
        return self


class WindowOpens(_OfWindow):
    """Until a window with those texts in its title and class is on the screen."""

    type: Literal["window_opens"] = "window_opens"


class WindowCloses(_OfWindow):
    """Until no window has those texts in its title and class."""

    type: Literal["window_closes"] = "window_closes"


class FileExists(_Wait):
    """Until a file is there and has kept its size for ``stable_ms``.

    The last part of ``path`` may be a pattern: ``Downloads/*.pdf``.
    """

    type: Literal["file_exists"] = "file_exists"
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    stable_ms: Annotated[int, Field(ge=0, le=30_000)] = 0


class PortListens(_Wait):
    """Until some program listens on a TCP port of the desktop."""

    type: Literal["port_listens"] = "port_listens"
    port: Annotated[int, Field(ge=1, le=65_535)]


class ProcessEnds(_Wait):
    """Until a process has ended: a job of ours, a process id, or all programs of a name."""

    type: Literal["process_ends"] = "process_ends"
    job: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    pid: Annotated[int, Field(ge=1, le=1 << 22)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=255)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ProcessEnds:
        if sum(given is not None for given in (self.job, self.pid, self.name)) != 1:
            raise ValueError("give one of job, pid and name")
        return self


Wait = Annotated[
    TextAppears
    | TextGone
    | RegionChanges
    | RegionStable
    | WindowOpens
    | WindowCloses
    | FileExists
    | PortListens
    | ProcessEnds,
    Field(discriminator="type"),
]
WAIT: TypeAdapter[Wait] = TypeAdapter(Wait)


class Waited(BaseModel):
    """What was waited for, come true after ``elapsed_ms``.

    ``element`` shows the text, in the box ``region``; ``region`` is also where the screen
    changed. ``address`` is that which is listened on, ``exit_code`` the job's.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    elapsed_ms: float = 0.0
    text: str | None = None
    element: ElementId | None = None
    region: Region | None = None
    window: Window | None = None
    file: FileInfo | None = None
    address: str | None = None
    exit_code: int | None = None
