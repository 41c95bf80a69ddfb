"""Commands about what the controller keeps: all of it to a file, and from there to a database."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from controller.cli import output
from controller.cli.output import Json


def add_to(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="A new file, such as carrel.backup.")],
    json: Json = False,
) -> None:
    """Write workspaces and events to a file; the controller may run meanwhile."""
    from controller.cli import process
    from controller.cli.connect import run
    from controller.store import backup as states

    settings = process.settings()
    _end_cleanly()
    with output.progress("Writing the backup"):
        counts = run(lambda: states.backup(settings.database, file))
    output.result({"file": str(file), "rows": counts}, f"{file}: {_told(counts)}")


def restore(
    file: Annotated[Path, typer.Argument(help="What `carrel backup` wrote, on any database.")],
    json: Json = False,
) -> None:
    """Fill an empty database from a backup; no controller may run."""
    from controller.cli import process
    from controller.cli.connect import run
    from controller.store import backup as states
    from ray_cluster.keeper import RunDir
    from workspace.folders import only_one, private_folder

    settings = process.settings()
    process.refuse_second(settings)
    _end_cleanly()
    private_folder(settings.home)
    with only_one(RunDir(settings.sockets).controller_lock):  # and none starts meanwhile
        with output.progress("Restoring the backup"):
            counts = run(lambda: states.restore(settings.database, file))
    output.result({"file": str(file), "rows": counts}, f"restored {_told(counts)}")


def _end_cleanly() -> None:
    """SIGTERM ends a command as Ctrl-C does: nothing half-made is left."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
