"""The log of events: read a page at a time, or followed as it grows."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import httpx

from workspace import errors, transport
from workspace.calls.volumes import Caller
from workspace.models import WORKSPACE_ID, Event, EventList

QUIET_SECONDS = 45.0  # three heartbeats
AGAIN_SECONDS = 0.5
MOST_AGAIN_SECONDS = 5.0
_MAX_LINE_BYTES = 16 << 20


class EventCalls:
    """What was done to the workspaces of this key."""

    async def events(
        self: Caller, workspace_id: str, *, after: int = 0, limit: int = 500
    ) -> EventList:
        """One page of a workspace's events, oldest first."""
        params = {"after": after, "limit": limit}
        body = await self._call("GET", f"{_path(workspace_id)}/events", params=params)
        return EventList.model_validate_json(body)

    async def follow(
        self: Caller, workspace_id: str | None = None, *, after: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """The events of a workspace, or of all, as they come: each once, until you stop.

        They begin after the id ``after`` (0: with the first), or with what is new. When the
        connection breaks, or the controller is away, it goes on after the last one as soon as it
        can: what happened meanwhile is told then.

        Raises:
            WorkspaceNotFound, Unauthorized, Forbidden: it cannot be followed at all.
            Unavailable: no controller answered when it began.
        """
        path = (
            "/v1/events/stream" if workspace_id is None else f"{_path(workspace_id)}/events/stream"
        )
        pause, is_begun = AGAIN_SECONDS, False
        while True:
            try:
                async with aclosing(_events(self._http, path, after)) as told:
                    async for event in told:
                        is_begun, pause = True, AGAIN_SECONDS
                        if event is not None:
                            after = event.id
                            yield event
            except (errors.DesktopLost, errors.TimedOut, errors.Unavailable) as error:
                if not is_begun:
                    if isinstance(error.__cause__, httpx.ConnectError):
                        raise errors.Unavailable(
                            "No controller answers.", hint="Start it with `carrel up`."
                        ) from error
                    raise
            await anyio.sleep(pause)
            pause = min(pause * 2, MOST_AGAIN_SECONDS)


async def _events(
    http: httpx.AsyncClient, path: str, after: int | None
) -> AsyncGenerator[Event | None, None]:
    """One connection's; None shows that it stands.

    Raises:
        CarrelError: what the controller ended it with.
    """
    params = {} if after is None else {"after": after}
    timeout = transport.timeout(QUIET_SECONDS)
    async with transport.stream(http, "GET", path, params=params, timeout=timeout) as answer:
        yield None
        kind, rest = "", b""
        async for chunk in answer.aiter_bytes():
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MAX_LINE_BYTES:
                raise errors.TooLarge("A line of the log is longer than it can be.")
            for line in lines:
                name, _, value = line.partition(b":")
                if name == b"event":
                    kind = value.strip().decode()
                elif name == b"data" and kind == "end":
                    raise errors.from_wire(json.loads(value), status=503)
                elif name == b"data":
                    yield Event.model_validate_json(value)


def _path(workspace_id: str) -> str:
    if re.fullmatch(WORKSPACE_ID, workspace_id) is None:
        raise errors.WorkspaceNotFound(f"There is no desktop {workspace_id[:80]!r}.")
    return f"/v1/workspaces/{workspace_id}"
