"""The tools for windows, applications, the clipboard and waiting, as a model uses them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Awaitable, Callable
from typing import get_args

import pytest
from mcp import Client
from mcp.types import CallToolResult
from PIL import Image as Pillow

from agent_bridge.waiting import WaitFor
from tests.agent_bridge.conftest import pictures_of, text_of
from tests.agent_bridge.fake import FakeController, FakeDesktop
from workspace import actions as a
from workspace import waits as w
from workspace.models import Clipboard, FileInfo, Window

pytestmark = pytest.mark.anyio
Call = Callable[..., Awaitable[CallToolResult]]


async def on(client: Client, controller: FakeController, template: str) -> tuple[Call, FakeDesktop]:
    """What calls tools on a new desktop, and that desktop."""
    created = await client.call_tool("desktop_create", {"template": template})
    id_ = json.loads(text_of(created))["desktop_id"]

    async def call(tool: str, **arguments: object) -> CallToolResult:
        return await client.call_tool(tool, {"desktop_id": id_, **arguments})

    return call, controller.desktops[id_]


async def test_an_application_and_its_window(client: Client, controller: FakeController) -> None:
    call, _ = await on(client, controller, "desktop")
    assert text_of(await call("launch")) == "org.xfce.mousepad: 'Mousepad'"
    assert text_of(await call("windows")) == "No window is open."
    line = "7 'Mousepad a.txt' ('Mousepad'), 640x480 at (-20, 30)"
    opened = await call("launch", name="mousepad", arguments=["a.txt"])
    assert text_of(opened) == f"Started as job j0. Its window: {line}"
    assert text_of(await call("windows")) == f"Windows, the topmost first:\n{line}"
    assert "No window came within 2 s" in text_of(
        await call("launch", name="sleep", wait_seconds=2)
    )
    assert "exit code 1 and no window" in text_of(await call("launch", name="false"))
    failed = await call("launch", name="nothing")
    assert text_of(failed).startswith("application_not_found: ")

    moved = await call("windows", action="move", window=7, x=5, y=6)
    assert text_of(moved).startswith("It is now: 7 ")
    assert text_of(moved).endswith("640x480 at (5, 6)")
    maximised = await call("windows", action="maximise", window="7")
    assert text_of(maximised).endswith("at (5, 6), maximised")
    restored = await call("windows", action="restore", window=7)
    assert text_of(restored).endswith("at (5, 6)")
    focused = await call("windows", action="focus", window=7)
    assert text_of(focused).endswith(", focused")
    closed = await call("windows", action="close", window=7)
    assert "wait_for window_closes" in text_of(closed)
    gone = await call("windows", action="focus", window=7)
    assert text_of(gone).startswith("window_not_found: ")


async def test_a_window_of_a_large_screen_is_where_the_picture_has_it(
    client: Client, controller: FakeController
) -> None:
    call, desktop = await on(client, controller, "large")
    box = {"x": 200, "y": -100, "width": 1000, "height": 500}
    desktop.windows[1] = Window(id=1, title="t", window_class="C", kind="dialog", **box)
    desktop.windows[2] = Window(id=2, title="", window_class="P", kind="panel", **box)
    listed = text_of(await call("windows"))
    assert listed == "Windows, the topmost first:\n1 't' ('C'), 500x250 at (100, -50), dialog"
    await call("windows", action="move", window=1, x=10, y=-20)
    await call("windows", action="resize", window=1, width=300, height=200)
    now = desktop.windows[1]
    assert (now.x, now.y, now.width, now.height) == (20, -40, 600, 400)
    desktop.waited = w.Waited(region=a.Region(x=201, y=100, width=3, height=4))
    region = {"x": 100, "y": 50, "width": 10, "height": 5}
    found = await call("wait_for", until="region_changes", region=region)
    assert "Where: 2x2 pixels at (100, 50)." in text_of(found)
    in_screen = a.Region(x=200, y=100, width=20, height=10)
    assert desktop.waits == [w.RegionChanges(region=in_screen)]
    desktop.waited = None
    assert "2 times those of your pictures" in text_of(
        await call("wait_for", until="region_stable")
    )


@pytest.mark.parametrize(
    ("tool", "asked", "says"),
    [
        ("windows", {"action": "move", "x": 1, "y": 1}, "move needs window. Its id is in the list"),
        ("windows", {"action": "resize", "window": 7, "width": 1}, "resize needs width and height"),
        ("windows", {"action": "resize", "window": 7, "width": 0, "height": 1}, "width: "),
        ("windows", {"action": "shake"}, "action: Input should be 'list', 'focus'"),
        ("wait_for", {"until": "rain"}, "There is no 'rain' to wait for. There are: text_appears,"),
        ("wait_for", {"until": "port_listens"}, "port_listens takes: seconds, port."),
        ("wait_for", {"until": "process_ends"}, "process_ends takes: seconds, job_id, pid, name."),
        ("wait_for", {"until": "window_opens"}, "give a title, a window_class, or both"),
        ("wait_for", {"until": "file_exists", "path": "a", "seconds": 46}, "45"),
        (
            "wait_for",
            {"until": "region_stable", "region": {"x": 0, "y": 0, "width": 1281, "height": 1}},
            "off_screen: ",
        ),
    ],
)
async def test_mistakes(
    client: Client, controller: FakeController, tool: str, asked: dict[str, object], says: str
) -> None:
    call, desktop = await on(client, controller, "desktop")
    desktop.windows[7] = Window(id=7, title="", window_class="", x=0, y=0, width=9, height=9)
    result = await call(tool, **asked)
    assert result.is_error
    assert says in text_of(result)
    assert desktop.waits == []


async def test_the_clipboard(client: Client, controller: FakeController) -> None:
    call, desktop = await on(client, controller, "desktop")
    assert text_of(await call("clipboard")) == "It is empty."
    await call("clipboard", text="Grüße", html="<b>x</b>")
    assert text_of(await call("clipboard")) == "Text:\nGrüße\nHTML:\n<b>x</b>"
    await call("clipboard", text="", selection="primary")
    assert desktop.clipboard["primary"].text == ""
    assert text_of(await call("clipboard", selection="primary")) == (
        "No text, HTML or picture, only: X."
    )
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(buffer, "PNG")
    desktop.clipboard["clipboard"] = Clipboard(image=base64.b64encode(buffer.getvalue()))
    (shown,) = pictures_of(await call("clipboard"))
    assert (shown.mime_type, base64.b64decode(shown.data)) == ("image/png", buffer.getvalue())
    desktop.clipboard["clipboard"] = Clipboard(text="x" * 30_000)
    cut = text_of(await call("clipboard"))
    assert cut.endswith("[cut: it has 30000 characters]")
    assert len(cut) < 21_000


@pytest.mark.parametrize(
    ("asked", "wanted", "found", "says"),
    [
        (
            {"until": "file_exists", "path": "*.pdf", "stable_ms": 500},
            w.FileExists(path="*.pdf", stable_ms=500),
            w.Waited(
                file=FileInfo.model_validate(
                    {"path": "/home/user/a.pdf", "name": "a.pdf", "kind": "file", "size": 12}
                    | {"mode": "644", "modified_at": 0}
                )
            ),
            "'/home/user/a.pdf', 12 bytes.",
        ),
        (
            {"until": "process_ends", "job_id": "j1", "seconds": 30},
            w.ProcessEnds(job="j1", seconds=30),
            w.Waited(exit_code=0),
            "Its exit code is 0.",
        ),
        (
            {"until": "text_appears", "text": "saved"},
            w.TextAppears(text="saved"),
            w.Waited(element="e12", text="Saved.", region=a.Region(x=1, y=2, width=3, height=4)),
            "e12 shows 'Saved.'. Where: 3x4 pixels at (1, 2).",
        ),
        (
            {"until": "port_listens", "port": 80},
            w.PortListens(port=80),
            w.Waited(address="127.0.0.1", elapsed_ms=1234),
            "It is so, after 1.23 s. It is listened on at 127.0.0.1.",
        ),
        (
            {"until": "window_opens", "title": "save"},
            w.WindowOpens(title="save"),
            w.Waited(window=Window(id=1, title="t", window_class="C", x=0, y=0, width=9, height=9)),
            "The window: 1 't' ('C'), 9x9 at (0, 0).",
        ),
    ],
)
async def test_waiting(
    client: Client,
    controller: FakeController,
    asked: dict[str, object],
    wanted: w.Wait,
    found: w.Waited,
    says: str,
) -> None:
    call, desktop = await on(client, controller, "desktop")
    desktop.waited = found
    assert says in text_of(await call("wait_for", **asked))
    assert desktop.waits == [wanted]
    desktop.waited = None
    late = await call("wait_for", **asked)
    assert late.is_error
    assert text_of(late) == "timed_out: It was not so. There was something else."


def test_every_field_of_a_wait_has_a_place_in_the_flat_schema() -> None:
    models = get_args(get_args(w.Wait)[0])
    fields = {name for model in models for name in model.model_fields} - {"type", "job"}
    assert fields == set(WaitFor.model_fields) - {"desktop_id", "until", "job_id"}
