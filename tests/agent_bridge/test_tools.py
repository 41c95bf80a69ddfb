"""The tools as a model uses them: what it is told, what it sees, what it reads when it errs."""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from typing import get_args

import anyio
import pytest
from mcp import Client
from PIL import Image as Pillow

from agent_bridge import desktops, pictures, tools
from agent_bridge.caller import Caller
from agent_bridge.pictures import View
from agent_bridge.screen import FlatAction
from tests.agent_bridge.conftest import URL, carrel_for, pictures_of, text_of
from tests.agent_bridge.fake import KEY, FakeController
from workspace import actions as a
from workspace.models import Screen

pytestmark = pytest.mark.anyio


async def create(client: Client, template: str = "desktop") -> str:
    result = await client.call_tool("desktop_create", {"template": template})
    assert not result.is_error, text_of(result)
    return str(json.loads(text_of(result))["desktop_id"])


def opened(data: str) -> Pillow.Image:
    return Pillow.open(io.BytesIO(base64.b64decode(data)))


# What a client is told.


async def test_the_list_is_small_and_portable(client: Client) -> None:
    listed = (await client.list_tools()).tools
    assert len(listed) == len(tools.TOOLS) <= 27
    wire = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed]
    text = json.dumps(wire, separators=(",", ":"))
    print(f"tools/list is {len(text)} characters, about {len(text) // 4} tokens")
    assert len(text) < 6000 * 4
    for word in ("$ref", "$defs", "anyOf", "additionalProperties", "prefixItems", '"title":"'):
        assert word not in text
    for tool in listed:
        assert tool.description
        assert tool.output_schema is None
        assert tool.annotations is not None
        if tool.name not in ("desktop_create", "desktop_list", "pool_scale"):
            assert "desktop_id" in tool.input_schema["required"]


def test_every_action_and_every_field_of_it_has_a_place_in_the_flat_schema() -> None:
    models = get_args(get_args(a.Action)[0])
    kinds = FlatAction.model_json_schema()["properties"]["action"]["enum"]
    assert kinds == [model.model_fields["type"].default for model in models]
    of_pictures = {"format", "quality", "scale", "cursor", "width", "since", "delta"}
    fields = {name for model in models for name in model.model_fields} - of_pictures - {"type"}
    assert fields == set(FlatAction.model_fields) - {"action"}


# Desktops.


async def test_the_life_of_a_desktop(client: Client, controller: FakeController) -> None:
    result = await client.call_tool("desktop_create", {"name": "mine", "ttl_seconds": 100})
    told = json.loads(text_of(result))
    assert told["state"] == "ready"
    assert told["screen"] == [1280, 800]
    assert told["watch_url"]
    assert 95 <= told["seconds_left"] <= 100
    assert opened(pictures_of(result)[0].data).size == (1280, 800)
    assert result.structured_content is None
    id_ = told["desktop_id"]
    listed = await client.call_tool("desktop_list", {})
    assert [item["desktop_id"] for item in json.loads(text_of(listed))] == [id_]
    for _ in range(2):
        assert not (await client.call_tool("desktop_destroy", {"desktop_id": id_})).is_error
    got = await client.call_tool("desktop_get", {"desktop_id": id_})
    assert json.loads(text_of(got))["state"] == "released"
    after = await client.call_tool("screenshot", {"desktop_id": id_})
    assert after.is_error
    assert text_of(after).startswith("workspace_ended: ")


async def test_a_desktop_has_a_home_that_stays_if_it_is_asked_for(client: Client) -> None:
    result = await client.call_tool("desktop_create", {"volume": "my-home"})
    assert json.loads(text_of(result))["volume"] == "my-home"
    assert "volume" not in json.loads(text_of(await client.call_tool("desktop_create", {})))
    for name, code in (("my-home", "volume_in_use"), ("Not/One", "invalid_request")):
        refused = await client.call_tool("desktop_create", {"volume": name})
        assert refused.is_error
        assert text_of(refused).startswith(f"{code}: ")


async def test_an_unused_desktop_is_paused_if_that_is_asked_for(
    client: Client, controller: FakeController
) -> None:
    made = json.loads(text_of(await client.call_tool("desktop_create", {"idle_seconds": 60})))
    desktop = controller.desktops[made["desktop_id"]]
    assert (desktop.workspace.idle_seconds, desktop.workspace.when_idle) == (60, "pause")
    desktop.workspace = desktop.workspace.model_copy(update={"state": "paused"})
    told = json.loads(
        text_of(await client.call_tool("desktop_get", {"desktop_id": desktop.workspace.id}))
    )
    assert (told["state"], told["next"]) == ("paused", "any call resumes it")
    await client.call_tool("desktop_create", {})  # as its template says
    assert [it.workspace.idle_seconds for it in controller.desktops.values()] == [60, None]
    refused = await client.call_tool("desktop_create", {"idle_seconds": -1})
    assert text_of(refused).startswith("invalid_request: ")


