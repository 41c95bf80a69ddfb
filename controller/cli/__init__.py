"""The command line: ``carrel``.

Results go to stdout, progress and notes to stderr. Exit codes: 0 done, 1 an error of the tree (its
message, code and hint on stderr, or its wire object on stdout with ``--json``), 2 wrong usage;
``carrel exec`` passes on the command's own. Each command imports what it needs when it runs, so
that ``carrel --help`` is quick.
"""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from controller.cli import (
    acting,
    artifacts,
    audit,
    bench,
    bridge,
    browser,
    desktops,
    egress,
    ide,
    keys,
    nodes,
    output,
    ports,
    ray,
    recording,
    scale,
    service,
    shares,
    shell,
    state,
    tenants,
    tools,
    top,
    volumes,
)

# What commands import is all kept: to look through it for garbage takes a fifth of their start.
gc.set_threshold(50_000, 20, 100)

app = typer.Typer(
    name="carrel",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"carrel {version('carrel')}")
        raise typer.Exit


@app.callback()
def _carrel(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell it and end."),
    ] = False,
) -> None:
    """Sandboxed Linux desktops for computer-use agents."""


for room in (
    service,
    top,
    desktops,
    egress,
    volumes,
    keys,
    shares,
    tenants,
    tools,
    nodes,
    ray,
    scale,
    acting,
    browser,
    ide,
    recording,
    artifacts,
    shell,
    ports,
    bridge,
    state,
    audit,
    bench,
):
    room.add_to(app)


def main() -> None:
    """The console script."""
    from workspace.errors import CarrelError

    try:
        app()
    except CarrelError as error:
        sys.exit(output.fail(error))
