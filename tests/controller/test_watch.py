"""WebSockets through the controller: who may, what passes, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import BEARER, KEY, claim
from tests.controller.upstream import CHUNK, TOKEN, Upstream, upstream
from tests.serving import listening
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


class Site:
    """A controller on a port, with one desktop."""

    def __init__(self, url: str, there: Upstream, workspace: dict[str, object]) -> None:
        self.url, self.there, self.workspace = url, there, workspace
        self.base = f"/v1/workspaces/{workspace['id']}"

    async def open(
        self, path: str, headers: dict[str, str] | None = None, **options: Any
    ) -> ClientConnection:  # Any: the library's own
        return await connect(
            self.url.replace("http", "ws") + path,
            additional_headers=headers,
            proxy=None,
            compression=None,
            max_size=None,
            **options,
        )

    async def refusal(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as caught:
            await self.open(path, headers)
        response = caught.value.response
        return response.status_code, json.loads(response.body or b"{}")["code"]


@pytest.fixture
async def site(settings: Settings, short_dir: Path) -> AsyncIterator[Site]:
    async with upstream(short_dir) as (there, cluster):
        app = create_app(settings, cluster)
        async with app.router.lifespan_context(app), listening(app) as port:
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url, headers=BEARER) as http:
                yield Site(url, there, await claim(http))


async def cookies(site: Site) -> tuple[str, str]:
    """The cookies of a session and of a viewer."""
    origin = {"Origin": site.url}
    token = httpx.URL(str(site.workspace["watch_url"])).fragment
    async with httpx.AsyncClient(base_url=site.url, headers=origin) as http:
        session = await http.post("/v1/login", json={"key": KEY})
        viewer = await http.post(f"{site.base}/viewer", json={"token": token})
    one, other = (a.headers["set-cookie"].split(";")[0] for a in (session, viewer))
    return one, other


async def test_frames_pass_both_ways_and_the_key_does_not(site: Site) -> None:
    path = f"{site.base}/vnc?role=control"
    async with await site.open(path, BEARER, subprotocols=[Subprotocol("binary")]) as socket:
        assert socket.subprotocol == "binary"
        assert await socket.recv() == b"RFB 003.008\n"
        await socket.send(b"hello")
        assert await socket.recv() == b"echo hello"
        large = b"x" * (1 << 20)
        await socket.send(large)
        assert await socket.recv() == b"echo " + large
    assert site.there.seen[-1] == "role=control&holder=admin&grant=g"
    assert site.there.headers[-1]["authorization"] == f"Bearer {TOKEN}"
    assert KEY not in str(site.there.headers[-1])


async def test_either_end_ends_both(site: Site) -> None:
    socket = await site.open(f"{site.base}/vnc?role=view", BEARER)
    await socket.recv()
    await socket.send(b"close")
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    assert (socket.close_code, socket.close_reason) == (4001, "it is over")

    socket = await site.open(f"{site.base}/vnc?role=view", BEARER)
    await socket.recv()
    await socket.close()
    await asyncio.wait_for(site.there.vnc_closed, 5)


async def test_who_may_watch_and_who_may_act(site: Site) -> None:
    session, viewer = await cookies(site)
    own = {"Origin": site.url}
    view, control = f"{site.base}/vnc?role=view", f"{site.base}/vnc?role=control"
    for headers, path in [
        (BEARER, control),
        ({"Cookie": session, **own}, control),
        ({"Cookie": viewer, **own}, view),
    ]:
        async with await site.open(path, headers) as socket:
            await socket.recv()
    for headers, path, refusal in [
        ({}, view, (401, "unauthorized")),
        ({"Authorization": "Bearer wrong"}, view, (401, "unauthorized")),
        ({"Cookie": viewer, **own}, control, (403, "forbidden")),
        ({"Cookie": viewer, **own}, f"{site.base}/vnc", (403, "forbidden")),
        ({"Cookie": viewer, **own}, f"{view}&role=control", (403, "forbidden")),
        ({"Cookie": viewer, **own}, f"{site.base}/terminal", (403, "forbidden")),
        ({"Cookie": session, "Origin": "http://evil.example"}, view, (403, "forbidden")),
        ({"Cookie": session, "Origin": "http://127.0.0.1:1"}, view, (403, "forbidden")),
        ({"Cookie": session}, view, (403, "forbidden")),
        ({**BEARER, "Origin": "http://evil.example"}, view, (403, "forbidden")),
        (BEARER, "/v1/workspaces/abcdefghjk/vnc", (404, "workspace_not_found")),
    ]:
        assert await site.refusal(path, headers) == refusal, (headers, path)


async def test_a_rebinding_host_gets_no_socket(site: Site) -> None:
    # The library sends the Host of the address it is given: one that resolves to us by rebinding.
    port = int(site.url.rsplit(":", 1)[1])
    with pytest.raises(InvalidStatus) as caught:
        await connect(
            f"ws://evil.example:{port}{site.base}/vnc?role=view",
            host="127.0.0.1",
            port=port,
            additional_headers=BEARER,
            proxy=None,
        )
    assert caught.value.response.status_code == 403


async def test_what_the_desktop_refuses_is_refused_in_its_words(site: Site) -> None:
    refusal = await site.refusal(f"{site.base}/terminal?cols=99999", BEARER)
    assert refusal == (422, "invalid_request")


async def test_watching_is_in_the_log(site: Site) -> None:
    async with await site.open(f"{site.base}/vnc?role=view", BEARER) as socket:
        await socket.recv()
    async with httpx.AsyncClient(base_url=site.url, headers=BEARER) as http:

        async def is_told() -> bool:
            events = (await http.get(f"{site.base}/events")).json()["events"]
            return [event["kind"] for event in events[-2:]] == ["watch", "watch_end"]

        await eventually(is_told)


async def test_a_viewer_that_never_reads_slows_nobody_and_is_kept_nothing_for(site: Site) -> None:
    path = f"{site.base}/vnc?role=flood"
    lazy = [await site.open(path, BEARER, max_queue=1) for _ in range(3)]
    async with await site.open(path, BEARER) as keen:
        read = 0
        before: list[int] = []
        while read < 2000:
            read += len(await keen.recv()) // len(CHUNK)
            if read == 1000:
                before = site.there.flooded[:3]
        after = site.there.flooded[:3]
    assert after == before, "they stand still: nobody reads"
    assert max(after) * len(CHUNK) < 16 << 20, "what is kept for them is bounded"
    for each in lazy:
        each.transport.abort()
    await eventually(lambda: site.there.dry == 4)
