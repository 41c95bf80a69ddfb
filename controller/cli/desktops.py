"""Commands about desktops as a whole: make, list, release, watch, and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.egress import rules
from controller.cli.output import Json
from workspace import settings

Id = Annotated[str, typer.Argument(metavar="ID", help="The desktop's id, as `carrel ls` tells it.")]

templates_app = typer.Typer(help="List templates, or add one.", invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    app.command()(new)
    app.command()(ls)
    app.command()(rm)
    app.command()(pause)
    app.command()(resume)
    app.command()(watch)
    app.command()(logs)
    app.add_typer(templates_app, name="templates")


def new(
    template: Annotated[
        str | None, typer.Argument(help="See `carrel templates`.", show_default="desktop")
    ] = None,
    able: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="CAPABILITY",
            help="In place of a template: the smallest that has it, such as vscode.",
        ),
    ] = None,
    ttl: Annotated[float, typer.Option(help="Seconds it lives.")] = 1800,
    name: Annotated[str, typer.Option(help="What people see it called.")] = "",
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A variable in it.")] = None,
    setup: Annotated[
        list[str] | None, typer.Option(metavar="CMD", help="Run in bash before it is ready.")
    ] = None,
    volume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its home, which stays: `carrel volumes`.")
    ] = None,
    idle: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Once not used or watched that long ...")
    ] = None,
    when_idle: Annotated[
        Literal["release", "pause"] | None,
        typer.Option(help="... it is released, or paused until it is used."),
    ] = None,
    keep_frames: Annotated[
        Literal["none", "changed", "all"] | None,
        typer.Option(help="Keep pictures of before and after actions: `carrel artifacts`."),
    ] = None,
    egress: Annotated[
        list[str] | None,
        typer.Option(metavar="RULES", help="What it reaches: none, internet, or hosts by commas."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=HOST[:PORT]",
            help="Put into requests there, and never in it; its value is the variable NAME here.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The same key again: the same desktop, not another.")
    ] = None,
    queue: Annotated[
        float, typer.Option(metavar="SECONDS", help="Waits that long for a place; 0: not at all.")
    ] = 60,
    json: Json = False,
) -> None:
    """Make a desktop; prints its id when it is ready to act."""
    environment = dict(_pair(item) for item in env or [])
    secrets = [_secret(item) for item in secret or []]

    async def main() -> None:
        async with controller() as carrel:
            what = template or (f"with {', '.join(able)}" if able else "desktop")
            with output.progress(f"Starting a desktop ({what})"):
                made = await carrel.create(
                    template,
                    capabilities=able or (),
                    name=name,
                    ttl_seconds=ttl,
                    environment=environment,
                    setup=setup or [],
                    volume=volume,
                    idle_seconds=idle,
                    when_idle=when_idle,
                    keep_frames=keep_frames,
                    egress=rules(egress),
                    secrets=secrets,
                    key=key,
                    queue_seconds=queue,
                )
        output.result(made.model_dump(mode="json"), made.id)
        if not json:
            output.note(f"watch it: {made.watch_url}")

    run(main)


def ls(
    everything: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    json: Json = False,
) -> None:
    """List the live desktops, newest first."""

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.list(state="all" if everything else None)
        output.workspaces(found)

    run(main)


def rm(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    json: Json = False,
) -> None:
    """Release desktops: each ends now, and everything in it is deleted."""

    async def main() -> None:
        async with controller() as carrel:
            for workspace_id in ids:
                await carrel.release(workspace_id)
                if not json:
                    print(workspace_id, flush=True)
        output.result({"released": ids})

    run(main)


def pause(workspace_id: Id, json: Json = False) -> None:
    """Have a desktop stand still until it is used or watched. Its time goes on."""

    async def main() -> None:
        async with controller() as carrel:
            paused = await carrel.pause(workspace_id)
        output.result(paused.model_dump(mode="json"), paused.state)

    run(main)


def resume(workspace_id: Id, json: Json = False) -> None:
    """Have a paused desktop go on; whatever is done in it does so too."""

    async def main() -> None:
        async with controller() as carrel:
            resumed = await carrel.resume(workspace_id)
        output.result(resumed.model_dump(mode="json"), resumed.state)

    run(main)


def watch(
    workspace_id: Id,
    vnc: Annotated[
        bool, typer.Option("--vnc", help="Serve it on a loopback port for a native VNC viewer.")
    ] = False,
    control: Annotated[
        bool, typer.Option("--control", help="With mouse and keyboard, not only to look.")
    ] = False,
    port: Annotated[int, typer.Option(help="The port for --vnc; 0: any free one.")] = 0,
    json: Json = False,
) -> None:
    """Open a desktop's screen in the browser, or serve it to a VNC viewer.

    A port opened by --vnc lets in the viewers of this user only; they need no password.
    """
    from controller.cli import screen

    if vnc:
        run(lambda: screen.tunnel(workspace_id, "control" if control else "view", port))
    else:
        run(lambda: screen.open_page(workspace_id, with_control=control))


def logs(
    workspace_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="With --follow also none: of all.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    json: Json = False,
) -> None:
    """What was done to a desktop, by whom, and how it went."""
    from controller.cli import events

    run(lambda: events.show(workspace_id, follow=follow))


@templates_app.callback()
def templates(context: typer.Context, json: Json = False) -> None:
    """List templates, or add one with `carrel templates add FILE`."""
    if context.invoked_subcommand is not None:
        return

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.templates()
        output.result([each.model_dump(mode="json") for each in found])
        if json:
            return
        output.table(
            ("NAME", "SCREEN", "CPUS", "MEMORY", "BACKEND", "DESCRIPTION"),
            (
                (
                    each.name,
                    f"{each.screen.width}x{each.screen.height}",
                    f"{each.cpus:g}",
                    f"{each.memory_mib} MiB",
                    each.backend,
                    each.description,
                )
                for each in found
            ),
        )

    run(main)


@templates_app.command("add")
def add_template(
    file: Annotated[Path, typer.Argument(help="A template as JSON; - is stdin.")],
    json: Json = False,
) -> None:
    """Add a template to the controller."""
    import sys

    from workspace.errors import FileMissing, InvalidRequest
    from workspace.models import Template

    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise FileMissing(f"{file} cannot be read: {error.strerror}.", hint="") from error
    if len(text) > 1 << 20:
        raise InvalidRequest(f"{file} is longer than a template can be.")

    async def main() -> None:
        template = Template.model_validate_json(text)
        async with controller() as carrel:
            added = await carrel.add_template(template)
        output.result(added.model_dump(mode="json"), added.name)

    run(main)


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{item!r} is not K=V", param_hint="--env")
    return name, value


def _secret(item: str) -> dict[str, str]:
    name, equals, host = item.partition("=")
    if not equals or not name or not host:
        raise typer.BadParameter(f"{item!r} is not NAME=HOST", param_hint="--secret")
    value = settings.variable(name)
    if not value:
        raise typer.BadParameter(f"the variable {name} is not set", param_hint="--secret")
    return {"name": name, "host": host, "value": value}
