"""Waiting for files, ports and processes, on the real kernel."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tests.waiting import eventually
from workspace import waits as w
from workspace.desktopd.children import Children
from workspace.desktopd.programs import Programs
from workspace.desktopd.shell import Shell
from workspace.desktopd.waiting import files, ports, processes
from workspace.errors import InvalidRequest, ProcessNotFound, TimedOut
from workspace.models import FileInfo, ProcessRequest

pytestmark = pytest.mark.anyio
T = TypeVar("T")


async def once(waiting: Awaitable[T], happen: Callable[[], object]) -> tuple[T, float]:
    """What the wait answers once it waits and then ``happen`` does; how long that took."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0.1)
    assert not task.done()
    began = loop.time()
    happen()
    return await asyncio.wait_for(task, 10), loop.time() - began


# Files.


class Wait(Protocol):
    def __call__(
        self, path: Path, *, stable_ms: int = 0, seconds: float = 10
    ) -> Awaitable[FileInfo]: ...


@pytest.fixture
async def file() -> AsyncIterator[Wait]:
    folders = files.Folders()

    def wait(path: Path, *, stable_ms: int = 0, seconds: float = 10) -> Awaitable[FileInfo]:
        wanted = w.FileExists(path=str(path), stable_ms=stable_ms, seconds=seconds)
        return files.exists(folders, str(path), wanted)

    yield wait
    assert not folders._news
    folders.close()


async def test_a_file_that_comes_is_told_of_at_once(file: Wait, tmp_path: Path) -> None:
    path = tmp_path / "a"
    found, seconds = await once(file(path), lambda: path.write_text("hello"))
    assert (found.path, found.kind) == (str(path), "file")
    assert seconds < 0.5, "inotify tells of it"
    assert (await file(path, seconds=0)).size == 5
    moved = tmp_path / "b"
    await once(file(moved), lambda: path.rename(moved))


