"""Files on a real disk."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.waiting import eventually
from workspace.desktopd.files import Files
from workspace.errors import (
    CarrelError,
    Conflict,
    DiskFull,
    FileExists,
    FileMissing,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    TooLarge,
)
from workspace.models import FileInfo

pytestmark = pytest.mark.anyio


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path))


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def write(files: Files, path: str, *chunks: bytes, mode: int = 0o644) -> FileInfo:
    return await files.write(path, _chunks(*chunks), mode=mode, length=sum(map(len, chunks)))


async def read(files: Files, path: str) -> bytes:
    file = await files.open(path)
    try:
        data = b"".join([chunk async for chunk in file.chunks()])
    finally:
        file.close()
    assert len(data) == file.size
    return data


async def test_what_is_written_is_read(files: Files, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    told = await write(files, "a/b/ü.bin", data[:7], data[7:], mode=0o750)
    assert (told.path, told.name) == (str(tmp_path / "a/b/ü.bin"), "ü.bin")
    assert (told.kind, told.size, told.mode) == ("file", 3_000_000, "750")
    assert await read(files, "~/a/b/ü.bin") == data
    assert await read(files, str(tmp_path / "a/b/../b/ü.bin")) == data
    assert os.listdir(tmp_path / "a/b") == ["ü.bin"]


async def test_empty_files_and_files_of_proc(files: Files) -> None:
    await write(files, "empty")
    assert await read(files, "empty") == b""
    assert await read(files, "/proc/sys/kernel/ostype") == b"Linux\n"


async def test_a_link_stays_a_link(files: Files, tmp_path: Path) -> None:
    await write(files, "real", b"old")
    (tmp_path / "link").symlink_to("real")
    await write(files, "link", b"new")
    assert (await files.stat("link")).kind == "link"
    assert await read(files, "real") == b"new"


async def test_a_file_appears_only_when_complete(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        assert (tmp_path / "file").read_bytes() == b"old"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.write("file", breaks(), mode=0o644, length=None)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_an_abandoned_upload_leaves_nothing(files: Files, tmp_path: Path) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        await asyncio.Event().wait()

    upload = asyncio.ensure_future(files.write("new", stalls(), mode=0o644, length=None))
    await eventually(lambda: bool(os.listdir(tmp_path)))
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    assert os.listdir(tmp_path) == []


async def test_special_files_are_refused_at_once(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's name is to be short
    server.bind("socket")
    server.close()
    (tmp_path / "to-zero").symlink_to("/dev/zero")
    for name in ("fifo", "socket", "/dev/zero", "to-zero"):
        with pytest.raises(InvalidRequest):
            await asyncio.wait_for(read(files, name), 5)
        with pytest.raises(InvalidRequest):
            await asyncio.wait_for(write(files, name, b"x"), 5)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert (await files.stat("fifo")).kind == "other"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("missing", FileMissing),
        (".", IsADirectory),
        ("file/below", NotADirectory),
        ("x" * 300, InvalidRequest),
        ("nul\0", InvalidRequest),
    ],
)
async def test_what_cannot_be_read(files: Files, path: str, error: type[CarrelError]) -> None:
    await write(files, "file", b"")
    with pytest.raises(error):
        await files.open(path)


@pytest.mark.parametrize(
    ("path", "error"),
    [(".", IsADirectory), ("x" * 300, InvalidRequest), ("nul\0", InvalidRequest)],
)
async def test_what_cannot_be_written(files: Files, path: str, error: type[CarrelError]) -> None:
    with pytest.raises(error):
        await write(files, path, b"")
    await write(files, "file", b"")
    with pytest.raises(CarrelError):
        await write(files, "file/below", b"")


async def test_the_limit_of_the_home_folder(tmp_path: Path) -> None:
    files = Files(str(tmp_path), limit_bytes=8 << 20)
    with pytest.raises(TooLarge):
        await files.write("big", _chunks(), mode=0o644, length=5 << 30)
    await write(files, "six", bytes(6 << 20))
    with pytest.raises(DiskFull):
        await Files(str(tmp_path), limit_bytes=8 << 20).write(
            "three", _chunks(), mode=0o644, length=3 << 20
        )

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    with pytest.raises(DiskFull):
        await Files(str(tmp_path), limit_bytes=8 << 20).write(
            "endless", endless(), mode=0o644, length=None
        )
    assert os.listdir(tmp_path) == ["six"]


async def test_a_disk_without_room(files: Files) -> None:
    with pytest.raises(DiskFull):
        await files.write("big", _chunks(), mode=0o644, length=1 << 60)


async def test_a_directory_comes_in_pages(files: Files, tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"{number:02}").touch()
    (tmp_path / os.fsdecode(b"\xff")).touch()
    names: list[str] = []
    after: str | None = None
    while True:
        page = await files.list(".", limit=10, after=after)
        names += [entry.name for entry in page.entries]
        after = page.after
        if after is None:
            break
    assert names == [f"{number:02}" for number in range(25)] + ["\N{REPLACEMENT CHARACTER}"]
    assert (await files.list(".", limit=26, after=None)).after is None
    with pytest.raises(NotADirectory):
        await files.list("00", limit=10, after=None)
    with pytest.raises(FileMissing):
        await files.list("missing", limit=10, after=None)


async def test_moving(files: Files) -> None:
    await write(files, "a", b"1")
    assert (await files.move("a", "new/b", overwrite=False)).name == "b"
    await write(files, "c", b"2")
    with pytest.raises(FileExists):
        await files.move("c", "new/b", overwrite=False)
    await files.move("c", "new/b", overwrite=True)
    assert await read(files, "new/b") == b"2"
    with pytest.raises(FileMissing):
        await files.move("c", "d", overwrite=False)
    with pytest.raises(InvalidRequest):
        await files.move("new", "new/below", overwrite=False)


async def test_moving_to_another_disk(files: Files) -> None:
    await write(files, "a", b"1")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        await files.move("a", f"{elsewhere}/a", overwrite=False)
        assert await read(files, f"{elsewhere}/a") == b"1"
        await files.move(f"{elsewhere}/a", "b", overwrite=False)
        assert os.listdir(elsewhere) == []
    assert await read(files, "b") == b"1"


async def test_removing(files: Files, tmp_path: Path) -> None:
    await files.make_directory("d/e")
    await files.make_directory("d/e")
    with pytest.raises(Conflict):
        await files.remove("d", recursive=False)
    await files.remove("d/e", recursive=False)
    (tmp_path / "d/link").symlink_to("/etc")
    await files.remove("d", recursive=True)
    assert (await files.stat("/etc/passwd")).kind == "file"
    with pytest.raises(FileMissing):
        await files.remove("d", recursive=True)
