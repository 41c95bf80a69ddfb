"""The command that measures: `carrel bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.output import Json

if TYPE_CHECKING:
    from benchmarks.rows import Measured

NEEDS = "`scripts/setup dev` installs what it needs."


def add_to(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    only: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Only this; may be given again.")
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option(metavar="PEER", help="Beside this; may be given again.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="At most so many of each.")] = 1000,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of the README.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", dir_okay=False, help="Draw it, too.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure desktops on this machine, beside the way others do the same (about 4 minutes).

    Tasks: start, screenshot, click, pixel, drag, type, settle, tree, calc. Peers: e2b, anthropic,
    osworld, pyautogui, pyautogui-unpaused, cua, ffmpeg.
    """
    from controller.cli import output
    from workspace.errors import InvalidRequest

    found = _measured(only or [], peer or [], samples)
    if plot is not None:
        from benchmarks.plot import draw

        try:
            draw(found, plot)
        except OSError as error:
            raise InvalidRequest(f"{plot} cannot be written: {error.strerror}.") from error
    output.result([each.row() for each in found])
    if json:
        return
    from benchmarks import report

    if markdown:
        print(report.markdown(found))
    else:
        output.table(report.COLUMNS, report.lines(found))


def _measured(only: list[str], beside: list[str], samples: int) -> list[Measured]:
    from controller.cli import output
    from controller.cli.connect import run
    from controller.cli.process import at_hand
    from workspace.client import Carrel
    from workspace.errors import InvalidRequest, Unavailable

    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401

        from benchmarks.peers import NAMES
        from benchmarks.run import TASKS, Plan, measure
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed.", hint=NEEDS) from error
    for what, asked, there in (("task", only, TASKS), ("peer", beside, tuple(NAMES))):
        if unknown := set(asked) - set(there):
            raise InvalidRequest(
                f"There is no {what} {min(unknown)!r}.", hint=f"There are: {', '.join(there)}."
            )
    plan = Plan(only or TASKS, beside or tuple(NAMES), samples)

    async def main() -> list[Measured]:
        async with Carrel() as carrel:
            return await measure(carrel, plan, output.note)

    with at_hand():
        return run(main)
