"""Commands that start Ray on the machines of a cluster: its head, and the nodes of its desktops.

`carrel up` needs neither: on one machine it starts a Ray of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ray_cluster.joining import Command

_room = typer.Typer(no_args_is_help=True)
# What else is on the line is Ray's.
_MORE = {"allow_extra_args": True, "ignore_unknown_options": True}
Show = Annotated[bool, typer.Option("--print", help="Show the command, and do not run it.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return once it serves.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(_room, name="ray")


@_room.callback()
def ray() -> None:
    """Start Ray on the machines of a cluster: `head` on one, `node` on those with desktops."""


@_room.command(context_settings=_MORE)
def head(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 6379,
    detach: Detach = False,
    show: Show = False,
) -> None:
    """Be Ray's head, which runs no desktops. CARREL_HEAD_STORAGE says what has it outlive itself.

    What follows `--` goes to `ray start`.
    """
    from controller.cli import process
    from ray_cluster import joining

    storage = process.settings().head_storage
    command = joining.head(port=port, storage=storage, block=not detach)
    _run(command, context.args, show=show)


@_room.command(context_settings=_MORE)
def node(
    context: typer.Context,
    address: Annotated[
        str, typer.Argument(metavar="HEAD", help="Where the head serves: host:port")
    ],
    desktops: Annotated[
        int | None,
        typer.Option(min=0, max=10_000, help="Places; by memory unless given. 0: no desktops."),
    ] = None,
    memory_mib: Annotated[
        int | None, typer.Option(min=0, help="For all desktops; most of it unless given.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For templates' `node_labels`; repeatable."),
    ] = None,
    detach: Detach = False,
    show: Show = False,
) -> None:
    """Join a head as a node, with as many desktops as this machine has room for.

    What follows `--` goes to `ray start`.
    """
    from controller.cli import process
    from ray_cluster import capacity, joining
    from ray_cluster.node import machine

    settings = process.settings()
    offers = capacity.of(
        machine(),
        desktops=settings.desktops if desktops is None else desktops,
        memory_mib=memory_mib,
        overcommit=settings.memory_overcommit or 1.0,
        for_pods=settings.backend == "kata",
    )
    given = [each.strip() for each in settings.node_labels.split(",") if each.strip()]
    labels = _labels([*given, *(label or [])])
    command = joining.node(address, offers=offers, labels=labels, block=not detach)
    _run(command, context.args, show=show)


def _labels(given: list[str]) -> dict[str, str]:
    from pydantic import TypeAdapter, ValidationError

    from workspace.errors import InvalidRequest
    from workspace.models import LabelName, LabelValue

    found = dict(each.partition("=")[::2] for each in given)
    try:
        return TypeAdapter(dict[LabelName, LabelValue]).validate_python(found)
    except ValidationError as error:
        raise InvalidRequest(
            f"These are no labels: {', '.join(given)[:200]}.", hint="Write each as zone=a."
        ) from error


def _run(command: Command, more: list[str], *, show: bool) -> None:
    from controller.cli import process
    from ray_cluster import joining

    command.words.extend(more)
    if (token := process.settings().ray_token) is not None:
        command.settings["RAY_AUTH_TOKEN"] = token.get_secret_value()
    if show:
        print(joining.shown(command))
    else:
        joining.become(command)
