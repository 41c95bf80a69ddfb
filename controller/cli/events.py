"""A desktop's events, as lines."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING

from controller.cli import output
from controller.cli.connect import controller
from workspace.errors import InvalidRequest

if TYPE_CHECKING:
    from workspace.models import Event

PAGE = 500


async def show(workspace_id: str | None, *, follow: bool) -> None:
    """Print a desktop's events; with ``follow`` until interrupted, and of all if no id is given."""
    if follow:
        return await _follow(workspace_id)
    if workspace_id is None:
        raise InvalidRequest("Of which desktop?", hint="Name it, or follow all with --follow.")
    shown: list[Event] = []
    async with controller() as carrel:
        after = 0
        while (page := await carrel.events(workspace_id, after=after, limit=PAGE)).events:
            after = page.after
            shown += page.events
            for event in [] if output.wants_json() else page.events:
                print(line(event), flush=True)
    output.result([event.model_dump(mode="json") for event in shown])


async def _follow(workspace_id: str | None) -> None:
    """Of one desktop from its beginning, of all what is new; one JSON object a line, or text."""
    async with controller() as carrel:
        after = None if workspace_id is None else 0
        async with aclosing(carrel.follow(workspace_id, after=after)) as events:
            async for event in events:
                if output.wants_json():
                    print(output.inert(event.model_dump_json()), flush=True)
                else:
                    told = line(event)
                    whose = "" if workspace_id else f"{event.workspace_id or '-':<12}"
                    print(output.inert(whose) + told, flush=True)


def line(event: Event) -> str:
    """An event for a person; whatever is in it, it is one line."""
    data = " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in event.data.items()
    )
    when = event.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    return output.inert(f"{when}  {event.actor:<10}  {event.kind:<14}  {data}".rstrip())
