"""S3 that is away, slow, killed in the middle, or that refuses: told clearly, and it recovers."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.artifacts import Artifacts
from controller.artifacts import s3 as module
from controller.artifacts.blobs import Blob, digest_of
from controller.artifacts.s3 import PART_BYTES, S3
from controller.store import Store
from tests.controller.artifacts.conftest import MIB, pieces, quota
from tests.s3 import Between, Server, between
from workspace.errors import BackendUnavailable, InvalidRequest, Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("credentials")]
W = "aaaaaaaaaa"


@pytest.fixture
async def way(s3: Server) -> AsyncIterator[Between]:
    async with between(s3.url) as way:
        yield way


async def save(artifacts: Artifacts, data: bytes) -> str:
    kept = await artifacts.save(pieces(data), workspace_id=W, kind="file", name="a")
    return kept.id


@pytest.mark.parametrize("size", [3 * MIB, 2 * PART_BYTES + 5], ids=["whole", "parts"])
async def test_killed_in_the_middle_nothing_is_there_and_all_goes_on(
    store: Store, s3: Server, way: Between, tmp_path: Path, size: int
) -> None:
    bucket = s3.bucket()
    blobs = S3(f"s3://{bucket}", endpoint=way.url)
    artifacts = Artifacts(store, blobs, tmp_path / "incoming", quota())
    data = os.urandom(size)
    async with artifacts.run():
        before = await save(artifacts, b"acknowledged")
        way.left = size // 2
        with pytest.raises(Unavailable, match=f"s3://{bucket}/ at {way.url}"):
            await save(artifacts, data)
        with pytest.raises(Unavailable, match="What was acknowledged is kept"):
            await artifacts.read(await artifacts.rows.get(before))
        assert list((tmp_path / "incoming").iterdir()) == []
        assert s3.keys(bucket) == [digest_of(b"acknowledged")]
        assert len(await artifacts.rows.page(W, None, limit=9, after=None)) == 1
        way.is_away, way.left = False, None
        assert await artifacts.read(await artifacts.rows.get(before)) == b"acknowledged"
        again = await artifacts.rows.get(await save(artifacts, data))
        assert await artifacts.read(again) == data


async def test_parts_that_were_sent_in_vain_are_taken_back(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    blobs = S3(f"s3://{bucket}", endpoint=s3.url)
    file = tmp_path / "large"
    file.write_bytes(os.urandom(2 * PART_BYTES))
    async with blobs.run():
        call = blobs._call

        async def failing(operation: str, *arguments: float, **named: object) -> object:
            if named.get("PartNumber") == 2:
                raise Unavailable("It is away.")
            return await call(operation, *arguments, **named)

        monkeypatch.setattr(blobs, "_call", failing)
        with pytest.raises(Unavailable, match="It is away"):
            await blobs.put(Blob("a" * 64, 2 * PART_BYTES, file))
    assert s3.uploads(bucket) == 0
    assert s3.keys(bucket) == []


async def test_a_slow_server_is_given_up(
    s3: Server, way: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.3)
    blobs = S3(f"s3://{s3.bucket()}", endpoint=way.url)
    async with blobs.run():
        way.delay = 30
        began = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await blobs.put(Blob(digest_of(b"x"), 1, b"x"))
        assert time.monotonic() - began < 5
        way.delay = 0
        await blobs.put(Blob(digest_of(b"x"), 1, b"x"))


async def test_a_call_is_bounded_whatever_the_library_does(s3: Server, way: Between) -> None:
    blobs = S3(f"s3://{s3.bucket()}", endpoint=way.url)
    async with blobs.run():
        way.delay = 30
        with pytest.raises(Unavailable, match="does not answer in time"):
            await blobs._call("head_bucket", 0.3)


async def test_wrong_credentials_and_a_missing_bucket_are_told(
    s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Blob(digest_of(b"x"), 1, b"x")
    missing = S3("s3://no-such-bucket/here", endpoint=s3.url)
    async with missing.run():
        for asked in (missing.check(), missing.put(kept)):
            with pytest.raises(Unavailable, match="no such bucket"):
                await asked
    bucket = s3.bucket()
    refused = S3(f"s3://{bucket}", endpoint=s3.url)
    async with refused.run():
        s3.check_keys(0)
        try:
            with pytest.raises(Unavailable, match="access key is not known") as told:
                await refused.put(kept)
            assert "credentials" in told.value.hint
            with pytest.raises(Unavailable, match="access is denied"):
                await refused.has(kept.digest, 1)
        finally:
            s3.check_keys(None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    without = S3(f"s3://{bucket}", endpoint=s3.url)
    async with without.run():
        with pytest.raises(Unavailable, match="no credentials"):
            await without.put(kept)


async def test_what_was_changed_on_the_way_is_refused(s3: Server) -> None:
    """The body's digest is part of what is signed."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        blobs = S3("s3://bucket", endpoint=f"http://127.0.0.1:{port}")
        async with blobs.run():
            await blobs.put(Blob(digest_of(b"signed"), 6, b"signed"))
    assert f"x-amz-content-sha256: {digest_of(b'signed')}".encode() in seen[0].lower()


async def test_no_redirect_is_followed() -> None:
    asked: list[str] = []
    elsewhere: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        head = f"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{other_port}/secret\r\n"
        writer.write(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def lure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        elsewhere.append("somebody came")
        writer.close()

    other = await asyncio.start_server(lure, "127.0.0.1", 0)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    other_port = other.sockets[0].getsockname()[1]
    async with server, other:
        port = server.sockets[0].getsockname()[1]
        blobs = S3("s3://bucket", endpoint=f"http://127.0.0.1:{port}")
        async with blobs.run():
            with pytest.raises(Unavailable):
                await blobs.check()
            with pytest.raises(Unavailable):
                async with blobs.open("a" * 64):
                    pass
    assert len(asked) >= 2
    assert elsewhere == []


@pytest.mark.parametrize("url", ["s3://", "s3://UPPER", "s3:bucket", "s3://b", "s3://bucket/a b"])
def test_what_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="names no bucket"):
        S3(url)


def test_without_its_library_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)
    with pytest.raises(BackendUnavailable, match="not installed") as told:
        S3("s3://bucket")
    assert "carrel[s3]" in told.value.hint
