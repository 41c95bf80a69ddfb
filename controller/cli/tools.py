"""`carrel tools`: MCP servers beside the desktop: which there are, how they are; added, removed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.output import Json

MAX_SECRET_BYTES = 8192
tools_app = typer.Typer(
    help="List, add or remove MCP servers whose tools are offered beside the desktops'.",
    invoke_without_command=True,
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(tools_app, name="tools")


@tools_app.callback()
def tools(context: typer.Context, json: Json = False) -> None:
    """List tool servers and how they are. `carrel tools add NAME URL` registers one."""
    if context.invoked_subcommand is None:
        ls(json=json)


@tools_app.command()
def ls(json: Json = False) -> None:
    """List tool servers, by name, and how each is."""

    async def main() -> None:
        async with controller() as carrel:
            found = await carrel.tools()
        output.result([each.model_dump(mode="json", exclude={"listed"}) for each in found])
        if json:
            return
        output.table(
            ("NAME", "WHERE", "STATE", "SINCE", "TOOLS", "WHY"),
            (
                (
                    each.name,
                    each.url or f"in desktops of {each.template}",
                    each.state,
                    f"{each.since:%Y-%m-%d %H:%M:%S}" if each.since else "",
                    str(each.tools),
                    each.reason or "; ".join(f"left out {what}" for what in each.left_out),
                )
                for each in found
            ),
        )

    run(main)


@tools_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Its tools are called NAME__TOOL.")],
    url: Annotated[str, typer.Argument(help="Where it serves MCP over streamable HTTP.")],
    secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What is sent to it, as 'Bearer ...', in a file; - reads it here."
        ),
    ] = None,
    header: Annotated[str, typer.Option(help="The header that the secret is.")] = "Authorization",
    tenant: Annotated[str | None, typer.Option(help="Whose it is; for the admin's key.")] = None,
    json: Json = False,
) -> None:
    """Register an MCP server."""

    async def main() -> None:
        secret = None if secret_file is None else _read(secret_file)
        async with controller() as carrel:
            made = await carrel.add_tools(name, url, secret=secret, header=header, tenant=tenant)
        output.result(made.model_dump(mode="json", exclude={"listed"}), made.name)

    run(main)


@tools_app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    tenant: Annotated[str | None, typer.Option(help="Whose it is; for the admin's key.")] = None,
    json: Json = False,
) -> None:
    """Forget registered servers, and their secrets."""

    async def main() -> None:
        async with controller() as carrel:
            for name in names:
                await carrel.remove_tools(name, tenant=tenant)
                if not json:
                    print(name, flush=True)
        output.result({"removed": names})

    run(main)


@tools_app.command()
def cache(
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="TEMPLATE|PACKAGE...",
            help="A template, for all that its tools name; or pip:name==version, npm:name@version.",
        ),
    ],
    json: Json = False,
) -> None:
    """Install packages of tool servers for this node's desktops, where they need no network.

    Desktops that run see a package as soon as it is whole. Run it on each node.
    """
    from controller.settings import Settings
    from controller.templates import Templates
    from controller.toolcache import install
    from workspace.errors import InvalidRequest

    settings = Settings()
    packages: list[str] = []
    for each in wanted:
        if ":" in each:
            packages.append(each)
            continue
        programs = Templates(settings.templates).get(each).tools.values()
        named = [program.package for program in programs if program.package is not None]
        if not named:
            raise InvalidRequest(f"The tools of the template {each} name no packages.")
        packages += named
    done = []
    for package in dict.fromkeys(packages):
        output.note(f"installing {package}")
        made = install(settings.tools, package)
        done.append({"package": made.package, "commands": made.commands})
        if not json:
            print(f"{made.package}: {', '.join(made.commands)}", flush=True)
    output.result(done)


def _read(path: Path) -> str:
    """A secret: from a file, so that it stands in no list of processes and no shell's history."""
    from workspace.errors import FileMissing, TooLarge

    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_SECRET_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise FileMissing(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_SECRET_BYTES:
        raise TooLarge(f"A secret has at most {MAX_SECRET_BYTES} bytes.")
    return data.decode("utf-8", "replace").strip()
