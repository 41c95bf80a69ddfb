"""Large bodies, broken desktops, and callers that hang up: over real sockets both ways."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from controller.app import create_app
from controller.settings import Settings
from controller.streams import attachment
from tests.controller.conftest import BEARER, claim
from tests.controller.upstream import CHUNK, Upstream, upstream
from tests.serving import listening
from tests.waiting import eventually

pytestmark = pytest.mark.anyio
LARGE = 200 << 20
URL_OF_NONE = "/v1/workspaces/abcdefghjk/files"


class Caller:
    """A client with a claimed desktop, and the desktop's own view."""

    def __init__(self, http: httpx.AsyncClient, there: Upstream, base: str) -> None:
        self.http, self.there, self.base = http, there, base


@pytest.fixture
async def caller(settings: Settings, short_dir: Path) -> AsyncIterator[Caller]:
    async with upstream(short_dir) as (there, cluster):
        app = create_app(settings, cluster)
        async with app.router.lifespan_context(app), listening(app) as port:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers=BEARER, timeout=30
            ) as http:
                base = f"/v1/workspaces/{(await claim(http))['id']}"
                yield Caller(http, there, base)


def memory() -> int:
    used: int = psutil.Process(os.getpid()).memory_info().rss
    return used


async def test_a_large_upload_passes_through_without_being_held(caller: Caller) -> None:
    peak = before = memory()

    async def body() -> AsyncIterator[bytes]:
        nonlocal peak
        for _ in range(LARGE // len(CHUNK)):
            yield CHUNK
            peak = max(peak, memory())

    answer = await caller.http.put(f"{caller.base}/files?path=big", content=body())
    assert answer.json()["size"] == caller.there.received == LARGE
    assert peak - before < 40 << 20, f"{(peak - before) >> 20} MiB more"


async def test_a_large_download_passes_through_without_being_held(caller: Caller) -> None:
    peak = before = memory()
    got = 0
    url = f"{caller.base}/files?path={LARGE // len(CHUNK)}"
    async with caller.http.stream("GET", url) as answer:
        async for chunk in answer.aiter_bytes():
            got += len(chunk)
            peak = max(peak, memory())
    assert got == LARGE
    assert peak - before < 40 << 20, f"{(peak - before) >> 20} MiB more"


async def test_a_reader_that_is_slow_slows_the_desktop(caller: Caller) -> None:
    url = f"{caller.base}/files?path={LARGE // len(CHUNK)}"
    async with caller.http.stream("GET", url) as answer:
        chunks = answer.aiter_bytes()
        await anext(chunks)
        sent = -1
        while sent != caller.there.sent_chunks:  # until it is held up
            sent = caller.there.sent_chunks
            await asyncio.sleep(0.1)
        assert sent * len(CHUNK) < 32 << 20
        assert not caller.there.hung_up.is_set()
    await asyncio.wait_for(caller.there.hung_up.wait(), 5)  # and the hang-up goes through
    assert caller.there.sent_chunks * len(CHUNK) < 64 << 20


async def test_a_download_can_only_be_saved(caller: Caller) -> None:
    answer = await caller.http.get(f"{caller.base}/files?path=1")
    assert answer.headers["content-disposition"].startswith('attachment; filename="1"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/home/user/a b.txt", "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
        ('q"\r\nx: y', "attachment; filename=\"q___x: y\"; filename*=UTF-8''q%22%0D%0Ax%3A%20y"),
        ("世界", "attachment; filename=\"__\"; filename*=UTF-8''%E4%B8%96%E7%95%8C"),
        ("/", "attachment; filename=\"file\"; filename*=UTF-8''file"),
    ],
)
def test_any_name_makes_one_safe_header(path: str, header: str) -> None:
    assert attachment(path) == header


async def test_an_upload_that_is_refused_is_told_why(caller: Caller) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(LARGE // len(CHUNK)):
            yield CHUNK

    peak = before = memory()
    for _ in range(2):
        answer = await caller.http.put(f"{caller.base}/files?path=full", content=body())
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
        peak = max(peak, memory())
    assert peak - before < 40 << 20
    answer = await caller.http.put(f"{URL_OF_NONE}?path=a", content=body())
    assert (answer.status_code, answer.json()["code"]) == (404, "workspace_not_found")


async def test_an_upload_that_cannot_fit_is_refused_before_it_is_sent(caller: Caller) -> None:
    size = 5 << 30
    head = (
        f"PUT {caller.base}/files?path=huge HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: {BEARER['Authorization']}\r\n"
        f"Content-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(
        caller.http.base_url.host, caller.http.base_url.port
    )
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 507")
    assert f"{size} bytes do not fit".encode() in answer
    assert caller.there.received == 0


async def test_a_download_that_breaks_is_never_taken_for_whole(caller: Caller) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.http.get(f"{caller.base}/files?path=3")


async def test_a_desktop_that_breaks_in_an_answer_is_lost(caller: Caller) -> None:
    answer = await caller.http.get(f"{caller.base}/screenshot")
    assert (answer.status_code, answer.json()["code"]) == (502, "desktop_lost")
    assert "not retried" in answer.json()["hint"]


async def test_a_caller_that_hangs_up_ends_its_action(caller: Caller) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await caller.http.post(
            f"{caller.base}/actions", json={"type": "wait", "seconds": 30}, timeout=0.3
        )
    await asyncio.wait_for(caller.there.hung_up.wait(), 5)
    assert caller.there.hanging == 1  # and it was not tried again

    async def told() -> list[object]:
        events = (await caller.http.get(f"{caller.base}/events")).json()["events"]
        return [e["data"].get("error") for e in events if e["kind"] == "act"]

    await eventually(told)
    assert await told() == ["caller_gone"]


async def test_an_upload_that_breaks_off_breaks_off_at_the_desktop(caller: Caller) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield CHUNK
        raise ConnectionError("the caller's own")

    with pytest.raises(ConnectionError):
        await caller.http.put(f"{caller.base}/files?path=half", content=body())
    await eventually(lambda: caller.there.received <= len(CHUNK))
    answer = await caller.http.get(f"{caller.base}/files?path=1")  # and the next one works
    assert answer.status_code == 200
