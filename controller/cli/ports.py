"""Commands about the servers that run in a desktop: list them, open one, drive its browser."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.cli.desktops import Id
from controller.cli.output import Json


def add_to(app: typer.Typer) -> None:
    app.command()(ports)
    app.command()(port)
    app.command()(cdp)


def ports(workspace_id: Id, json: Json = False) -> None:
    """List the ports that something in a desktop listens on."""
    from controller.cli import output
    from controller.cli.connect import controller, run

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.desktop(workspace_id).ports()
        output.result([each.model_dump() for each in found])
        if not json:
            output.table(("PORT", "ADDRESS"), ((str(each.port), each.address) for each in found))

    run(main)


def port(
    workspace_id: Id,
    number: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535)],
    path: Annotated[str, typer.Argument(help="The page to begin at.")] = "/",
    json: Json = False,
) -> None:
    """Print an address of a server in a desktop, for a browser and within a minute."""
    from controller.cli import output
    from controller.cli.connect import controller, run

    async def main() -> None:
        async with controller() as carrel:
            access = await carrel.desktop(workspace_id).open_port(number, path)
        output.result(access.model_dump(mode="json"), access.url)

    run(main)


def cdp(
    workspace_id: Id,
    ttl: Annotated[float, typer.Option(help="Seconds that it lets in.", min=10, max=43200)] = 3600,
    json: Json = False,
) -> None:
    """Print an address of a desktop's browser, for any client of the DevTools protocol."""
    from controller.cli import output
    from controller.cli.connect import controller, run

    async def main() -> None:
        async with controller() as carrel:
            access = await carrel.desktop(workspace_id).open_cdp(ttl)
        output.result(access.model_dump(mode="json"), access.http_url)

    run(main)
