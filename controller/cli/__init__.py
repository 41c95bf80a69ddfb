"""The command line: ``carrel``.

Results go to stdout, progress and notes to stderr. Exit codes: 0 done, 1 an error of the tree (its
message, code and hint on stderr, or its wire object on stdout with ``--json``), 2 wrong usage;
``carrel exec`` passes on the command's own. Each command imports what it needs when it runs, so
that ``carrel --help`` is quick.
"""

from __future__ import annotations

import sys

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

app = typer.Typer(
    name="carrel",
    help="Sandboxed Linux desktops for computer-use agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
