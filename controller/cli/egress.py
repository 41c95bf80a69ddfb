"""`carrel egress`: what a desktop may reach, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.output import Json

if TYPE_CHECKING:
    from workspace.egress import Egress, EgressState


def add_to(app: typer.Typer) -> None:
    app.command()(egress)


def rules(given: list[str] | None) -> Egress | None:
    """What ``--egress`` says: none, internet, or hosts, each by itself or by commas."""
    words = [word.strip() for text in given or [] for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return "none"
    if words == ["internet"]:
        return "internet"
    return words or None


def egress(
    workspace_id: Annotated[
        str, typer.Argument(metavar="ID", help="The desktop's id, as `carrel ls` tells it.")
    ],
    to: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="RULES", help="none, internet, or hosts by commas."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Another one: host, *.host, host:port, host:*."),
    ] = None,
    deny: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Not that one.")] = None,
    json: Json = False,
) -> None:
    """Show what a desktop may reach and what went through, or change it at once."""

    async def main() -> None:
        async with controller() as carrel:
            if to or allow or deny:
                state = await carrel.set_egress(
                    workspace_id, rules(to), allow=allow or [], deny=deny or []
                )
            else:
                state = await carrel.egress(workspace_id)
        _show(state)

    run(main)


def _show(state: EgressState) -> None:
    use = state.use
    told = state.egress if isinstance(state.egress, str) else "\n".join(state.egress)
    lines = [told]
    lines += [f"secret {it.name}: {it.header} of {it.host}" for it in state.secrets]
    lines.append(
        f"{use.allowed} connections and {use.refused} refused, {use.open} open, "
        f"{use.bytes_up:,} bytes up and {use.bytes_down:,} down"
    )
    output.result(state.model_dump(mode="json"), "\n".join(lines))
