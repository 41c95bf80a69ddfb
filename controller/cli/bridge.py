"""Commands that speak MCP: the demo, and the server over stdio.

Both use a controller that answers, or start one for their own duration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.output import Json


def add_to(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(mcp)


def demo(
    out: Annotated[Path | None, typer.Option(help="Where the screenshots go.")] = None,
    json: Json = False,
) -> None:
    """Do the main job in one go, over MCP: a desktop, a web form in it, filled and submitted."""


def mcp() -> None:
    """Serve MCP over stdio, for an agent that starts its tools as programs."""
    from controller.cli.connect import run
    from controller.cli.process import at_hand

    with at_hand():
        from agent_bridge import stdio

        run(stdio.serve)