async def test_a_file_in_folders_that_are_still_to_come(file: Wait, tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "a"

    def make() -> None:
        path.parent.mkdir(parents=True)
        path.write_text("")

    _, seconds = await once(file(path), make)
    assert seconds < 0.5
    shutil.rmtree(tmp_path / "new")
    waiting = asyncio.ensure_future(file(path))
    for _ in range(3):  # the folder that is watched goes and comes
        await asyncio.sleep(0.05)
        path.parent.mkdir(parents=True)
        await asyncio.sleep(0.05)
        shutil.rmtree(tmp_path / "new")
    make()
    assert (await asyncio.wait_for(waiting, 5)).path == str(path)


async def test_a_download_is_complete_when_it_grows_no_more(file: Wait, tmp_path: Path) -> None:
    path = tmp_path / "big"
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(file(path, stable_ms=300))
    with path.open("wb", buffering=0) as written:
        for _ in range(10):
            written.write(b"x" * 1000)
            await asyncio.sleep(0.05)
            assert not waiting.done()
    ended = loop.time()
    found = await asyncio.wait_for(waiting, 5)
    assert found.size == 10_000
    assert loop.time() - ended >= 0.2
    began = loop.time()
    os.utime(path, (1, 1))
    await file(path, stable_ms=30_000)  # it has been still for long
    assert loop.time() - began < 1


async def test_a_pattern_is_the_newest_file_that_fits_it(file: Wait, tmp_path: Path) -> None:
    for age, name in enumerate(("new.pdf", "old.pdf", ".hidden.pdf", "other.txt")):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert (await file(tmp_path / "*.pdf")).name == "new.pdf"
    (tmp_path / "a[1]").write_text("")
    assert (await file(tmp_path / "a[1]")).name == "a[1]"
    (tmp_path / "x.pdf.part").write_text("")
    found, _ = await once(
        file(tmp_path / "x*.pdf"), lambda: (tmp_path / "x.pdf.part").rename(tmp_path / "x1.pdf")
    )
    assert found.name == "x1.pdf"


async def test_a_file_that_does_not_come(file: Wait, tmp_path: Path) -> None:
    (tmp_path / "report.pdf.crdownload").write_bytes(b"x" * 123)
    with pytest.raises(TimedOut, match=r"no .*report\.pdf within 0\.1 s") as told:
        await file(tmp_path / "report.pdf", seconds=0.1)
    assert "'report.pdf.crdownload' (123 bytes)" in told.value.hint
    with pytest.raises(TimedOut) as told:
        await file(tmp_path / "nowhere" / "a", seconds=0.1)
    assert f"There is no folder {tmp_path}/nowhere. {tmp_path} holds" in told.value.hint
    growing = tmp_path / "growing"
    growing.write_text("x")
    with pytest.raises(TimedOut, match="was not still for 5000 ms") as told:
        await file(growing, stable_ms=5000, seconds=0.1)
    assert "It has 1 bytes" in told.value.hint


async def test_without_inotify_it_is_looked_at(
    file: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MASK", 0)  # the kernel refuses that
    await once(file(tmp_path / "a"), (tmp_path / "a").touch)
    waiting = asyncio.ensure_future(file(tmp_path / "b"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


# Ports.


async def test_a_port_that_comes_to_be_listened_on() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        there = ports.Ports()
        with pytest.raises(TimedOut, match=f"port {port} within 0.1 s") as told:
            await there.listens(port, 0.1)
        assert "The ports that are listened on: " in told.value.hint
        both = asyncio.gather(there.listens(port, 10), there.listens(port, 10))
        addresses, _ = await once(both, server.listen)
        assert await there.listens(port, 0) == "127.0.0.1"
    assert addresses == ["127.0.0.1", "127.0.0.1"]


def test_the_kernels_table_is_read() -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    row = "   0: 0100007F:1F90 00000000:0000 {} 00000000:00000000 00:00000000\n"
    assert ports.parsed([head, row.format("0A")], socket.AF_INET) == {8080: "127.0.0.1"}
    assert ports.parsed([head, row.format("01")], socket.AF_INET) == {}
    six = "   0: 00000000000000000000000001000000:0050 0:0000 0A 0:0\n"
    assert ports.parsed([six], socket.AF_INET6) == {80: "::1"}


# Processes.


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    children = Children(adopts=False)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    shell = Shell(Programs(children, environment, oom_score_adj=500))
    yield shell
    await shell.aclose()
    await children.end_all()


async def test_a_job_that_ends(shell: Shell) -> None:
    job = await shell.start(ProcessRequest(command="read x; exit 7", background=True))
    with pytest.raises(TimedOut, match="did not end within") as told:
        await processes.end(shell, w.ProcessEnds(job=job.id, seconds=0.1))
    assert "read x" in told.value.hint

    waiting = asyncio.ensure_future(processes.end(shell, w.ProcessEnds(job=job.id)))
    await shell.write_stdin(job.id, _once(b"\n"), close=True)
    assert (await asyncio.wait_for(waiting, 5)).exit_code == 7
    with pytest.raises(ProcessNotFound):
        await processes.end(shell, w.ProcessEnds(job="none"))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def started(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE)


async def test_a_process_that_ends(shell: Shell) -> None:
    with started("sleep", "60") as sleeping:
        with pytest.raises(TimedOut) as told:
            await processes.end(shell, w.ProcessEnds(pid=sleeping.pid, seconds=0.1))
        assert told.value.hint == f"Still there: {sleeping.pid} (sleep 60)."
        _, seconds = await once(
            processes.end(shell, w.ProcessEnds(pid=sleeping.pid)), sleeping.kill
        )
        assert seconds < 0.5
    await processes.end(shell, w.ProcessEnds(pid=sleeping.pid, seconds=0))  # long gone


async def test_all_of_a_name_have_to_end(shell: Shell, tmp_path: Path) -> None:
    name = "a-rather-long-name"
    (tmp_path / name).symlink_to(sys.executable)
    command = (str(tmp_path / name), "-c", "import sys; sys.stdin.read()")
    running = [started(*command), started(*command)]
    try:
        await eventually(lambda: len(processes.named(name)) == 2)
        waiting = asyncio.ensure_future(processes.end(shell, w.ProcessEnds(name=name)))
        running[0].kill()
        running[0].wait(5)
        with pytest.raises(TimedOut, match="1 of the name"):
            await processes.end(shell, w.ProcessEnds(name=name, seconds=0.1))
        assert not waiting.done()
        running[1].kill()
        await asyncio.wait_for(waiting, 5)
        await processes.end(shell, w.ProcessEnds(name="nothing is called so", seconds=0))
    finally:
        for process in running:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("wrong", [{}, {"pid": 1, "name": "x"}, {"pid": 0}])
def test_one_process_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="pid"):
        w.WAIT.validate_python({"type": "process_ends", **wrong})


async def test_a_thread_is_no_process(shell: Shell) -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(InvalidRequest):
            await processes.end(shell, w.ProcessEnds(pid=thread.native_id, seconds=0.1))
    finally:
        is_over.set()
        thread.join()
