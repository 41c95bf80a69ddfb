"""Recordings of a real X display, read back by ffprobe and ffmpeg."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL.Image
import psutil
import pytest

from tests.waiting import eventually
from tests.workspace.desktopd.x11.harness import Client
from workspace import actions as a
from workspace.desktopd.children import Children
from workspace.desktopd.files import Files
from workspace.desktopd.programs import Programs
from workspace.desktopd.recorder import FOLDER, NAME, Recorder
from workspace.desktopd.screen import Screen
from workspace.errors import Conflict, DiskFull, NotFound, Unsupported
from workspace.models import RecordingRequest, ScreenChange

RED, GREEN, BLUE = 0xFF0000, 0x00FF00, 0x0000FF


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    children = Children(adopts=False)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    yield Programs(children, environment, oom_score_adj=0)
    await children.end_all()


@pytest.fixture
async def recorder(programs: Programs, tmp_path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder(programs, Files(str(tmp_path), limit_bytes=64 << 20))
    yield recorder
    await recorder.aclose()


def probe(film: Path) -> dict[str, Any]:  # Any: JSON values
    told = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-of", "json", "-select_streams", "v", "-show_entries"),
            *("packet=pts_time:stream=codec_name,pix_fmt,width,height,level", film),
        ],
        check=True,
        capture_output=True,
    )
    found: dict[str, Any] = json.loads(told.stdout)
    return found["streams"][0] | {"times": [float(p["pts_time"]) for p in found["packets"]]}


def pixel(film: Path, seconds: float, x: int, y: int) -> tuple[int, ...]:
    """What is at a place at a moment."""
    shown = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", film, "-vf", "fps=20"),
            *("-ss", f"{seconds}", "-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-"),
        ],
        check=True,
        capture_output=True,
    ).stdout
    found = PIL.Image.open(io.BytesIO(shown)).convert("RGB").getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def is_like(found: tuple[int, ...], colour: int) -> bool:
    wanted = (colour >> 16, colour >> 8 & 0xFF, colour & 0xFF)
    return all(abs(one - other) < 12 for one, other in zip(found, wanted, strict=True))


async def test_what_changed_when(
    screen: Screen, client: Client, recorder: Recorder, tmp_path: Path
) -> None:
    with pytest.raises(NotFound):
        recorder.status()
    client.fill(RED, 0, 0, 1280, 800)
    began = await recorder.start(screen.film, RecordingRequest(fps=10))
    assert (began.state, began.width, began.height) == ("recording", 1280, 800)
    with pytest.raises(Conflict):
        await recorder.start(screen.film, RecordingRequest())
    with pytest.raises(Conflict):
        await recorder.open()
    await asyncio.sleep(1.5)
    client.fill(GREEN, 0, 0, 1280, 800)
    client.collect()
    await asyncio.sleep(1)
    await screen.act([a.Move(x=700, y=300)])
    await asyncio.sleep(1)
    done = await recorder.stop()
    assert (done.state, done.reason) == ("finished", "stopped")
    assert done.frames <= 6  # at first, green, the pointer's way, and once more at the end
    assert await recorder.stop() == done
    film = tmp_path / FOLDER / NAME
    assert done.size == film.stat().st_size
    told = probe(film)
    assert (told["codec_name"], told["pix_fmt"]) == ("h264", "yuv420p")
    times = told["times"]
    assert len(times) == done.frames
    assert abs(times[-1] - 3.5) < 0.5  # it is as long as it took
    assert is_like(pixel(film, 1.0, 600, 400), RED)
    assert is_like(pixel(film, 2.0, 600, 400), GREEN)
    with_pointer = [pixel(film, 3.0, 701 + n, 302 + n) for n in range(4)]
    assert not all(is_like(each, GREEN) for each in with_pointer)
    await recorder.forget()
    assert not film.exists()
    with pytest.raises(NotFound):
        await recorder.forget()


async def test_it_ends_by_itself(
    screen: Screen, client: Client, recorder: Recorder, tmp_path: Path
) -> None:
    await recorder.start(screen.film, RecordingRequest(max_seconds=0.3))
    await eventually(lambda: recorder.status().state == "finished")
    assert recorder.status().reason == "max_seconds"
    assert len(probe(tmp_path / FOLDER / NAME)["times"]) == 2
    file = await recorder.open()
    try:
        assert file.size == recorder.status().size
    finally:
        file.close()
    await recorder.start(screen.film, RecordingRequest(max_mib=1, fps=30))
    chance = random.Random(1)
    while recorder.status().state == "recording":
        for _ in range(300):
            at = (chance.randrange(1280), chance.randrange(800), 40, 40)
            client.fill(chance.randrange(1 << 24), *at)
        await asyncio.sleep(0.01)
    assert recorder.status().reason == "max_size"
    assert 1 << 20 < recorder.status().size < 5 << 20


def ffmpegs() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name() == "ffmpeg":
                found.append(process)
    return found


async def test_a_killed_recorder_leaves_a_film(
    screen: Screen, client: Client, recorder: Recorder, tmp_path: Path
) -> None:
    await recorder.start(screen.film, RecordingRequest())
    film = tmp_path / FOLDER / NAME
    for step in range(40):
        client.fill(RED if step % 2 else BLUE, 0, 0, 1280, 800)
        await asyncio.sleep(0.1)
    for process in ffmpegs():
        process.kill()
    await eventually(lambda: recorder.status().state == "finished")
    assert recorder.status().reason == "encoder_failed"
    times = probe(film)["times"]
    assert times[-1] > 2
    await recorder.start(screen.film, RecordingRequest())  # and the next one is fine
    assert (await recorder.stop()).reason == "stopped"


async def test_an_encoder_that_hangs_does_not_hold_up_the_end(
    screen: Screen, client: Client, recorder: Recorder, tmp_path: Path
) -> None:
    await recorder.start(screen.film, RecordingRequest())
    await eventually(ffmpegs)  # once `nice` has become one
    ffmpegs()[0].suspend()
    for step in range(20):  # more than its pipe holds
        client.fill(RED if step % 2 else BLUE, 0, 0, 1280, 800)
        await asyncio.sleep(0.05)
    began = time.monotonic()
    await recorder.aclose()
    assert time.monotonic() - began < 12  # it would wait 35 for a file to be whole
    assert recorder.status().reason == "encoder_failed"
    await recorder.aclose()  # again: it is over


async def test_a_screen_of_another_size_is_fitted(
    screen: Screen, client: Client, recorder: Recorder, tmp_path: Path
) -> None:
    client.fill(RED, 0, 0, 1280, 800)
    try:
        await recorder.start(screen.film, RecordingRequest())
        await asyncio.sleep(0.3)
        await screen.change(ScreenChange(width=640, height=801))
        client.fill(GREEN, 0, 0, 1280, 800)
        client.collect()
        await asyncio.sleep(1)
        done = await recorder.stop()
    finally:
        await screen.change(ScreenChange(width=1280, height=800))
    assert (done.reason, done.width, done.height) == ("stopped", 1280, 800)
    film = tmp_path / FOLDER / NAME
    assert is_like(pixel(film, 1.0, 640, 400), GREEN)
    assert is_like(pixel(film, 1.0, 100, 400), 0)  # beside it


async def test_what_it_cannot_do(
    screen: Screen, programs: Programs, recorder: Recorder, tmp_path: Path
) -> None:
    full = Recorder(programs, Files(str(tmp_path), limit_bytes=1 << 20))
    with pytest.raises(DiskFull):
        await full.start(screen.film, RecordingRequest())
    programs.environment["PATH"] = str(tmp_path)
    with pytest.raises(Unsupported) as caught:
        await recorder.start(screen.film, RecordingRequest())
    assert "ffmpeg" in caught.value.hint