async def test_operators_see_and_scale_pools(client: Client, controller: FakeController) -> None:
    listed = json.loads(text_of(await client.call_tool("pool_scale", {})))
    assert [pool["template"] for pool in listed] == ["desktop", "large"]
    (scaled,) = json.loads(
        text_of(await client.call_tool("pool_scale", {"template": "large", "warm": 2, "max": "9"}))
    )
    assert (scaled["template"], scaled["target"], scaled["state"]) == ("large", 2, "filling")
    assert controller.pools["large"].pool.max == 9
    for arguments, code in (
        ({"template": "none", "warm": 1}, "template_not_found"),
        ({"template": "large", "max": 0}, "invalid_request"),
        ({"warm": 1}, "invalid_request"),
    ):
        refused = await client.call_tool("pool_scale", arguments)
        assert refused.is_error
        assert text_of(refused).startswith(f"{code}: ")


async def test_a_slow_start_is_answered_in_time_and_not_lost(
    client: Client, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desktops, "CREATE_SECONDS", 0.2)
    controller.start_seconds = 0.6
    told = json.loads(text_of(await client.call_tool("desktop_create", {})))
    assert told["state"] == "starting"
    assert "desktop_get" in told["next"]
    with anyio.fail_after(5):
        while told["state"] == "starting":
            got = await client.call_tool("desktop_get", {"desktop_id": told["desktop_id"]})
            told = json.loads(text_of(got))
    assert told["state"] == "ready"


async def test_a_start_that_fails_says_why(client: Client, controller: FakeController) -> None:
    controller.fails_to_start = True
    result = await client.call_tool("desktop_create", {})
    assert result.is_error
    assert text_of(result) == "start_failed: X did not start. Try again."


# Mouse, keyboard and pictures.


async def test_acting_says_what_was_seen_and_shows_it(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client)
    click = {"desktop_id": id_, "action": "click", "x": 640, "y": 400, "count": 2}
    result = await client.call_tool("computer", click)
    text = "Done: click x2 (640, 400). The screen changed and came to rest. Screen 1280x800."
    assert text_of(result) == f"{text} Mouse at (640, 400)."
    assert result.structured_content is None
    assert opened(pictures_of(result)[0].data).format == "JPEG"
    desktop = controller.desktops[id_]
    desktop.effect = "no_visible_change"
    typed = {"desktop_id": id_, "action": "type", "text": "Grüße, 世界 🚀"}
    assert "No visible change was seen." in text_of(await client.call_tool("computer", typed))
    blind = await client.call_tool("computer", typed | {"screenshot": "none"})
    assert not pictures_of(blind)
    assert "not looked at" in text_of(blind)
    expected = a.Type(text="Grüße, 世界 🚀")
    assert desktop.actions == [a.Click(x=640, y=400, count=2), expected, expected]


async def test_effect_is_told_in_the_pictures_pixels(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client, "large")
    controller.desktops[id_].seen = {
        "changed": [a.Region(x=201, y=100, width=100, height=50)],
        "focused": a.FocusedWindow(id=7, title="A form", window_class="Chromium"),
        "focused_element": a.FocusedElement(id="e12", role="entry", name="Name", text="x"),
        "focus_moved": True,
    }
    click = {"desktop_id": id_, "action": "click", "x": 120, "y": 60}
    said = text_of(await client.call_tool("computer", click))
    assert "The screen changed at (100, 50) 51x25 and came to rest." in said
    assert "The focus moved to entry 'Name' in the window 'A form'; its text is now 'x'." in said


async def test_a_batch_is_one_call(client: Client, controller: FakeController) -> None:
    id_ = await create(client)
    actions = [
        {"action": "click", "x": 1, "y": 2},
        {"action": "drag", "path": [[1, 2], [3, 4]], "modifiers": ["shift"]},
        {"action": "scroll", "x": 5, "y": 5, "dy": 3},
        {"action": "key", "chord": "ctrl+s", "repeat": 2},
    ]
    as_json = {"desktop_id": id_, "actions": json.dumps(actions)}  # as some clients send lists
    result = await client.call_tool("computer_batch", as_json)
    assert not result.is_error, text_of(result)
    assert len(pictures_of(result)) == 1
    assert controller.desktops[id_].actions == [
        a.Click(x=1, y=2),
        a.Drag(path=[(1, 2), (3, 4)], modifiers=["shift"]),
        a.Scroll(x=5, y=5, dy=3),
        a.Key(chord="ctrl+s", repeat=2),
    ]


