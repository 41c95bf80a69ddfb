"""`carrel share`: links that let whoever has one watch a desktop, or help out; listed, revoked."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.output import Json

Id = Annotated[str, typer.Argument(metavar="ID", help="The desktop's id, as `carrel ls` tells it.")]
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

shares_app = typer.Typer(help="List the links to a desktop, or revoke some.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command()(share)
    app.add_typer(shares_app, name="shares")


def share(
    workspace_id: Id,
    control: Annotated[
        bool, typer.Option("--control", help="With mouse and keyboard, not only to look.")
    ] = False,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="Good for so long: 90s, 15m, 1h, 2d.")
    ] = "1h",
    json: Json = False,
) -> None:
    """Make a link to a desktop for whoever has it; prints it this once."""
    seconds = _seconds(expires)

    async def main() -> None:
        async with controller() as carrel:
            made = await carrel.share(
                workspace_id, mode="control" if control else "view", ttl_seconds=seconds
            )
        output.result(made.model_dump(mode="json"), made.url)
        if not json:
            output.note(f"It is told only now. `carrel shares rm {made.workspace_id} {made.id}`")

    run(main)


@shares_app.command()
def ls(workspace_id: Id, json: Json = False) -> None:
    """List the links that still open a desktop, newest first."""

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.shares(workspace_id)
        output.result([each.model_dump(mode="json") for each in found])
        if json:
            return
        output.table(
            ("ID", "FOR", "MADE", "BY", "GOOD FOR"),
            (
                (
                    each.id,
                    each.mode,
                    f"{each.created_at:%Y-%m-%d %H:%M}",
                    each.created_by,
                    output.time_left(each.expires_at),
                )
                for each in found
            ),
        )

    run(main)


@shares_app.command()
def rm(
    workspace_id: Id,
    ids: Annotated[
        list[str], typer.Argument(metavar="LINK...", help="As `carrel shares ls` tells it.")
    ],
    json: Json = False,
) -> None:
    """Have links open nothing from now on; who watches by them is cut off."""

    async def main() -> None:
        async with controller() as carrel:
            for share_id in ids:
                await carrel.revoke_share(workspace_id, share_id)
                if not json:
                    print(share_id, flush=True)
        output.result({"revoked": ids})

    run(main)


def _seconds(text: str) -> float:
    """A time such as ``90s``, ``15m``, ``1h``, ``2d``; without a unit, seconds."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time: give 90s, 15m, 1h or 2d.")
    return float(found[1]) * _UNITS[found[2]]
