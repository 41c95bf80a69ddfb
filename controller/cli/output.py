"""How the command line speaks: results on stdout, everything else on stderr.

With ``--json`` a result is one JSON document on stdout, and an error is its wire object there.
Names, paths and errors may come from a desktop: nothing of them reaches the terminal as a command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workspace.logs import inert as inert  # what the rooms of commands call it by

if TYPE_CHECKING:
    from datetime import datetime

    from workspace.errors import CarrelError
    from workspace.models import Workspace

_wants_json: ContextVar[bool] = ContextVar("wants_json", default=False)


def _remember(value: bool) -> bool:
    _wants_json.set(value)
    return value


Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON.", callback=_remember, is_eager=True),
]


def wants_json() -> bool:
    """Whether this command was given ``--json``."""
    return _wants_json.get()


def result(value: Any, text: str | None = None) -> None:  # Any: JSON values, or a model
    """Print ``value`` as JSON if that was asked for, else ``text`` if there is one."""
    if wants_json():
        indent = 2 if sys.stdout.isatty() else None
        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        document = json.dumps(plain, ensure_ascii=False, indent=indent)
        print(inert(document, lines=True), flush=True)
    elif text is not None:
        print(inert(text, lines=True), flush=True)


def note(text: str) -> None:
    """A line for a person, on stderr."""
    print(inert(text, lines=True), file=sys.stderr, flush=True)


def fail(error: CarrelError) -> int:
    """Print an error; the exit code that goes with it."""
    if wants_json():
        print(inert(json.dumps(error.to_wire(), ensure_ascii=False, default=str)))
    else:
        note(f"error: {error.message} ({error.code})")
        if error.hint:
            note(f"hint: {error.hint}")
    return 1


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout: drawn on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(map(inert, row)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(inert(cell)) for cell in row))
    Console().print(drawn)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show that ``text`` is going on: with a running clock on a terminal."""
    if not sys.stderr.isatty():
        note(f"{text}...")
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        shown.add_task(text)
        yield


def duration(seconds: float) -> str:
    """A time in two units at most: ``2h 5m``, ``4m``, ``12s``."""
    left = max(0, round(seconds))
    if left >= 3600:
        return f"{left // 3600}h {left % 3600 // 60}m"
    return f"{left // 60}m" if left >= 120 else f"{left}s"


def time_left(until: datetime) -> str:
    from datetime import datetime, timezone

    return duration((until - datetime.now(timezone.utc)).total_seconds())


def workspaces(found: Sequence[Workspace]) -> None:
    """The table of ``ls`` and ``status``."""
    result([each.model_dump(mode="json") for each in found])
    if wants_json():
        return
    if not found:
        note("No desktops. Make one with `carrel new`.")
        return
    table(
        ("ID", "NAME", "TEMPLATE", "STATE", "TIME LEFT", "NODE"),
        (
            (
                each.id,
                each.name,
                each.template,
                each.state,
                time_left(each.expires_at),
                each.node or "",
            )
            for each in found
        ),
    )
