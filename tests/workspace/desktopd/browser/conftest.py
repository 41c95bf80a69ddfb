"""One sandboxed desktop with a small site of its own, for all tests of the browser."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.workspace.backends.conftest import a_template, new_id, processes_of
from workspace.backends import remains, runtime
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.desktop import Desktop, connect

SITE = Path(__file__).with_name("site.py")
BASE = "http://localhost:8000"


@pytest.fixture(scope="module")
async def desktop() -> AsyncIterator[Desktop]:
    """With the site served in it; nothing of it is left in the end."""
    folder = runtime.default_dir()
    runtime.build(folder)
    run_dir = Path(tempfile.mkdtemp(prefix="cb-"))
    disk_dir = Path(tempfile.mkdtemp(prefix="carrel-disk-", dir="/var/tmp"))
    disk_dir.chmod(0o711)  # noqa: ASYNC240
    backend = BubblewrapBackend(run_dir, disk_dir, folder)
    workspace_id = new_id()
    template = a_template(
        memory_mib=2048, pids=1024, disk_mib=1024, locale="C.UTF-8", timezone="Asia/Tokyo"
    )
    endpoint = await backend.start(workspace_id, template)
    state = remains.load(str(run_dir / workspace_id))
    assert state is not None
    desktop = connect(endpoint)
    try:
        await desktop.write_file("site.py", SITE.read_bytes())
        await desktop.start("python3 site.py")
        await desktop.wait_for_port(8000)
        yield desktop
    finally:
        await desktop.aclose()
        await backend.stop(workspace_id)
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.rmtree(disk_dir, ignore_errors=True)
    assert processes_of(state) == []
