"""The log live: each line once and in order, across controllers, and with the channel gone."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple  # Any: JSON values

import anyio
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from controller.app import create_app
from controller.channel import Here
from controller.cli.events import line as told_line
from controller.routes import Parts
from controller.settings import Settings
from controller.store import NewEvent, Seen, Store
from controller.tail import Tail
from tests.controller.conftest import BEARER, KEY, LocalCluster, both_databases, claim
from tests.postgres import Postgres, postgres
from tests.redis_server import RedisServer, redis_server
from tests.serving import listening
from tests.waiting import eventually
from workspace.client import Carrel
from workspace.errors import Unavailable
from workspace.models import Event
from workspace.sync import SyncCarrel

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
W = "abcdefghjk"


def event(n: int, of: str | None = None) -> NewEvent:
    return NewEvent(NOW, of, "admin", "k", {"n": n})


async def numbers(tail: Tail, many: int, seen: Seen | None = None, pause: float = 0) -> list[int]:
    """What the first ``many`` lines are, from the beginning."""
    found: list[Event] = []
    async with tail.follow(seen or Seen(), 0) as groups:
        async for group in groups:
            found += [told.event for told in group]
            if len(found) >= many:
                break
            await asyncio.sleep(pause)
    ids = [each.id for each in found]
    assert ids == sorted(set(ids))
    return [int(str(each.data["n"])) for each in found]


@both_databases
@pytest.mark.parametrize("held", [7, 2000])
async def test_each_line_comes_once_between_history_and_now(
    database_url: str, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.tail.MOST_HELD", held)
    monkeypatch.setattr("controller.tail.PAGE", 50)
    store, channel = Store(database_url), Here()
    store.appended = channel.told
    tail = Tail(store, channel)
    async with store.run(), tail.run():
        await store.append([event(n) for n in range(300)])

        async def write() -> None:
            for n in range(300, 600, 3):
                await store.append([event(n), event(n + 1, W), event(n + 2)])
                await asyncio.sleep(0)

        with anyio.fail_after(60):
            fast, slow, one, _ = await asyncio.gather(
                numbers(tail, 600),
                numbers(tail, 600, pause=0.02),
                numbers(tail, 100, Seen(W)),
                write(),
            )
        assert fast == slow == list(range(600))
        assert one == list(range(301, 600, 3))


async def test_one_question_serves_all_readers(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, channel = Store(database_url), Here()
    store.appended = channel.told
    tail = Tail(store, channel)
    asked = 0
    page = store.events

    async def counted(*args: Any, **options: Any) -> list[Event]:
        nonlocal asked
        asked += 1
        return await page(*args, **options)

    monkeypatch.setattr(store, "events", counted)
    async with store.run(), tail.run():
        got = [-1] * 50

        async def read(place: int) -> None:
            async with tail.follow(Seen(), None) as groups:
                got[place] = 0
                async for group in groups:
                    got[place] += len(group)

        readers = [asyncio.create_task(read(place)) for place in range(50)]
        await eventually(lambda: got == [0] * 50)
        for n in range(20):
            await store.append([event(n)])
            await eventually(lambda n=n: got == [n + 1] * 50)
        assert asked < 20 * 4
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
        assert tail._last is None  # nothing is held for nobody


class Site(NamedTuple):
    """A controller on a real socket."""

    http: httpx.AsyncClient
    port: int
    app: FastAPI

    @property
    def parts(self) -> Parts:
        parts = self.app.state.parts
        assert isinstance(parts, Parts)
        return parts

    async def record(self, n: int, **data: object) -> None:
        await self.parts.events.record("k", actor="me", n=n, **data)


@asynccontextmanager
async def site(settings: Settings, cluster: LocalCluster) -> AsyncIterator[Site]:
    app = create_app(settings, cluster)
    async with app.router.lifespan_context(app), listening(app) as port:
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, headers=BEARER, timeout=30) as http:
            yield Site(http, port, app)


@pytest.fixture
async def here(settings: Settings, cluster: LocalCluster) -> AsyncIterator[Site]:
    async with site(settings, cluster) as here:
        yield here


async def sent(answer: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The fields of an event stream, and its comments."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    async for line in answer.aiter_lines():
        name, _, value = line.partition(":")
        if line:
            yield name, value.strip()


async def lines(
    here: Site, many: int, path: str = "/v1/events/stream", **options: Any
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with here.http.stream("GET", path, **options) as answer:
        async for name, value in sent(answer):
            if name == "data":
                found.append(json.loads(value))
                if len(found) == many:
                    break
    return found


async def test_a_stream_goes_on_where_it_was(here: Site) -> None:
    made = await claim(here.http, template="desktop")
    for n in range(5):
        await here.record(n)
    all_ = await lines(here, 7, params={"after": 0})
    assert [each["kind"] for each in all_] == ["claim", "ready", *"kkkkk"]
    rest = await lines(here, 4, headers={"Last-Event-ID": str(all_[2]["id"])}, params={"after": 0})
    assert rest == all_[3:]
    base = f"/v1/workspaces/{made['id']}/events/stream"
    own = await lines(here, 2, base, params={"after": 0})
    assert {each["workspace_id"] for each in own} == {made["id"]}

    url = f"ws://127.0.0.1:{here.port}"
    head = {"Authorization": f"Bearer {KEY}"}
    async with connect(f"{url}{base}?after=0", additional_headers=head) as own_socket:
        assert [json.loads(await own_socket.recv()) for _ in own] == own
    await eventually(lambda: here.parts.tail._readers == 0)  # it is not the next one that reads
    async with connect(f"{url}/v1/events/stream", additional_headers=head) as new_socket:
        await here.record(99)
        assert json.loads(await new_socket.recv())["data"] == {"n": 99}
    await eventually(lambda: here.parts.tail._readers == 0)


async def test_an_idle_stream_shows_that_it_lives(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.tail.HEARTBEAT_SECONDS", 0.05)
    async with here.http.stream("GET", "/v1/events/stream") as answer:
        beats = 0
        async for name, _ in sent(answer):
            beats += name == ""
            if beats == 3:
                break


async def test_what_cannot_be_followed_is_refused(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "/v1/workspaces/nothere222/events/stream"
    assert (await here.http.get(base)).status_code == 404
    refused = await here.http.get("/v1/events/stream", headers={"Last-Event-ID": "x"})
    assert refused.status_code == 422
    async with httpx.AsyncClient(base_url=here.http.base_url) as nobody:
        for path in ("/v1/events/stream", "/v1/audit", "/v1/audit/verify"):
            assert (await nobody.get(path)).status_code == 401
    for path in (base, "/v1/events/stream?after=x"):
        with pytest.raises(InvalidStatus):
            await connect(
                f"ws://127.0.0.1:{here.port}{path}",
                additional_headers={"Authorization": f"Bearer {KEY}"},
            )
    monkeypatch.setattr("controller.tail.MOST_READERS", 0)
    ended = (await here.http.get("/v1/events/stream")).text
    assert "event: end\ndata: {" in ended
    assert "unavailable" in ended


async def test_who_does_not_read_is_cut_and_slows_nobody(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.streams.READ_SECONDS", 0.5)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", here.port))
        asked = f"GET /v1/events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}"
        deaf.sendall(f"{asked}\r\n\r\n".encode())
        await eventually(lambda: here.parts.tail._readers == 1)
        began, slowest = time.monotonic(), 0.0
        while here.parts.tail._readers:
            before = time.monotonic()
            await here.record(1, text="x" * 200_000)
            slowest = max(slowest, time.monotonic() - before)
            assert time.monotonic() - began < 30
            await asyncio.sleep(0.01)
        assert slowest < 5
        assert here.parts.tail._held_bytes <= 4 << 20

        def drained() -> bool:
            deaf.settimeout(20)
            try:
                while deaf.recv(1 << 20):
                    pass
            except ConnectionResetError:
                pass
            return True

        assert await asyncio.to_thread(drained)


async def test_the_record_is_exported_and_verified_through_rest(here: Site) -> None:
    made = await claim(here.http, template="desktop")
    whole = (await here.http.get("/v1/audit")).text.splitlines()
    assert [json.loads(line).get("kind") for line in whole][-3:-1] == ["claim", "ready"]
    own = await here.http.get("/v1/audit", params={"workspace": str(made["id"])})
    assert len(own.text.splitlines()) == 5
    report = (await here.http.get("/v1/audit/verify")).json()
    assert report["ok"], report
    assert report["lines"] == 2
    assert (await here.http.get("/v1/audit?since=2026-01-01T00:00:00")).status_code == 422


# Several controllers.


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def two(
    tmp_path: Path, database_url: str, cluster: LocalCluster, redis_url: str = ""
) -> AsyncIterator[tuple[Site, Site]]:
    async with AsyncExitStack() as stack:
        sites = [
            await stack.enter_async_context(
                site(
                    Settings(
                        home=tmp_path / name,
                        api_key=SecretStr(KEY),
                        secret=SecretStr("the secret of both of them"),
                        database_url=database_url,
                        replica=name,
                        redis_url=redis_url,
                        artifacts="none",
                        ray_address="none: what lives is left to the other",
                    ),
                    cluster,
                )
            )
            for name in ("one", "two")
        ]
        yield sites[0], sites[1]


@asynccontextmanager
async def following(here: Site) -> AsyncIterator[list[int]]:
    """What comes to a reader there, as long as the block runs."""
    got: list[int] = []
    begun = asyncio.Event()

    async def read() -> None:
        async with here.http.stream("GET", "/v1/events/stream") as answer:
            async for name, value in sent(answer):
                if name == "retry":
                    begun.set()
                if name == "data" and json.loads(value)["kind"] == "k":
                    got.append(json.loads(value)["data"]["n"])

    reader = asyncio.create_task(read())
    try:
        await asyncio.wait_for(begun.wait(), 20)
        yield got
    finally:
        reader.cancel()
        await asyncio.wait([reader])


@pytest.mark.parametrize("channel", ["postgresql", "redis"])
async def test_what_one_controller_writes_the_other_tells(
    channel: str,
    server: Postgres,
    redis: RedisServer,
    tmp_path: Path,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.tail.ASK_SECONDS", 3600)  # only the channel wakes
    url = redis.url if channel == "redis" else ""
    async with two(tmp_path, server.database(), cluster, url) as (one, other):
        await eventually(lambda: one.parts.tail.trouble is other.parts.tail.trouble is None)
        async with following(other) as got, following(one) as own:
            for n in range(10):
                await (one if n % 2 else other).record(n)
                await eventually(lambda n=n: got[-1:] == own[-1:] == [n], 10)
            await asyncio.gather(*((one if n % 3 else other).record(n) for n in range(10, 200)))
            await eventually(lambda: len(got) == len(own) == 200, 10)
            assert got == own
            assert sorted(got) == list(range(200))
        assert (await one.http.get("/v1/audit/verify")).json()["ok"]


async def test_readers_are_served_while_redis_is_gone(
    server: Postgres, tmp_path: Path, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.channel.TIMEOUT_SECONDS", 3)
    with redis_server() as redis:
        async with two(tmp_path, server.database(), cluster, redis.url) as (one, other):
            async with following(other) as got:
                await one.record(1)
                await eventually(lambda: got == [1])
                await asyncio.to_thread(redis.kill)
                await eventually(lambda: other.parts.tail.trouble)
                await one.record(2)  # it is kept all the same
                await eventually(lambda: got == [1, 2], 5)
                told = (await other.http.get("/readyz")).json()
                assert told["ready"]
                assert "Redis" in told["degraded"]
                status = (await other.http.get("/v1/status")).json()
                assert any("Redis" in trouble for trouble in status["troubles"])
                await asyncio.to_thread(redis.start)
                await eventually(lambda: one.parts.tail.trouble is other.parts.tail.trouble is None)
                monkeypatch.setattr("controller.tail.ASK_SECONDS", 3600)
                await one.record(3)
                await eventually(lambda: got == [1, 2, 3], 10)
                assert (await other.http.get("/readyz")).json() == {"ready": True}


async def test_a_listener_that_is_cut_off_listens_again(
    tmp_path: Path, cluster: LocalCluster
) -> None:
    with postgres() as mine:
        url = mine.database()
        async with two(tmp_path, url, cluster) as (one, other):
            await eventually(lambda: other.parts.tail.trouble is None)
            async with following(other) as got:
                await one.record(1)
                await eventually(lambda: got == [1])
                for n in (2, 3):
                    await asyncio.to_thread(
                        mine.execute,
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                        "WHERE query LIKE 'LISTEN%'",
                    )
                    await one.record(n)
                    await eventually(lambda n=n: got[-1:] == [n], 10)
                await asyncio.to_thread(mine.kill)
                await eventually(lambda: other.parts.tail.trouble)
                await asyncio.to_thread(mine.start)
                await eventually(lambda: other.parts.tail.trouble is None)

                async def again() -> bool:
                    try:
                        await one.record(4)
                    except Exception:
                        return False
                    return True

                await eventually(again)
                await eventually(lambda: got[-1:] == [4], 10)
                assert sorted(set(got)) == [1, 2, 3, 4]


async def test_a_redis_that_is_none_is_said_so(settings: Settings, cluster: LocalCluster) -> None:
    wrong = settings.model_copy(update={"redis_url": "http://nowhere"})
    app = create_app(wrong, cluster)
    with pytest.raises(Exception, match="CARREL_REDIS_URL"):
        async with app.router.lifespan_context(app):
            pass


# Who follows.


async def test_a_client_goes_on_after_a_broken_connection(
    settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workspace.calls.events.AGAIN_SECONDS", 0.05)
    app = create_app(settings, cluster)
    async with app.router.lifespan_context(app):
        record = app.state.parts.events.record
        got: list[int] = []

        async def read(carrel: Carrel) -> None:
            async with aclosing(carrel.follow(after=0)) as events:
                async for each in events:
                    got.append(int(str(each.data["n"])))

        async with listening(app) as port:
            carrel = Carrel(f"http://127.0.0.1:{port}", KEY)
            reader = asyncio.create_task(read(carrel))
            await record("k", actor="me", n=1)
            await eventually(lambda: got == [1])
        await record("k", actor="me", n=2)
        async with listening(app, port):
            await record("k", actor="me", n=3)
            await eventually(lambda: got == [1, 2, 3])
            reader.cancel()
            await asyncio.wait([reader])
            await carrel.aclose()
        with pytest.raises(Unavailable):
            async with Carrel(f"http://127.0.0.1:{port}", KEY) as nobody:
                await anext(nobody.follow())


async def test_the_synchronous_client_follows_too(here: Site) -> None:
    def read() -> object:
        with SyncCarrel(f"http://127.0.0.1:{here.port}", KEY) as carrel:
            for each in carrel.follow(after=0):
                return each.data["n"]
        return None

    await here.record(7)
    assert await asyncio.to_thread(read) == 7


def test_a_line_of_the_log_is_inert_in_a_terminal() -> None:
    bad = "\x1b]0;owned\x07\r\n\u202e[red]"
    data = {"path": bad, "list": [bad]}
    told = told_line(Event(id=1, at=NOW, actor=bad, kind="k", data=data))
    assert all(character.isprintable() for character in told)
    assert told.count("\\u001b") == 3
