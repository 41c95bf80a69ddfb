"""Artifacts as they are saved, shared, handed out and removed, whatever dies in between."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from controller import artifacts as module
from controller.artifacts import WHOLE_BYTES, Artifacts
from controller.artifacts.blobs import digest_of
from controller.artifacts.folder import Folder
from controller.artifacts.retention import Retention
from controller.events import Events
from controller.store import Store
from tests.controller.artifacts.conftest import MIB, Place, pieces, quota
from tests.controller.conftest import both_databases
from workspace.artifacts import Artifact
from workspace.errors import (
    ArtifactDamaged,
    ArtifactNotFound,
    CarrelError,
    DiskFull,
    TooLarge,
    Unavailable,
    Unsupported,
)

pytestmark = pytest.mark.anyio
W = "aaaaaaaaaa"


async def save(artifacts: Artifacts, data: bytes, workspace_id: str = W) -> Artifact:
    return await artifacts.save(pieces(data), workspace_id=workspace_id, kind="file", name="a.txt")


async def test_it_comes_back_as_it_was(artifacts: Artifacts) -> None:
    large = os.urandom(WHOLE_BYTES + 3 * MIB)
    for data in (b"", b"hello", large):
        kept = await save(artifacts, data)
        assert (kept.size, kept.digest, kept.name) == (len(data), digest_of(data), "a.txt")
        assert await artifacts.read(await artifacts.rows.get(kept.id)) == data


async def test_the_bytes_go_with_the_last_that_has_them(artifacts: Artifacts, place: Place) -> None:
    one, two = await save(artifacts, b"same"), await save(artifacts, b"same", "bbbbbbbbbb")
    assert (one.digest, place.there()) == (two.digest, [one.digest])
    await artifacts.remove(one.id)
    assert await artifacts.read(two) == b"same"
    await artifacts.remove(two.id)
    await artifacts.remove(two.id)  # again is success
    assert place.there() == []
    with pytest.raises(ArtifactNotFound):
        await artifacts.rows.get(two.id)
    assert await artifacts.read(await save(artifacts, b"same")) == b"same"


@pytest.mark.parametrize("size", [5, 800_000], ids=["small", "large"])
@pytest.mark.parametrize("how", ["changed", "shorter", "longer"])
async def test_what_was_changed_is_told_and_not_handed_out_whole(
    artifacts: Artifacts, place: Place, size: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_BYTES", 100_000)
    data = os.urandom(size)
    kept = await save(artifacts, data)
    wrong = {"changed": data[:-1] + bytes([data[-1] ^ 1]), "shorter": data[:-1]}
    place.damage(kept.digest, wrong.get(how, data + b"x"))
    got = bytearray()

    async def take() -> None:
        async with artifacts.open(kept) as each:
            async for piece in each:
                got.extend(piece)

    with pytest.raises(ArtifactDamaged, match=kept.id):
        await take()
    assert len(got) < size
    assert size > 100_000 or not got


@both_databases
@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_writers_and_removers_of_one_digest_lose_nothing(
    artifacts: Artifacts, place: Place
) -> None:
    left: list[Artifact] = []

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            kept = await save(artifacts, b"the same bytes")
            if chance.random() < 0.8:
                await artifacts.remove(kept.id)
            else:
                left.append(kept)
                await asyncio.sleep(0)

    await asyncio.gather(*(work(seed) for seed in range(6)))
    for each in left:
        assert await artifacts.read(each) == b"the same bytes"
    for each in left:
        await artifacts.remove(each.id)
    assert place.there() == []
    assert await artifacts.rows.used() == 0


@both_databases
@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_who_is_late_writes_anew(artifacts: Artifacts, place: Place) -> None:
    """A remover that comes between a writer's bytes and its row."""
    put = place.blobs.put
    times = 0

    async def slow(blob: object) -> None:
        nonlocal times
        times += 1
        await put(blob)  # type: ignore[arg-type]
        if times == 1:
            await artifacts.clear(digest_of(b"late"))
            assert place.there() == []

    place.blobs.put = slow  # type: ignore[method-assign]
    kept = await save(artifacts, b"late")
    assert times == 2
    assert await artifacts.read(kept) == b"late"


async def test_a_quota_refuses_and_says_what_to_do(
    store: Store, place: Place, tmp_path: Path
) -> None:
    limits = quota(of_workspace=1000, in_all=1500)
    artifacts = Artifacts(store, place.blobs, tmp_path / "incoming", limits)
    await artifacts._spool.begin()
    with pytest.raises(TooLarge, match="larger than a workspace's"):
        await save(artifacts, b"x" * 1001)
    first = await save(artifacts, b"x" * 700)
    with pytest.raises(DiskFull, match=W) as full:
        await save(artifacts, b"y" * 301)
    assert "carrel artifacts rm" in full.value.hint
    await save(artifacts, b"z" * 700, "bbbbbbbbbb")
    with pytest.raises(DiskFull, match="all workspaces"):
        await save(artifacts, b"w" * 200, "cccccccccc")
    assert len(place.there()) == 2
    await artifacts.remove(first.id)
    await save(artifacts, b"y" * 301)
    results = await asyncio.gather(
        *(save(artifacts, bytes([number]) * 300) for number in range(3)), return_exceptions=True
    )
    assert sum(isinstance(each, DiskFull) for each in results) == 2
    with pytest.raises(DiskFull):
        await artifacts.save_bytes(b"x" * 1001, workspace_id="d" * 10, kind="frame", name="f")


