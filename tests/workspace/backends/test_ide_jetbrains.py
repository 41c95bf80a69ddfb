"""The adapter to JetBrains' IDEs in a sandbox: the packages that it needs are there, and desktopd
serves it. The IDE's program is the stub of the tests, put into the home folder."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.workspace.backends.conftest import Place, new_id
from tests.workspace.desktopd.ide.jetbrains import FILES
from tests.workspace.desktopd.ide.jetbrains_stub_launcher import product
from workspace import ide as i
from workspace.backends.bubblewrap import BubblewrapBackend
from workspace.desktop import Desktop, connect
from workspace.errors import Unavailable
from workspace.models import Template

pytestmark = pytest.mark.anyio
STUB = Path(__file__).parents[1] / "desktopd/ide"
HOME = "/home/user"
PROGRAM = f"{HOME}/pycharm/bin/pycharm"


@pytest.fixture
async def desktop(place: Place) -> AsyncIterator[Desktop]:
    settings = i.IdeSettings(kind="jetbrains", program=PROGRAM)
    backend, id_ = BubblewrapBackend(place.run_dir, place.disk_dir, place.runtime_dir), new_id()
    template = Template(name="jb", session="openbox", ide=settings)
    desktop = connect(await backend.start(id_, template))
    try:
        yield desktop
    finally:
        await desktop.aclose()
        await backend.stop(id_)


async def test_an_ide_of_jetbrains_is_asked_in_a_sandbox(desktop: Desktop) -> None:
    with pytest.raises(Unavailable, match="no IDE"):
        await desktop.ide(i.GetState(seconds=20))
    told = await desktop.ide_health()
    assert told.phase == "not_started"
    for path in STUB.glob("jetbrains_stub*.py"):
        await desktop.write_file(
            f"stub/tests/workspace/desktopd/ide/{path.name}", path.read_bytes()
        )
    await desktop.write_file("pycharm/product-info.json", product().encode())
    module = "tests.workspace.desktopd.ide.jetbrains_stub_launcher"
    command = ["/usr/bin/python3", "-m", module, "--switches", f"{HOME}/switches.json"]
    await desktop.write_file(
        "pycharm/bin/pycharm",
        f"#!/bin/sh\nexport PYTHONPATH={HOME}/stub:/opt/carrel/deps\n"
        f'exec {shlex.join(command)} -- "$@"\n'.encode(),
    )
    await desktop.run(f"chmod +x {PROGRAM}")
    for name, text in FILES.items():
        await desktop.write_file(f"project/{name}", text.encode())

    opened = await desktop.ide(i.OpenFolder(path=f"{HOME}/project", seconds=60))
    assert isinstance(opened, i.FolderOpened)
    told = await desktop.ide_health()
    assert (told.phase, told.name, told.folder) == ("ready", "PyCharm", f"{HOME}/project")
    edits = [i.FileEdit(path="prices.py", old="RATE = 20", new="RATE = 10")]
    await desktop.ide(i.ApplyEdit(edits=edits))
    assert b"RATE = 10" in await desktop.read_file("project/prices.py")
    done = await desktop.ide(i.Rename(path="orders.py", line=5, symbol="total", new_name="summed"))
    assert isinstance(done, i.Changed)
    assert len(done.files) == 2
    ran = await desktop.ide(i.RunTask(command="python3 main.py"))
    assert isinstance(ran, i.Ran)
    assert (ran.exit_code, ran.output) == (0, "330 EUR\n")
