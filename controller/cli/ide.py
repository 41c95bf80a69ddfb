"""Commands for a desktop's IDE: how it is, what is open in it, and showing a file there."""

from __future__ import annotations

import re
from typing import Annotated, Literal, cast

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.desktops import Id
from controller.cli.output import Json

_PLACE = re.compile(r"(?P<path>.+?)(?::(?P<line>\d+))?(?::(?P<column>\d+))?")


def add_to(app: typer.Typer) -> None:
    of_ide = typer.Typer(
        help="Look at a desktop's IDE, and open files in it.", no_args_is_help=True
    )
    of_ide.command("health")(health)
    of_ide.command("open")(open_file)
    of_ide.command("problems")(problems)
    app.add_typer(of_ide, name="ide")


def health(workspace_id: Id, json: Json = False) -> None:
    """Print how the IDE is, and what is open in it."""

    async def main() -> None:
        async with controller() as carrel:
            desktop = carrel.desktop(workspace_id)
            told = await desktop.ide_health()
            state = await desktop.ide_state() if told.phase == "ready" else None
        if output.wants_json():
            output.result({"health": told.model_dump(), "state": state and state.model_dump()})
            return
        name = f"{told.name or told.ide} {told.version}".strip()
        output.result(None, f"{name}: {told.phase.replace('_', ' ')}. {told.message}".strip())
        if state is not None:
            rows = [("folder", state.folder or "")]
            rows += [("open", each.path + " (not saved)" * each.is_dirty) for each in state.files]
            rows += [("terminal", each.name) for each in state.terminals]
            output.table(("", ""), rows)

    run(main)


def open_file(
    workspace_id: Id,
    place: Annotated[
        str, typer.Argument(metavar="PATH[:LINE[:COLUMN]]", help="A file; a folder ends with /.")
    ],
    json: Json = False,
) -> None:
    """Show a file in the IDE, or open a folder there."""

    async def main() -> None:
        async with controller() as carrel:
            desktop = carrel.desktop(workspace_id)
            if place.endswith("/"):
                folder = await desktop.ide_open_folder(place)
                output.result(folder, f"{folder.path} is open")
                return
            found = _PLACE.fullmatch(place)
            path, line, column = found.group("path", "line", "column") if found else (place, "", "")
            shown = await desktop.ide_open(
                path, int(line) if line else None, int(column) if column else None
            )
            output.result(shown, f"{shown.path}:{shown.line}:{shown.column}")

    run(main)


def problems(
    workspace_id: Id,
    path: Annotated[str | None, typer.Argument(help="Of this file; default: of all.")] = None,
    least: Annotated[
        str, typer.Option(help="error, warning, information or hint, and what is worse.")
    ] = "warning",
    json: Json = False,
) -> None:
    """Print the errors and warnings that the IDE has found."""

    async def main() -> None:
        # Any other is refused before it is sent, with those there are.
        severity = cast(Literal["error", "warning", "information", "hint"], least)
        async with controller() as carrel:
            told = await carrel.desktop(workspace_id).ide_diagnostics(path, least=severity)
        if output.wants_json():
            output.result(told)
            return
        rows = (
            (f"{it.path}:{it.range.line}:{it.range.column}", it.severity, it.message, it.source)
            for it in told.diagnostics
        )
        output.table(("PLACE", "", "MESSAGE", "SOURCE"), rows)
        if told.next is not None:
            output.note(f"There are {told.total} in all.")

    run(main)
