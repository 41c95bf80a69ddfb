"""What every place for blobs does: a folder, and an S3 over the wire."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from controller.artifacts.blobs import Blob, Blobs, digest_of
from controller.artifacts.s3 import PART_BYTES
from tests.controller.artifacts.conftest import Place
from workspace.errors import ArtifactDamaged

pytestmark = pytest.mark.anyio


def blob(data: bytes) -> Blob:
    return Blob(digest_of(data), len(data), data)


async def read(blobs: Blobs, digest: str) -> bytes:
    async with blobs.open(digest) as pieces:
        return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(700_000)], ids=["empty", "one", "pieces"])
async def test_what_is_put_is_there_as_it_was(place: Place, data: bytes) -> None:
    kept = blob(data)
    assert not await place.blobs.has(kept.digest, kept.size)
    await place.blobs.put(kept)
    assert await place.blobs.has(kept.digest, kept.size)
    assert await read(place.blobs, kept.digest) == data
    await place.blobs.put(kept)  # again is success
    assert place.there() == [kept.digest]


async def test_a_large_file_goes_in_parts(place: Place, tmp_path: Path) -> None:
    data = os.urandom(2 * PART_BYTES + 12345)
    file = tmp_path / "large"
    file.write_bytes(data)
    await place.blobs.put(Blob(digest_of(data), len(data), file))
    assert await read(place.blobs, digest_of(data)) == data
    assert file.read_bytes() == data
    assert place.there() == [digest_of(data)]


async def test_a_small_file_goes_whole(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "small"
    file.write_bytes(b"small")
    await place.blobs.put(Blob(digest_of(b"small"), 5, file))
    assert await read(place.blobs, digest_of(b"small")) == b"small"


async def test_what_is_not_there_is_told_and_its_removal_is_success(place: Place) -> None:
    gone = digest_of(b"never")
    with pytest.raises(ArtifactDamaged, match="not in"):
        await read(place.blobs, gone)
    await place.blobs.remove(gone)
    kept = blob(b"once")
    await place.blobs.put(kept)
    await place.blobs.remove(kept.digest)
    await place.blobs.remove(kept.digest)
    assert not await place.blobs.has(kept.digest, kept.size)
    assert place.there() == []


async def test_one_of_another_size_is_written_anew(place: Place) -> None:
    kept = blob(b"whole and well")
    await place.blobs.put(kept)
    place.damage(kept.digest, b"half")
    assert not await place.blobs.has(kept.digest, kept.size)
    await place.blobs.put(kept)
    assert await read(place.blobs, kept.digest) == b"whole and well"


async def test_many_writers_of_one_digest(place: Place) -> None:
    kept = blob(os.urandom(300_000))
    await asyncio.gather(*(place.blobs.put(kept) for _ in range(8)))
    assert await read(place.blobs, kept.digest) == kept.source
    assert place.there() == [kept.digest]


async def test_they_are_told_by_page_in_their_order(place: Place) -> None:
    kept = sorted((blob(str(number).encode()) for number in range(7)), key=lambda it: it.digest)
    for each in kept:
        await place.blobs.put(each)
    found = await place.blobs.page("", 3)
    found += await place.blobs.page(found[-1].digest, 3)
    found += await place.blobs.page(found[-1].digest, 3)
    assert [(each.digest, each.size) for each in found] == [(it.digest, it.size) for it in kept]
    now = datetime.now(timezone.utc)
    assert all(abs(now - each.at) < timedelta(seconds=60) for each in found)
    assert await place.blobs.page(kept[-1].digest, 3) == []


async def test_what_is_no_digest_never_becomes_a_path(place: Place) -> None:
    for digest in ("", "../../etc/passwd", "a" * 63 + "/", "A" * 64, "a" * 65, "a" * 63 + "\n"):
        for asked in (
            place.blobs.has(digest, 1),
            place.blobs.remove(digest),
            read(place.blobs, digest),
            place.blobs.put(Blob(digest, 1, b"x")),
        ):
            with pytest.raises(ValueError, match="no digest"):
                await asked
    assert place.there() == []


async def test_the_place_can_be_looked_at(place: Place) -> None:
    await place.blobs.check()
    assert place.bucket in place.blobs.place
