"""Recordings of a real X display, read back by ffprobe and ffmpeg."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import PIL.Image
import pytest

from tests.workspace.desktopd.x11.harness import Client
from workspace import actions as a
from workspace.desktopd.children import Children
from workspace.desktopd.files import Files
from workspace.desktopd.programs import Programs
from workspace.desktopd.recorder import FOLDER, NAME, Recorder
from workspace.desktopd.screen import Screen
from workspace.errors import Conflict, NotFound
from workspace.models import RecordingRequest

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


def probe(film: Path) -> dict[str, float | str]:
    told = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-of", "json", "-select_streams", "v", "-show_entries"),
            *("packet=pts_time:stream=codec_name,pix_fmt,width,height,level", film),
        ],
        check=True,
        capture_output=True,
    )
    found = json.loads(told.stdout)
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
    print(told, done)
    assert (told["codec_name"], told["pix_fmt"]) == ("h264", "yuv420p")
    times = told["times"]
    assert isinstance(times, list)
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
