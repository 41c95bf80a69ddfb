"""`carrel keys`: who else may enter, made, listed, revoked. For the admin's key."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.output import Json

keys_app = typer.Typer(
    help="Make, list or revoke keys: who may enter, as what, and of which tenant.",
    invoke_without_command=True,
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(keys_app, name="keys")


@keys_app.callback()
def keys(context: typer.Context, json: Json = False) -> None:
    """List keys. `carrel keys new NAME` makes one."""
    if context.invoked_subcommand is None:
        ls(json=json)


@keys_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Who the log says did it.")],
    role: Annotated[
        Literal["viewer", "user", "operator", "admin"], typer.Option(help="What it may do.")
    ] = "user",
    tenant: Annotated[
        str, typer.Option(help="Whose desktops it sees; the first key makes it.")
    ] = "default",
    ttl: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Good for so long; else until revoked.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key; prints it this once."""

    async def main() -> None:
        async with controller() as carrel:
            made = await carrel.new_key(name, role=role, tenant=tenant, ttl_seconds=ttl)
        output.result(made.model_dump(mode="json"), made.key)
        if not json:
            output.note(f"It is told only now. `carrel keys revoke {made.id}` ends it.")

    run(main)


@keys_app.command()
def ls(json: Json = False) -> None:
    """List the keys that are not revoked, newest first."""

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.keys()
        output.result([each.model_dump(mode="json") for each in found])
        if json:
            return
        output.table(
            ("ID", "NAME", "ROLE", "TENANT", "MADE", "BY", "GOOD FOR"),
            (
                (
                    each.id,
                    each.name,
                    each.role,
                    each.tenant,
                    f"{each.created_at:%Y-%m-%d %H:%M}",
                    each.created_by,
                    "" if each.expires_at is None else output.time_left(each.expires_at),
                )
                for each in found
            ),
        )

    run(main)


@keys_app.command()
def revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `carrel keys` tells it.")],
    json: Json = False,
) -> None:
    """Have keys open nothing from now on, and end what they have open."""

    async def main() -> None:
        async with controller() as carrel:
            for key_id in ids:
                await carrel.revoke_key(key_id)
                if not json:
                    print(key_id, flush=True)
        output.result({"revoked": ids})

    run(main)
