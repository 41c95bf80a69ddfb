"""The tools for windows and applications: windows, launch.

A window is told in one line: its id, title, class, place and state. Places are those of the
picture that the model sees, like all coordinates; a window may reach beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import anyio
from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge.caller import Caller
from agent_bridge.inputs import FromJson, NotBool, OnDesktop
from agent_bridge.pictures import View
from workspace.desktop import Desktop
from workspace.errors import InvalidRequest, WindowNotFound
from workspace.models import Application, Window

MAX_WAIT_SECONDS = 40
_FOCUS_SECONDS, _LOOK_SECONDS = 1.0, 0.05
_MAX_TITLE = 200
_MAX_LISTED = 150
_STATES = {
    "minimise": "minimised",
    "maximise": "maximised",
    "fullscreen": "fullscreen",
    "restore": "normal",
}
_Number = Annotated[int | None, NotBool]


class Windows(OnDesktop):
    """The arguments of windows."""

    action: Literal[
        "list", "focus", "move", "resize", "minimise", "maximise", "fullscreen", "restore", "close"
    ] = "list"
    window: Annotated[int | None, NotBool, Field(description="id from list; not for list")] = None
    x: Annotated[_Number, Field(description="move: its left edge")] = None
    y: _Number = None
    width: Annotated[_Number, Field(description="resize")] = None
    height: _Number = None


class Launch(OnDesktop):
    """The arguments of launch."""

    name: Annotated[
        str | None, Field(max_length=255, description="as listed, or its title; none lists them")
    ] = None
    arguments: Annotated[
        list[str] | None, FromJson, Field(description="files or addresses to open")
    ] = None
    wait_seconds: Annotated[
        float, Field(ge=0, le=MAX_WAIT_SECONDS, description="for its window")
    ] = 15


async def windows(caller: Caller, asked: Windows) -> list[ContentBlock]:
    view = await caller.view(asked.desktop_id)
    desktop = caller.carrel.desktop(asked.desktop_id)
    if asked.action == "list":
        return _text(listed(await desktop.windows(), view))
    if asked.window is None:
        raise InvalidRequest(f"{asked.action} needs window.", hint="Its id is in the list.")
    if asked.action == "close":
        await desktop.close_window(asked.window)
        return _text(
            "It was asked to close. It may ask back whether to save: wait_for window_closes, or "
            "take a screenshot."
        )
    now = await _changed(desktop, asked, asked.window, view)
    return _text(f"It is now: {described(now, view)}")


async def _changed(desktop: Desktop, asked: Windows, window: int, view: View) -> Window:
    (width, height), (wide, high) = view.size, view.screen
    if asked.action == "move":
        x, y = _both(asked, "x", "y")
        return await desktop.move_window(window, x * wide // width, y * high // height)
    if asked.action == "resize":
        to_wide, to_high = _both(asked, "width", "height")
        return await desktop.resize_window(
            window, to_wide * wide // width, to_high * high // height
        )
    if asked.action == "focus":
        await desktop.focus_window(window)
        return await _focused(desktop, window)
    return await desktop.set_window_state(window, _STATES[asked.action])


def _both(asked: Windows, one: str, other: str) -> tuple[int, int]:
    first, second = getattr(asked, one), getattr(asked, other)
    if first is None or second is None:
        raise InvalidRequest(f"{asked.action} needs {one} and {other}.")
    return int(first), int(second)


async def _focused(desktop: Desktop, window: int) -> Window:
    """The window once it has the keyboard, or as it is when it does not get it."""
    deadline = anyio.current_time() + _FOCUS_SECONDS
    while True:
        now = next((each for each in await desktop.windows() if each.id == window), None)
        if now is None:
            raise WindowNotFound(f"There is no window {window} any more.")
        if now.is_focused or anyio.current_time() >= deadline:
            return now
        await anyio.sleep(_LOOK_SECONDS)


async def launch(caller: Caller, asked: Launch) -> list[ContentBlock]:
    view = await caller.view(asked.desktop_id)
    desktop = caller.carrel.desktop(asked.desktop_id)
    if asked.name is None:
        page = await desktop.applications()
        return _text("\n".join(_offered(page.applications)) or "No applications are installed.")
    launched = await desktop.launch(
        asked.name, asked.arguments or [], wait_seconds=asked.wait_seconds
    )
    said = f"Started as job {launched.job.id}."
    if launched.window is not None:
        return _text(f"{said} Its window: {described(launched.window, view)}")
    if launched.job.state == "exited":
        return _text(
            f"{said} It has ended with exit code {launched.job.exit_code} and no window came: "
            "shell_poll has what it wrote."
        )
    return _text(
        f"{said} No window came within {asked.wait_seconds:g} s: wait_for window_opens, or take a "
        "screenshot."
    )


def _offered(applications: Sequence[Application]) -> list[str]:
    lines = [f"{each.name}: {each.title[:_MAX_TITLE]!r}" for each in applications[:_MAX_LISTED]]
    if len(applications) > _MAX_LISTED:
        lines.append(f"and {len(applications) - _MAX_LISTED} more")
    return lines


def listed(there: Sequence[Window], view: View) -> str:
    """The windows, the topmost first; panels and the backdrop are no use to a model."""
    shown = [each for each in reversed(there) if each.kind not in ("panel", "desktop")]
    lines = [described(each, view) for each in shown[:_MAX_LISTED]]
    if len(shown) > _MAX_LISTED:
        lines.append(f"and {len(shown) - _MAX_LISTED} more")
    return "\n".join(["Windows, the topmost first:", *lines]) if lines else "No window is open."


def described(window: Window, view: View) -> str:
    """A window in one line, in the picture's pixels."""
    (width, height), (wide, high) = view.size, view.screen
    x, y = window.x * width // wide, window.y * height // high
    size = f"{window.width * width // wide}x{window.height * height // high}"
    states = [*window.state, *(["focused"] if window.is_focused else [])]
    if window.kind != "normal":
        states.insert(0, window.kind)
    words = [f"{window.id} {window.title[:_MAX_TITLE]!r} ({window.window_class[:_MAX_TITLE]!r})"]
    words.append(f"{size} at ({x}, {y})")
    return ", ".join(words + states)


def _text(text: str) -> list[ContentBlock]:
    return [TextContent(type="text", text=text)]
