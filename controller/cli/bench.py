"""The command that measures: `carrel bench`."""

from __future__ import annotations

import typer

from controller.cli.output import Json


def add_to(app: typer.Typer) -> None:
    app.command()(bench)


def bench(json: Json = False) -> None:
    """Measure desktops on this machine, beside the way others do the same."""
    from benchmarks import desktop as measured
    from controller.cli import output
    from controller.cli.connect import run
    from controller.cli.process import at_hand
    from workspace.client import Carrel

    async def measure() -> list[measured.Row]:
        async with Carrel() as carrel:
            return await measured.measure(carrel, lambda what: output.note(f"measuring {what}..."))

    with at_hand():
        rows = run(measure)
    output.result(rows)
    if not json:
        output.table(
            ("WHAT", "UNIT", "P50", "P95", "N"),
            [(r["name"], r["unit"], str(r["p50"]), str(r["p95"]), str(r["n"])) for r in rows],
        )
