"""The command about pools: how many desktops of a template are kept warm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workspace.fleet import PoolStatus


def add_to(app: typer.Typer) -> None:
    app.command()(scale)


def scale(
    template: Annotated[
        str | None, typer.Argument(help="The template; without one all pools are shown.")
    ] = None,
    warm: Annotated[int | None, typer.Option(help="Kept warm while claims come.")] = None,
    floor: Annotated[int | None, typer.Option(help="Kept warm even if none come for long.")] = None,
    most: Annotated[
        int | None, typer.Option("--max", help="Desktops of it in all, at most.")
    ] = None,
    surge: Annotated[int | None, typer.Option(help="Started at a time, at most.")] = None,
    idle: Annotated[
        float | None, typer.Option(help="Seconds without a claim until only the floor is kept.")
    ] = None,
    max_age: Annotated[
        float | None, typer.Option(help="Seconds until a warm one is replaced.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the pools of warm desktops, or change one; a quarantined one then tries again."""
    from controller.cli import output
    from controller.cli.connect import controller, run
    from workspace.errors import InvalidRequest

    given = (warm, floor, most, surge, idle, max_age)
    if template is None and any(value is not None for value in given):
        raise InvalidRequest("Name the template whose pool is to change.", hint="")

    async def main() -> None:
        async with controller() as carrel:
            if template is None:
                found = await carrel.pools()
            else:
                changed = await carrel.scale(
                    template,
                    warm=warm,
                    floor=floor,
                    max=most,
                    surge=surge,
                    idle_seconds=idle,
                    max_age_seconds=max_age,
                )
                found = [changed]
        output.result([each.model_dump(mode="json") for each in found])
        if not json:
            table(found)

    run(main)


def table(found: Sequence[PoolStatus]) -> None:
    """Pools as people see them."""
    from controller.cli import output

    output.table(
        ("TEMPLATE", "STATE", "WARM", "STARTING", "CLAIMED", "MAX", "WAITING", "HITS", ""),
        (
            (
                each.template,
                each.state.replace("_", " "),
                f"{each.warm} of {each.target}",
                str(each.warming),
                str(each.live),
                "" if each.pool.max is None else str(each.pool.max),
                str(each.waiting),
                hits(each),
                each.reason,
            )
            for each in found
        ),
    )


def hits(pool: PoolStatus) -> str:
    """How many of its claims a warm one answered."""
    claims = pool.hits + pool.misses
    return f"{pool.hits} of {claims}" if claims else ""
