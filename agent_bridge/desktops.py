"""The tools for desktops themselves: desktop_create, desktop_list, desktop_get, desktop_destroy.

They answer in JSON text, which models read and scripts parse. A desktop that takes longer to start
than a client waits is not lost: its id is in the answer, and desktop_get tells when it is ready.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Annotated, Any

import anyio
from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge import pictures
from agent_bridge.caller import Caller, view_of
from agent_bridge.inputs import Input, OnDesktop
from workspace.egress import Egress, RuleText
from workspace.errors import CarrelError, TimedOut
from workspace.models import Workspace

CREATE_SECONDS = 45.0


class DesktopCreate(Input):
    """The arguments of desktop_create."""

    template: Annotated[str, Field(max_length=63, description='"desktop" if you name none')] = ""
    capabilities: Annotated[
        tuple[Annotated[str, Field(max_length=40)], ...],
        Field(max_length=20, description="in place of a template: browser, ide, vscode, jetbrains"),
    ] = ()
    name: Annotated[str, Field(max_length=100, description="a label for people")] = ""
    ttl_seconds: Annotated[
        float, Field(ge=1, le=86400, description="it is destroyed after that")
    ] = 1800
    volume: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9-]{0,63}$",
            description="a name: its files are the home of this and later desktops that name it, "
            "one at a time, and stay when it is destroyed",
        ),
    ] = ""
    idle_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=86400,
            description="unused that long it is paused, until your next call; 0: as the template "
            "says",
        ),
    ] = 0
    egress: Annotated[
        tuple[RuleText, ...],
        Field(
            max_length=50,
            description="hosts it may reach, within what its template permits: example.org, "
            "*.example.org, host:port; or internet alone; []: as the template says",
        ),
    ] = ()

    @property
    def rules(self) -> Egress | None:
        return "internet" if self.egress == ("internet",) else list(self.egress) or None


class DesktopList(Input):
    """The arguments of desktop_list."""


class DesktopGet(OnDesktop):
    """The arguments of desktop_get."""


class DesktopDestroy(OnDesktop):
    """The arguments of desktop_destroy."""


async def desktop_create(caller: Caller, asked: DesktopCreate) -> list[ContentBlock]:
    deadline = time.monotonic() + CREATE_SECONDS
    workspace = await caller.carrel.create(
        asked.template or None,
        capabilities=asked.capabilities,
        name=asked.name,
        ttl_seconds=asked.ttl_seconds,
        volume=asked.volume or None,
        idle_seconds=asked.idle_seconds or None,
        when_idle="pause" if asked.idle_seconds else None,
        egress=asked.rules,
        wait=False,
    )
    try:
        workspace = await caller.carrel.wait_ready(
            workspace, timeout_seconds=max(0.0, deadline - time.monotonic())
        )
    except TimedOut:
        return [_json(_described(caller, workspace) | {"next": "call desktop_get until ready"})]
    except anyio.get_cancelled_exc_class():
        # The caller will never learn this id.
        with anyio.CancelScope(shield=True), suppress(CarrelError):
            await caller.carrel.release(workspace.id)
        raise
    content: list[ContentBlock] = [_json(_described(caller, workspace))]
    with suppress(CarrelError):  # it is there all the same; the next call says what is wrong
        view = view_of(workspace)
        seen = await pictures.look(caller.carrel.desktop(workspace.id), view)
        if seen.screenshot is not None:
            content.append(pictures.content(seen.screenshot.data, seen.screenshot.format))
    return content


async def desktop_list(caller: Caller, asked: DesktopList) -> list[ContentBlock]:
    workspaces = (await caller.carrel.list())[:100]
    return [_json([_described(caller, workspace) for workspace in workspaces])]


async def desktop_get(caller: Caller, asked: DesktopGet) -> list[ContentBlock]:
    workspace = await caller.carrel.get(asked.desktop_id)
    return [_json(_described(caller, workspace))]


async def desktop_destroy(caller: Caller, asked: DesktopDestroy) -> list[ContentBlock]:
    await caller.carrel.release(asked.desktop_id)
    return [TextContent(type="text", text=f"Desktop {asked.desktop_id} is destroyed.")]


def _described(caller: Caller, workspace: Workspace) -> dict[str, Any]:  # Any: JSON values
    left = (workspace.expires_at - datetime.now(timezone.utc)).total_seconds()
    described: dict[str, Any] = {
        "desktop_id": workspace.id,
        "name": workspace.name,
        "state": workspace.state,
        "template": workspace.template,
        "screen": view_of(workspace).size,
        "watch_url": workspace.watch_url,
        "volume": workspace.volume or "",
        "egress": workspace.egress if workspace.egress != "none" else "",
        "seconds_left": max(0, int(left)) if workspace.ended_at is None else 0,
    }
    if workspace.state == "paused":
        described["next"] = "any call resumes it"
    if workspace.error is not None:
        described["error"] = workspace.error.model_dump()
    return {name: value for name, value in described.items() if value != ""}


def _json(value: object) -> TextContent:
    return TextContent(type="text", text=json.dumps(value, ensure_ascii=False))
