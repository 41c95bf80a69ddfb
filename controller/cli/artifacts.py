"""`carrel artifacts`: what is kept of desktops, listed, fetched, saved, removed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.desktops import Id
from controller.cli.output import Json

artifacts_app = typer.Typer(
    help="What is kept of desktops, also of those that have ended: list, fetch, save, remove.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(artifacts_app, name="artifacts")


@artifacts_app.command()
def ls(
    workspace_id: Id,
    kind: Annotated[
        Literal["frame", "recording", "file"] | None, typer.Option(help="Only these.")
    ] = None,
    json: Json = False,
) -> None:
    """List what is kept of a desktop, oldest first."""

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.artifacts(workspace_id, kind=kind)
        output.result([each.model_dump(mode="json") for each in found])
        if json:
            return
        output.table(
            ("ID", "KIND", "NAME", "SIZE", "KEPT"),
            (
                (
                    each.id,
                    each.kind,
                    each.name,
                    str(each.size),
                    f"{each.created_at:%Y-%m-%d %H:%M:%S}",
                )
                for each in found
            ),
        )

    run(main)


@artifacts_app.command()
def get(
    artifact_id: Annotated[str, typer.Argument(metavar="ARTIFACT")],
    file: Annotated[Path | None, typer.Argument(help="Default: its name, here.")] = None,
    json: Json = False,
) -> None:
    """Write an artifact to a file."""

    async def main() -> None:
        from workspace.errors import InvalidRequest

        async with controller() as carrel:
            found = await carrel.artifact(artifact_id)
            target = file or Path(Path(found.name).name)
            if file is None and target.exists():
                raise InvalidRequest(
                    f"{target} is there already.",
                    hint="Name a file: carrel artifacts get ARTIFACT FILE.",
                )
            try:
                with output.progress(f"Fetching {found.name}"):
                    size = await carrel.save_artifact(artifact_id, target)
            except OSError as error:
                raise InvalidRequest(
                    f"{target} cannot be written: {error.strerror}.",
                    hint="Name another file: carrel artifacts get ARTIFACT FILE.",
                ) from error
        output.result({"path": str(target), "size": size}, str(target))

    run(main)


@artifacts_app.command()
def save(
    workspace_id: Id,
    path: Annotated[str, typer.Argument(help="In the desktop; relative to /home/user.")],
    name: Annotated[str | None, typer.Option(help="What it is called from then on.")] = None,
    json: Json = False,
) -> None:
    """Keep a file of a desktop beyond its life; prints its id."""

    async def main() -> None:
        async with controller() as carrel:
            kept = await carrel.keep_file(workspace_id, path, name=name)
        output.result(kept.model_dump(mode="json"), kept.id)

    run(main)


@artifacts_app.command()
def rm(
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT...")],
    json: Json = False,
) -> None:
    """Remove artifacts."""

    async def main() -> None:
        async with controller() as carrel:
            for each in artifacts:
                await carrel.remove_artifact(each)
                if not json:
                    print(each, flush=True)
        output.result({"removed": artifacts})

    run(main)
