"""A daemon in which a thread or the screen hangs, and that ends in time all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.waiting import until
from tests.workspace.desktopd.conftest import Daemon

pytestmark = pytest.mark.anyio

# A daemon for which no folder can ever be listed, as on a disk that hangs.
_HANGING = """
import os, sys, time
sys.path.insert(0, sys.argv.pop(1))
from workspace.desktopd import ending, files
ending.SECONDS = 4

def hang(*_):
    with open(os.environ["HOME"] + "/hangs", "w"):
        pass
    while True:
        time.sleep(60)

files._page = hang
from workspace.desktopd.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(("number", "hangs"), [(signal.SIGTERM, "disk"), (signal.SIGINT, "screen")])
async def test_what_hangs_does_not_hold_up_the_end(number: int, hangs: str) -> None:
    daemon = Daemon(Path(tempfile.mkdtemp(prefix="dd-")), {}, launcher=_HANGING)
    try:
        assert daemon.wait_until_ready() == {"ready": True}
        if hangs == "disk":
            desktop = daemon.connect()
            listing = asyncio.ensure_future(desktop.list_files("."))
            await asyncio.to_thread(until, (daemon.home / "hangs").exists)
            listing.cancel()
            await asyncio.wait([listing])
            await desktop.aclose()
        programs = daemon.programs()
        if hangs == "screen":
            (screen,) = [process for name, process in programs if name.startswith("Xtigervnc")]
            screen.suspend()
        assert len(programs) > 3
        began = time.monotonic()
        os.kill(daemon.process.pid, number)
        assert await asyncio.to_thread(daemon.wait_for_end) == 0
        assert time.monotonic() - began < 12
        left = [process for _, process in programs]
        await asyncio.to_thread(until, lambda: not any(each.is_running() for each in left))
        if hangs == "disk":
            assert "ended where it stands" in daemon.log.read_text()
    finally:
        daemon.close()
