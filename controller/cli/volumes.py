"""`carrel volumes`: homes that stay, listed, copied, removed; `carrel new --volume` makes one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.output import Json

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `carrel volumes` tells it.")]

volumes_app = typer.Typer(
    help="List, copy or remove volumes: homes that stay when their desktops end.",
    invoke_without_command=True,
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(volumes_app, name="volumes")


@volumes_app.callback()
def volumes(context: typer.Context, json: Json = False) -> None:
    """List volumes. `carrel new --volume NAME` makes one, or uses it again."""
    if context.invoked_subcommand is None:
        ls(json=json)


@volumes_app.command()
def ls(json: Json = False) -> None:
    """List volumes, by name."""

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.volumes()
        output.result([each.model_dump(mode="json") for each in found])
        if json:
            return
        output.table(
            ("NAME", "NODE", "SIZE", "LAST USED", "USED BY"),
            (
                (
                    each.name,
                    each.node or "-",
                    "-" if each.size_bytes is None else f"{each.size_bytes / (1 << 20):.1f} MiB",
                    f"{each.last_used_at:%Y-%m-%d %H:%M}" if each.last_used_at else "-",
                    "being removed" if each.is_being_removed else each.used_by or "-",
                )
                for each in found
            ),
        )

    run(main)


@volumes_app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    forget: Annotated[
        bool, typer.Option(help="Also if its node is gone; what lies there then stays.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove volumes and all in them."""

    async def main() -> None:
        async with controller() as carrel:
            for name in names:
                await carrel.remove_volume(name, forget=forget)
                if not json:
                    print(name, flush=True)
        output.result({"removed": names})

    run(main)


@volumes_app.command()
def export(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="Default: NAME.tar here.")] = None,
    json: Json = False,
) -> None:
    """Write all that is in a volume to a tar; no desktop can have it meanwhile."""
    target = file or Path(f"{name}.tar")

    async def main() -> None:
        from workspace.errors import InvalidRequest

        async with controller() as carrel:
            try:
                with output.progress(f"Copying {name}"):
                    size = await carrel.save_volume(name, target)
            except OSError as error:
                raise InvalidRequest(
                    f"{target} cannot be written: {error.strerror}.",
                    hint="Name another file: carrel volumes export NAME FILE.",
                ) from error
        output.result({"path": str(target), "size": size}, str(target))

    run(main)
