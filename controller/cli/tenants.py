"""`carrel tenants`: what each may have, and has. For the admin's key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workspace.access import Tenant

tenants_app = typer.Typer(
    help="List tenants, what they have, and what they may have; set that.",
    invoke_without_command=True,
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(tenants_app, name="tenants")


@tenants_app.callback()
def tenants(context: typer.Context, json: Json = False) -> None:
    """List tenants. `carrel tenants set NAME` says what one may have."""
    if context.invoked_subcommand is None:
        ls(json=json)


@tenants_app.command()
def ls(json: Json = False) -> None:
    """List tenants, by name: what each has of what it may have."""

    async def main() -> None:
        async with controller() as carrel:
            _show(await carrel.tenants(), json=json)

    run(main)


@tenants_app.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    desktops: Annotated[int | None, typer.Option(help="At once.")] = None,
    cpus: Annotated[float | None, typer.Option(help="At once.")] = None,
    memory: Annotated[int | None, typer.Option(metavar="MIB", help="At once.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Desktop-hours in a calendar month (UTC).")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="A minute, of each key, at each controller.")
    ] = None,
    keep_artifacts: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="0: for ever. Else as the controller's settings say."),
    ] = None,
    keep_events: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="0: for ever. Else as the controller's settings say."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what a tenant may have; what is not given is without limit."""

    async def main() -> None:
        async with controller() as carrel:
            changed = await carrel.set_quotas(
                name,
                workspaces=desktops,
                cpus=cpus,
                memory_mib=memory,
                desktop_hours=hours,
                requests_per_minute=requests,
                artifact_days=keep_artifacts,
                event_days=keep_events,
            )
        _show([changed], json=json)

    run(main)


def _show(found: Sequence[Tenant], *, json: bool) -> None:
    output.result([each.model_dump(mode="json") for each in found])
    if json:
        return
    output.table(
        (
            "NAME",
            "DESKTOPS",
            "CPUS",
            "MEMORY MIB",
            "HOURS THIS MONTH",
            "REQUESTS A MINUTE",
            "DAYS OF ARTIFACTS",
            "OF EVENTS",
        ),
        (
            (
                each.name,
                _of(each.used.workspaces, each.quotas.workspaces),
                _of(each.used.cpus, each.quotas.cpus),
                _of(each.used.memory_mib, each.quotas.memory_mib),
                _of(each.used.desktop_hours, each.quotas.desktop_hours),
                _set(each.quotas.requests_per_minute),
                _set(each.quotas.artifact_days),
                _set(each.quotas.event_days),
            )
            for each in found
        ),
    )


def _set(limit: float | None) -> str:
    return "-" if limit is None else f"{limit:.10g}"


def _of(used: float, limit: float | None) -> str:
    return f"{used:.10g}" if limit is None else f"{used:.10g} of {limit:.10g}"