async def test_a_large_screen_is_seen_small_and_hit_exactly(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client, "large")
    desktop = controller.desktops[id_]
    got = await client.call_tool("desktop_get", {"desktop_id": id_})
    assert json.loads(text_of(got))["screen"] == [1920, 1080]
    for x, y in ((0, 0), (960, 540), (1919, 1079)):
        asked = {"desktop_id": id_, "action": "click", "x": x, "y": y}
        result = await client.call_tool("computer", asked)
        assert f"Mouse at ({x}, {y})." in text_of(result)
        assert opened(pictures_of(result)[0].data).size == (1920, 1080)
        assert desktop.actions[-1] == a.Click(x=2 * x + 1, y=2 * y + 1)
    outside = {"desktop_id": id_, "action": "click", "x": 1920, "y": 0}
    refused = await client.call_tool("computer", outside)
    assert text_of(refused).startswith("off_screen: (1920, 0) is outside the screen of 1920x1080.")
    region = {"x": 100, "y": 100, "width": 200, "height": 100}
    zoomed = await client.call_tool("screenshot", {"desktop_id": id_, "region": region})
    assert opened(pictures_of(zoomed)[0].data).size == (800, 400)
    assert "stay those of the whole screen, 1920x1080" in text_of(zoomed)


async def test_a_screen_that_changed_is_hit_where_it_is_now(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client)
    asked = {"desktop_id": id_, "action": "click", "x": 1279, "y": 799}
    assert "Mouse at (1279, 799)." in text_of(await client.call_tool("computer", asked))
    desktop = controller.desktops[id_]
    screen = Screen(width=2560, height=1600)
    desktop.workspace = desktop.workspace.model_copy(update={"screen": screen})
    assert "Mouse at (1279, 799)." in text_of(await client.call_tool("computer", asked))
    assert desktop.actions[-1] == a.Click(x=2559, y=1599)


async def test_what_was_done_is_told_even_without_a_picture_of_it(
    client: Client, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await create(client)
    controller.desktops[id_].is_noisy = True
    monkeypatch.setattr(pictures, "MAX_BYTES", 10)
    click = {"action": "click", "x": 1, "y": 1}
    for actions in ([click], [click, {"action": "screenshot"}]):
        batch = {"desktop_id": id_, "actions": actions}
        result = await client.call_tool("computer_batch", batch)
        assert not result.is_error
        assert "Done: click (1, 1). The screen changed" in text_of(result)
        assert "There is no picture of it: The picture is too large" in text_of(result)
    looking = await client.call_tool("screenshot", {"desktop_id": id_})
    assert text_of(looking).startswith("too_large: ")
    assert len(controller.desktops[id_].actions) == 2


async def test_a_batch_may_end_with_a_look_and_only_end_with_it(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client)
    move = {"action": "move", "x": 7, "y": 8}
    zoom = {"action": "zoom", "region": {"x": 0, "y": 0, "width": 100, "height": 50}}
    batch = {"desktop_id": id_, "actions": [move, zoom]}
    result = await client.call_tool("computer_batch", batch)
    assert opened(pictures_of(result)[0].data).size == (200, 100)
    assert "Done: move (7, 8)." in text_of(result)
    refused = await client.call_tool("computer_batch", {"desktop_id": id_, "actions": [zoom, move]})
    assert "only be the last action" in text_of(refused)
    assert controller.desktops[id_].actions == [a.Move(x=7, y=8)]


async def test_a_busy_screen_stays_under_the_limit(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client, "large")
    controller.desktops[id_].is_noisy = True
    for name, more in (
        ("computer", {"action": "move", "x": 1, "y": 1}),
        ("screenshot", {"format": "png"}),
        ("screenshot", {"region": {"x": 0, "y": 0, "width": 1900, "height": 1000}}),
    ):
        result = await client.call_tool(name, {"desktop_id": id_, **more})
        assert not result.is_error, text_of(result)
        assert len(result.model_dump_json()) < 1_000_000
        assert max(opened(pictures_of(result)[0].data).size) <= 2000


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1200), (3840, 2160), (5120, 1440), (2001, 7)])
def test_every_pixel_of_a_picture_comes_back_as_itself(size: tuple[int, int]) -> None:
    view = View.of(*size)
    width, height = view.size
    assert max(width, height) <= pictures.MAX_SIDE
    for x in {0, 1, width // 3, width - 2, width - 1}:
        for y in {0, 1, height // 3, height - 2, height - 1}:
            on_screen = view.to_screen(x, y)
            assert 0 <= on_screen[0] < size[0]
            assert 0 <= on_screen[1] < size[1]
            assert view.to_picture(*on_screen) == (x, y)
    assert view.region_to_screen(a.Region(x=0, y=0, width=width, height=height)) == a.Region(
        x=0, y=0, width=size[0], height=size[1]
    )


# Mistakes.


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"action": "clik"}, "There is no action 'clik'. There are: screenshot, zoom,"),
        ({"action": "click", "x": 5}, "give both x and y, or neither"),
        ({"action": "click", "x": 1.5, "y": 2}, "x: Input should be a valid integer"),
        ({"action": "key"}, "key.chord: it is required. key takes: chord, repeat."),
        ({"action": "key", "text": "a"}, "key.text: there is no such argument"),
        ({"action": "click", "x": 1280, "y": 0}, "(1280, 0) is outside the screen of 1280x800."),
        ({"action": "click", "coordinate": [1, 2]}, "coordinate: there is no such argument"),
        ({"action": "drag", "path": [[1, 2], [9000, 4]]}, "(9000, 4) is outside"),
        ({"action": "wait", "seconds": 41}, "That takes 41 s; one call may take 40 s."),
        ({"action": "type", "text": "x" * 4001}, "write a file with file_write"),
        ({"action": "key", "chord": "nokey"}, "unknown_key: There is no key 'nokey'. Did you mean"),
    ],
)
async def test_a_wrong_action_says_what_is_right(
    client: Client, controller: FakeController, asked: dict[str, object], says: str
) -> None:
    id_ = await create(client)
    result = await client.call_tool("computer", {"desktop_id": id_, **asked})
    assert result.is_error
    assert says in text_of(result)
    assert controller.desktops[id_].actions == []


