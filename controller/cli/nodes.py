"""Commands about the machines that run desktops: list them, take one out of service and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workspace.client import Carrel
    from workspace.models import Node

LOOK_SECONDS = 1.0
EMPTY_LOOKS = 3  # what was being placed when it was told may come a moment later
_room = typer.Typer(invoke_without_command=True)
Name = Annotated[
    str, typer.Argument(metavar="NODE", help="Its name, or its id or how that begins.")
]


def add_to(app: typer.Typer) -> None:
    app.add_typer(_room, name="nodes")


@_room.callback()
def nodes(context: typer.Context, json: Json = False) -> None:
    """List the machines that run desktops; `drain` takes one out of service, `undrain` back."""
    from controller.cli import output
    from controller.cli.connect import controller, run

    if context.invoked_subcommand is not None:
        return

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.nodes()
        output.result([each.model_dump(mode="json") for each in found])
        if not json:
            output.table(
                (
                    "NAME",
                    "STATE",
                    "DESKTOPS",
                    "GIVEN",
                    "WARM",
                    "MEMORY FREE",
                    "CPUS",
                    "UP",
                    "LABELS",
                    "ID",
                ),
                (
                    (
                        node.name,
                        state(node),
                        f"{node.desktops} of {node.slots}" if node.alive else "",
                        given(node),
                        str(node.warm) if node.alive else "",
                        memory(node),
                        "" if node.cpus is None else str(node.cpus),
                        up(node),
                        " ".join(f"{name}={value}" for name, value in node.labels.items()),
                        node.id,
                    )
                    for node in found
                ),
            )

    run(main)


@_room.command()
def drain(
    node: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Return once no desktop is left.")] = False,
    seconds: Annotated[float, typer.Option(min=0, help="With --wait: how long at most.")] = 24
    * 3600,
    json: Json = False,
) -> None:
    """Give a node no new desktops. Its warm ones are ended; claimed ones live until they end."""
    from controller.cli import output
    from controller.cli.connect import controller, run

    async def main() -> None:
        async with controller() as carrel:
            found = find(await carrel.nodes(), node)
            drained = await carrel.drain(found.id)
            if wait:
                with output.progress(f"Waiting until no desktop is left on {found.name}"):
                    drained = await _until_empty(carrel, drained, seconds)
        left = f"{_left(drained)} there" if drained.desktops else "it is empty"
        output.result(
            drained.model_dump(mode="json"), f"{drained.name} gets no new desktops; {left}."
        )

    run(main)


@_room.command()
def undrain(node: Name, json: Json = False) -> None:
    """Give a node new desktops again."""
    from controller.cli import output
    from controller.cli.connect import controller, run

    async def main() -> None:
        async with controller() as carrel:
            back = await carrel.drain(find(await carrel.nodes(), node).id, draining=False)
        output.result(back.model_dump(mode="json"), f"{back.name} gets desktops again.")

    run(main)


def find(nodes: Sequence[Node], wanted: str) -> Node:
    """The one that is meant by its name, its id, or how that begins.

    Raises:
        NotFound: none is.
        InvalidRequest: several are.
    """
    from workspace.errors import InvalidRequest, NotFound

    for found in (
        [node for node in nodes if node.id == wanted],
        [node for node in nodes if node.name == wanted and node.alive],
        [node for node in nodes if node.name == wanted],
        [node for node in nodes if node.id.startswith(wanted)],
    ):
        if len(found) > 1:
            raise InvalidRequest(
                f"{len(found)} nodes could be meant by {wanted!r}.", hint="Give its id."
            )
        if found:
            return found[0]
    raise NotFound(f"There is no node {wanted!r}.", hint="`carrel nodes` lists them.")


async def _until_empty(carrel: Carrel, node: Node, seconds: float) -> Node:
    import anyio

    from workspace.errors import Conflict, TimedOut

    empty = 0
    with anyio.move_on_after(seconds):
        while True:
            now = next((each for each in await carrel.nodes() if each.id == node.id), None)
            if now is None or not now.alive:
                return node.model_copy(update={"alive": False, "desktops": 0})
            node = now
            empty = 0 if node.desktops else empty + 1
            if empty == EMPTY_LOOKS:
                return node
            if not node.draining:
                raise Conflict(
                    f"Somebody has taken {node.name} back into service.",
                    hint="Drain it again if it is to go.",
                )
            await anyio.sleep(LOOK_SECONDS)
    raise TimedOut(
        f"{_left(node)} on {node.name} after {seconds:.0f} s.",
        hint="They live until they are released or their time is up; `carrel ls` lists them.",
    )


def _left(node: Node) -> str:
    return "1 desktop is left" if node.desktops == 1 else f"{node.desktops} desktops are left"


def state(node: Node) -> str:
    """In a word."""
    if not node.alive:
        return "lost"
    return "draining" if node.draining else "suspect" if node.suspect else "ready"


def given(node: Node) -> str:
    """How much of the memory for desktops is theirs, where that is limited."""
    if not node.alive or node.desktops_mib is None or node.desktops_mib_taken is None:
        return ""
    return f"{node.desktops_mib_taken / 1024:.1f} of {node.desktops_mib / 1024:.1f} GiB"


def memory(node: Node) -> str:
    """What is free of it, where the node has told."""
    if node.memory_mib is None or node.memory_free_mib is None:
        return ""
    return f"{node.memory_free_mib / 1024:.1f} of {node.memory_mib / 1024:.1f} GiB"


def up(node: Node) -> str:
    """Since when it is there."""
    from datetime import datetime, timezone

    from controller.cli import output

    if node.since is None or not node.alive:
        return ""
    return output.duration((datetime.now(timezone.utc) - node.since).total_seconds())
