"""Waiting and the clipboard through the daemon, as its clients use them."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.conftest import Daemon
from tests.workspace.desktopd.x11.test_copying import picture
from workspace import actions as a
from workspace import waits as w
from workspace.desktop import Desktop
from workspace.errors import InvalidRequest, TimedOut, TooLarge

pytestmark = pytest.mark.anyio


async def test_all_forms_of_the_clipboard(desktop: Desktop) -> None:
    png = picture(700, 500)
    await desktop.set_clipboard("text 世界", html="<b>html ü</b>", image=png)
    found = await desktop.clipboard_contents()
    assert (found.text, found.html, found.image) == ("text 世界", "<b>html ü</b>", png)
    assert {"UTF8_STRING", "text/html", "image/png"} <= set(found.targets)
    await desktop.set_clipboard("marked", selection="primary")
    assert await desktop.clipboard(selection="primary") == "marked"
    assert await desktop.clipboard() == "text 世界"
    only = await desktop.clipboard_contents(only="html")
    assert (only.text, only.html, only.image) == ("", "<b>html ü</b>", None)
    for wrong in ({}, {"image": b"GIF89a"}):
        with pytest.raises(InvalidRequest):
            await desktop.set_clipboard(**wrong)
    with pytest.raises(TooLarge):
        await desktop.set_clipboard(image=png + bytes(16 << 20))
    await desktop.set_clipboard("")


async def test_a_program_and_its_dialog_are_waited_for(desktop: Desktop) -> None:
    job = (await desktop.launch("mousepad")).job
    await desktop.act(a.Type(text="Grüße, 世界"))
    shown = await desktop.wait_for_text("grüße, 世", seconds=20)
    assert shown.element is not None
    assert shown.region is not None
    with pytest.raises(TimedOut, match="'Grüse' was not shown") as told:
        await desktop.wait_for_text("Grüse", seconds=0.1)
    assert "'Grüße, 世界'" in told.value.hint
    with pytest.raises(TimedOut, match="'grüße' was still shown") as told:
        await desktop.wait_for_text_gone("grüße", seconds=0)
    assert " shows it, a " in told.value.hint
    asking = [
        asyncio.ensure_future(desktop.wait_for_text("save the changes", seconds=20)),
        asyncio.ensure_future(desktop.wait_for_change(seconds=20)),
    ]
    await desktop.act(a.Key(chord="ctrl+w"))
    await asyncio.gather(*asking)
    await desktop.wait_for_rest(seconds=10)
    leaving = [
        asyncio.ensure_future(desktop.wait_for_text_gone("save the changes", seconds=20)),
        asyncio.ensure_future(desktop.wait_for_window_closed(window_class="mousepad")),
        asyncio.ensure_future(desktop.wait_for_exit(job=job.id)),
    ]
    await desktop.act(a.Key(chord="alt+d"))  # do not save
    await asyncio.gather(*leaving)


async def test_files_ports_and_processes(desktop: Desktop) -> None:
    job = await desktop.start(
        "read go; seq 100000 > numbers; echo $$ > pid; exec python3 -m http.server 8765",
    )
    waiting = [
        asyncio.ensure_future(desktop.wait_for_file("numb*", stable_ms=100)),
        asyncio.ensure_future(desktop.wait_for_port(8765)),
    ]
    await desktop.send_stdin(job.id, b"\n")
    numbers, _ = await asyncio.gather(*waiting)
    assert (numbers.name, numbers.size) == ("numbers", 588_895)
    pid = int(await desktop.read_file("pid"))
    with pytest.raises(TimedOut, match=f"process {pid} did not end"):
        await desktop.wait_for_exit(pid=pid, seconds=0)
    ends = asyncio.ensure_future(desktop.wait_for_exit(job=job.id))
    await desktop.signal(job.id)
    assert await ends == -15
    await desktop.wait_for_exit(pid=pid, seconds=5)
    for path in ("numbers", "pid"):
        await desktop.remove(path)


async def test_waits_end_with_their_caller_and_leave_nothing(
    daemon: Daemon, desktop: Desktop
) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    await desktop.health()
    before = descriptors()
    wanted: list[w.Wait] = [
        w.RegionChanges(region=a.Region(x=0, y=0, width=9, height=9), seconds=50),
        w.FileExists(path="never", seconds=50),
        w.PortListens(port=1, seconds=50),
        w.ProcessEnds(pid=daemon.process.pid, seconds=50),
        w.WindowOpens(title="never", seconds=50),
        w.TextAppears(text="never", seconds=50),
    ]
    waiting = [asyncio.ensure_future(desktop.wait_for(each)) for each in wanted]
    await eventually(lambda: descriptors() >= before + len(wanted))
    began = time.monotonic()
    await desktop.click(640, 300)
    assert time.monotonic() - began < 2
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await eventually(lambda: descriptors() <= before + 1)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"type": "rain"}, {"type": "port_listens", "port": 0}, {"type": "window_opens"},
        {"type": "file_exists", "path": "a\0b"}, {"type": "port_listens", "port": 9, "seconds": 51},
        {"type": "region_stable", "stable_ms": 0}, {"type": "text_gone", "text": ""},
        {"type": "process_ends", "pid": 1, "job": "x"},
        {"type": "region_changes", "region": {"x": 0, "y": 0, "width": 9999, "height": 1}},
    ],
)  # fmt: skip
async def test_what_cannot_be_waited_for(desktop: Desktop, body: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        await desktop._wire.call("POST", "/wait", json=body)