async def test_where_none_are_kept_that_is_told(store: Store, tmp_path: Path) -> None:
    artifacts = Artifacts(store, None, tmp_path / "incoming", quota())
    async with artifacts.run():
        with pytest.raises(Unsupported, match="keeps no artifacts"):
            await save(artifacts, b"x")


async def test_names_of_a_desktop_are_made_plain(artifacts: Artifacts) -> None:
    for name in ("../../etc/passwd", "a\x00b\nc\udcff", "", "/", "x" * 4000):
        kept = await artifacts.save(pieces(b"x"), workspace_id=W, kind="file", name=name)
        read = await artifacts.rows.get(kept.id)
        assert read == kept
        assert "/" not in kept.name
        assert kept.name.isprintable()
        assert 0 < len(kept.name) <= 255


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("incoming", ["small", "elsewhere"])
async def test_a_full_disk_is_told_and_leaves_nothing(
    store: Store, small_disk: Path, tmp_path: Path, incoming: str
) -> None:
    blobs = Folder(small_disk / "kept")
    full = Artifacts(store, blobs, tmp_path / incoming / "incoming", quota())
    (tmp_path / incoming).mkdir(exist_ok=True)
    async with full.run():
        kept = await save(full, b"k" * 300_000)
        with pytest.raises(DiskFull, match="no room") as told:
            await save(full, b"x" * (5 * MIB // 2))
        assert "nothing of this one was kept" in told.value.hint
        assert [each.digest for each in await blobs.page("", 9)] == [kept.digest]
        assert list((small_disk / "kept" / "new").iterdir()) == []
        assert await full.rows.page(W, None, limit=9, after=None) == [kept]
        await save(full, b"y" * 300_000)  # what fits goes on


_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from controller.artifacts import Artifacts
from controller.artifacts.folder import Folder
from controller.store import Store
from tests.controller.artifacts.conftest import pieces, quota

async def main(url, folder, where):
    store = Store(url)
    async with store.run():
        blobs = Folder(folder / "kept")
        artifacts = Artifacts(store, blobs, folder / "incoming", quota())
        async with artifacts.run():
            save = lambda data: artifacts.save(
                pieces(data), workspace_id="aaaaaaaaaa", kind="file", name="a")
            print((await save(b"acknowledged")).id, flush=True)
            async def die(*_):
                os.kill(os.getpid(), signal.SIGKILL)
            setattr(blobs if where == "put" else artifacts.rows, where, die)
            await save(b"b" * 3_000_000)

asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
"""


class Leads:
    async def is_ours(self) -> bool:
        return True


@pytest.fixture(params=["put", "add"])
def died(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> tuple[str, str]:
    """Where a process was killed while it saved; what it had acknowledged before."""
    process = subprocess.run(
        [sys.executable, "-c", _DIE, database_url, str(tmp_path), request.param],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == -9, process.stderr
    return request.param, process.stdout.strip()


async def test_killed_between_bytes_and_row(
    database_url: str, tmp_path: Path, died: tuple[str, str]
) -> None:
    where, acknowledged = died
    lost = digest_of(b"b" * 3_000_000)
    now = datetime.now(timezone.utc)
    store = Store(database_url)
    events = Events(store)
    blobs = Folder(tmp_path / "kept")
    artifacts = Artifacts(store, blobs, tmp_path / "incoming", quota(), now=lambda: now)
    assert len(list((tmp_path / "incoming").iterdir())) == 1
    async with store.run(), events.run(), artifacts.run():
        assert list((tmp_path / "incoming").iterdir()) == []
        kept = await artifacts.rows.get(acknowledged)
        assert await artifacts.read(kept) == b"acknowledged"
        assert len(await artifacts.rows.page(W, None, limit=9, after=None)) == 1
        found = {each.digest for each in await blobs.page("", 10)}
        assert found - {kept.digest} == ({lost} if where == "add" else set())
        retention = Retention(artifacts, Leads(), events, ages={})
        assert (await retention.sweep()).strays == 0  # it may be about to get its row
        now += timedelta(days=2)
        assert (await retention.sweep()).strays == 1
        assert [each.digest for each in await blobs.page("", 10)] == [kept.digest]
        assert await artifacts.rows.known([kept.digest, digest_of(b"b" * 3_000_000)]) == {
            kept.digest
        }


async def test_a_source_that_breaks_leaves_nothing(artifacts: Artifacts, place: Place) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise Unavailable("It broke.")

    with pytest.raises(CarrelError, match="It broke"):
        await artifacts.save(breaking(), workspace_id=W, kind="file", name="a")
    assert place.there() == []
    assert await artifacts.rows.page(W, None, limit=9, after=None) == []
