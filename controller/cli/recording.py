"""`carrel record`: what happens on a desktop's screen, as an MP4 here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.desktops import Id
from controller.cli.output import Json

POLL_SECONDS = 0.2
SAVE_SECONDS = 600.0


def add_to(app: typer.Typer) -> None:
    app.command()(record)


def record(
    workspace_id: Id,
    file: Annotated[Path | None, typer.Argument(help="Default: ID.mp4 here.")] = None,
    seconds: Annotated[float, typer.Option(help="How long; Ctrl-C ends it sooner.")] = 10,
    fps: Annotated[int, typer.Option(help="At most, while the screen changes.")] = 15,
    json: Json = False,
) -> None:
    """Record the screen; prints the file it is in."""
    target = file or Path(f"{workspace_id}.mp4")

    async def main() -> None:
        import anyio

        from workspace.errors import InvalidRequest

        async with controller() as carrel:
            desktop = carrel.desktop(workspace_id)
            await desktop.start_recording(fps=fps, max_seconds=seconds)
            try:
                while (await desktop.recording()).state == "recording":  # noqa: ASYNC110  # elsewhere
                    await anyio.sleep(POLL_SECONDS)
            finally:  # also when it is interrupted: what there is is kept
                with anyio.CancelScope(shield=True), anyio.move_on_after(SAVE_SECONDS):
                    done = await desktop.stop_recording()
                    try:
                        await desktop.save_recording(target)
                    except OSError as error:
                        raise InvalidRequest(
                            f"{target} cannot be written: {error.strerror}.",
                            hint="Name another file: carrel record ID FILE.",
                        ) from error
                    await desktop.remove_recording()
                    told = {"path": str(target), **done.model_dump(mode="json")}
                    output.result(told, str(target))

    run(main)
