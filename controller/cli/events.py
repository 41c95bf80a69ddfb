"""A desktop's events, as lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio

from controller.cli import output
from controller.cli.connect import controller

if TYPE_CHECKING:
    from workspace.models import Event

PAGE = 500
FOLLOW_SECONDS = 1.0


async def show(workspace_id: str, *, follow: bool) -> None:
    """Print events as they are; with ``follow`` until interrupted, one JSON object a line."""
    after = 0
    shown: list[Event] = []
    async with controller() as carrel:
        while True:
            page = await carrel.events(workspace_id, after=after, limit=PAGE)
            after = page.after
            for event in page.events:
                if not output.wants_json():
                    print(line(event), flush=True)
                elif follow:
                    print(output.inert(event.model_dump_json()), flush=True)
                else:
                    shown.append(event)
            if page.events:
                continue
            if not follow:
                break
            await anyio.sleep(FOLLOW_SECONDS)
    output.result([event.model_dump(mode="json") for event in shown])


def line(event: Event) -> str:
    """An event for a person; whatever is in it, it is one line."""
    data = " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in event.data.items()
    )
    when = event.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    return output.inert(f"{when}  {event.actor:<10}  {event.kind:<14}  {data}".rstrip())
