"""Commands that speak MCP: the demo, and the server over stdio.

Both use a controller that answers, or start one for their own duration.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from controller.cli.output import Json


def add_to(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(mcp)


def demo(
    out: Annotated[Path, typer.Option(help="The folder for its screenshots.")] = Path(
        "carrel-demo"
    ),
    json: Json = False,
) -> None:
    """Do the main job in one go, over MCP: a desktop, a web form in it, filled in and sent."""
    from controller.cli import output
    from controller.cli.connect import run
    from controller.cli.process import at_hand
    from workspace import settings

    with at_hand():
        from agent_bridge.demo import demo as play

        url, key = settings.controller_url(), settings.api_key() or ""
        done = run(lambda: play(url, key, out, lambda step: output.note(f"{step}...")))
    output.result(done.model_dump(mode="json"))
    if not json:
        output.note(f"The form's server got: {done.text} ({done.seconds:.1f} s)")
        print(*done.screenshots, sep="\n")


def mcp() -> None:
    """Serve MCP over stdio, for an agent that starts its tools as programs."""
    from controller.cli.connect import run
    from controller.cli.process import at_hand

    with at_hand() as end:

        def leave(number: int, _frame: object) -> None:
            end()
            os._exit(128 + number)  # a thread is reading stdin: an ordinary exit waits for it

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        from agent_bridge import stdio

        run(stdio.serve)