async def test_a_batch_with_a_wrong_action_does_nothing_and_a_failing_one_says_how_far_it_came(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client)
    good, off = {"action": "move", "x": 1, "y": 1}, {"action": "move", "x": -1, "y": 1}
    result = await client.call_tool("computer_batch", {"desktop_id": id_, "actions": [good, off]})
    assert "Action 2 of 2: (-1, 1) is outside" in text_of(result)
    assert "None of them was done." in text_of(result)
    assert controller.desktops[id_].actions == []
    failing = {"action": "key", "chord": "nokey"}
    asked = {"desktop_id": id_, "actions": [good, failing, good]}
    result = await client.call_tool("computer_batch", asked)
    assert "1 of the actions before it were done." in text_of(result)


@pytest.mark.parametrize(
    ("name", "asked", "says"),
    [
        ("screenshot", {"desktop_id": "zzzzzzzzzz"}, "workspace_not_found: "),
        ("screenshot", {}, "invalid_request: desktop_id: it is required."),
        ("desktop_create", {"template": "nope"}, "There are: desktop, large."),
        ("file_read", {"desktop_id": "fake0000", "path": "nope"}, "file_not_found: "),
        ("shell_poll", {"desktop_id": "fake0000", "job_id": "j9"}, "process_not_found: "),
        ("shell_run", {"desktop_id": "fake0000", "command": "x", "timeout_seconds": 99}, "45"),
        ("no_such_tool", {}, "There is no tool 'no_such_tool'. Use: desktop_create,"),
    ],
)
async def test_other_mistakes(
    client: Client, name: str, asked: dict[str, object], says: str
) -> None:
    await create(client)
    result = await client.call_tool(name, asked)
    assert result.is_error
    assert says in text_of(result)


async def test_a_defect_is_logged_and_not_shown(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("inner words")

    monkeypatch.setattr(Caller, "view", broken)
    with caplog.at_level(logging.ERROR):
        result = await client.call_tool("screenshot", {"desktop_id": "fake0000"})
    assert text_of(result).startswith("internal: screenshot failed.")
    assert "inner words" not in text_of(result)
    assert "inner words" in caplog.text


async def test_a_call_that_takes_too_long_is_given_up_and_progress_told(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "BEAT_SECONDS", 0.1)
    told: list[float] = []

    async def progress(elapsed: float, message: str) -> None:
        assert message.startswith("computer: ")
        told.append(elapsed)

    async with carrel_for(controller, KEY) as carrel:
        caller = Caller(carrel, public_url=URL)
        id_ = (await carrel.create()).id
        began = time.monotonic()
        waiting = {"desktop_id": id_, "action": "wait", "seconds": 30}
        result = await tools.call(caller, "computer", waiting, progress, seconds=0.5)
    assert time.monotonic() - began < 2
    assert text_of(result).startswith("timed_out: computer was not finished after 0.5 s")
    assert len(told) >= 3
    assert told == sorted(told)


# Shell and files.


async def test_a_command_runs_or_becomes_a_job(client: Client) -> None:
    id_ = await create(client)
    done = await client.call_tool("shell_run", {"desktop_id": id_, "command": "echo hello"})
    assert text_of(done) == "Exit code 0.\nstdout:\nhello\n"
    long = {"desktop_id": id_, "command": "sleep 60", "timeout_seconds": 0.1}
    running = text_of(await client.call_tool("shell_run", long))
    assert running.startswith("Still running as job j1.")
    poll = {"desktop_id": id_, "job_id": "j1", "wait_seconds": 0.1}
    assert "Still running" in text_of(await client.call_tool("shell_poll", poll))
    stopped = await client.call_tool("shell_poll", poll | {"signal": "TERM"})
    assert text_of(stopped) == "Exit code 0."


async def test_long_output_is_read_in_parts_without_a_gap(client: Client) -> None:
    id_ = await create(client)
    run = {"desktop_id": id_, "command": "flood 9000"}
    text = text_of(await client.call_tool("shell_run", run))
    read, errors = "", ""
    for _ in range(20):
        assert len(text) < 21_000
        body = text.partition("stdout:\n")[2] if "stdout:" in text else ""
        out, _, err = (body or text).partition("stderr:\n")
        read += out.removesuffix("\n") if err and body else body
        errors += err
        if "There is more output" not in text:
            break
        note = text.partition("There is more output: ")[2].partition(".\n")[0]
        words = note.replace(",", "").split()
        poll = {
            "desktop_id": id_,
            "job_id": words[words.index("job_id") + 1],
            "stdout_from": int(words[words.index("stdout_from") + 1]),
            "stderr_from": int(words[words.index("stderr_from") + 1]),
        }
        text = text_of(await client.call_tool("shell_poll", poll))
    assert errors == "e" * 9000
    assert read == "".join(f"line {number} ü\n" for number in range(9000))


async def test_files_come_as_they_are_in_parts(client: Client, controller: FakeController) -> None:
    id_ = await create(client)
    text = "".join(f"Zeile {number}: Grüße, 世界 🚀\n" for number in range(2000))
    asked = {"desktop_id": id_, "path": "a.txt"}
    wrote = await client.call_tool("file_write", asked | {"content": text})
    assert text_of(wrote) == f"Wrote {len(text.encode())} bytes to /home/user/a.txt."
    assert controller.desktops[id_].files["a.txt"] == text.encode()
    for unit in ("lines", "bytes"):
        read, offset = "", 0
        for _ in range(20):
            part = await client.call_tool("file_read", asked | {"offset": offset, "unit": unit})
            blocks = [item.text for item in part.content]  # type: ignore[union-attr]  # all text
            read += blocks[0]
            if len(blocks) == 1:
                break
            offset = int(blocks[1].rpartition(" ")[2].rstrip("]"))
        if unit == "lines":
            assert read == text
        else:  # 1000 bytes at a time: no character is ever cut
            assert text.startswith(read)
            assert len(read) > 10_000
    assert "a.txt" in text_of(await client.call_tool("file_list", {"desktop_id": id_}))


async def test_pictures_are_seen_and_binaries_refused(
    client: Client, controller: FakeController
) -> None:
    id_ = await create(client)
    files = controller.desktops[id_].files
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(buffer, "PNG")
    files |= {"p.png": buffer.getvalue(), "b.bin": b"\x7fELF\0\0", "long": b"x" * 50_000}
    seen = await client.call_tool("file_read", {"desktop_id": id_, "path": "p.png"})
    assert pictures_of(seen)[0].mime_type == "image/png"
    refused = await client.call_tool("file_read", {"desktop_id": id_, "path": "b.bin"})
    assert refused.is_error
    assert f"{URL}/v1/workspaces/{id_}/files?path=" in text_of(refused)
    cut = await client.call_tool("file_read", {"desktop_id": id_, "path": "long"})
    assert 'unit "bytes" and offset 0' in text_of(cut)
    huge = {"desktop_id": id_, "path": "h", "content": "x" * ((4 << 20) + 1)}
    assert "too_large: " in text_of(await client.call_tool("file_write", huge))
