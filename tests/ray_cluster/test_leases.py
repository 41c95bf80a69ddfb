"""Leases: when an actor goes on, when it ends, and whose word counts; then with a real actor."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ray_cluster import leases
from ray_cluster.cluster import Cluster
from ray_cluster.leases import Answer, Belief, Lease, Refused, Renewal, Renewed, Silent
from tests.ray_cluster.conftest import NAMESPACE, Running, new_id, template
from tests.serving import listening
from tests.waiting import eventually
from workspace.errors import NotReady, WorkspaceEnded

pytestmark = pytest.mark.anyio
SECRET = b"the controllers' own"
ENDED = WorkspaceEnded("It was released at noon.")


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (200, {"ttl_seconds": 12.5}, Renewed(12.5)),
        (200, {"ttl_seconds": 0}, Renewed(0.0)),
        (200, {"ttl_seconds": None}, Renewed(None)),
        (410, ENDED.to_wire(), Refused(ENDED.message)),
        # What is no controller's word, or says nothing of this desktop.
        (410, {"code": "gone"}, Silent),
        (410, "<html>Gone</html>", Silent),
        (200, {"hello": "world"}, Silent),
        (200, {"ttl_seconds": "12"}, Silent),
        (200, {"ttl_seconds": True}, Silent),
        (200, {"ttl_seconds": -1}, Silent),
        (200, {"ttl_seconds": float("nan")}, Silent),
        (200, [12], Silent),
        (200, "[" * 10_000, Silent),
        (401, {"code": "unauthorized", "message": "no", "hint": ""}, Silent),
        (404, {"code": "workspace_ended"}, Silent),
        (503, {"code": "unavailable", "message": "no database", "hint": ""}, Silent),
    ],
)
def test_what_an_answer_means(status: int, body: object, meaning: object) -> None:
    said = leases.judge(status, (body if isinstance(body, str) else json.dumps(body)).encode())
    assert said == meaning or (meaning is Silent and isinstance(said, Silent)), said


def test_a_token_opens_one_lease_and_tells_nothing_of_the_secret() -> None:
    lease = Lease(["http://127.0.0.1:1"], SECRET)
    one, other = (lease.terms(sandbox) for sandbox in ("aaaaaaaa", "bbbbbbbb"))
    assert one["token"] == leases.token(SECRET, "aaaaaaaa") != other["token"]
    assert SECRET.decode() not in json.dumps(one) + repr(lease)


def test_which_belief_counts() -> None:
    belief = Belief()
    # It began with another deadline than its controller has: the second answer settles it.
    assert not belief.counts(10, remaining=60, changes=0)
    assert belief.counts(10, remaining=60, changes=0)
    assert belief.counts(60, remaining=10, changes=0)
    # A call has just made it longer, and the controller tells what it believed before.
    assert not belief.counts(1, remaining=600, changes=1)
    assert belief.counts(599.9, remaining=600, changes=1)


class Time:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 500.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def asking(*answers: Answer | Exception) -> Callable[[], Awaitable[Answer]]:
    """Says those, and goes on with the last."""
    left = list(answers)

    async def ask() -> Answer:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def renewal(
    clock: Time, ask: Callable[[], Awaitable[Answer]], *, jitter: float = 0.5
) -> tuple[Renewal, list[float]]:
    taken: list[float] = []
    made = Renewal(
        ask,
        taken.append,
        grace_seconds=300,
        renew_seconds=30,
        clock=clock,
        sleep=clock.sleep,
        jitter=lambda: jitter,
    )
    return made, taken


async def test_it_is_renewed_until_it_is_refused() -> None:
    clock = Time()
    answers = (Renewed(900), Renewed(None), Silent("503"), Renewed(5), Refused("released"))
    made, taken = renewal(clock, asking(*answers))
    assert await made.run() == ("lease_refused", "released")
    assert taken == [900, 5]
    assert clock.slept == [15, 30, 30, 30, 30]


@pytest.mark.parametrize("defect", [Silent("nobody there"), RuntimeError("a defect")])
async def test_silence_ends_it_after_the_grace_and_not_before(defect: Silent | Exception) -> None:
    clock = Time()
    made, _ = renewal(clock, asking(Renewed(None), *[Silent("x")] * 8, Renewed(None), defect))
    code, why = await made.run()
    assert code == "lease_lost"
    assert str(defect.why if isinstance(defect, Silent) else defect) in why
    # Heard of at 15 s, not for 240 s, again at 285 s: lost 300 s later, and not a turn after.
    assert clock.now - 500 == 15 + 270 + 300


async def test_what_started_together_does_not_ask_together() -> None:
    waits = []
    for jitter in (0.0, 1.0):
        clock = Time()
        made, _ = renewal(clock, asking(Renewed(None), Refused("")), jitter=jitter)
        await made.run()
        waits.append(clock.slept)
    assert waits == [[0, 24], [30, 36]]


class Controller:
    """What a controller says of leases, and what it was asked with."""

    def __init__(self, ends_at: float | None = None) -> None:
        self.ends_at = ends_at  # on the monotonic clock
        self.is_refusing = False
        self.asked: list[tuple[str, str, dict[str, object]]] = []
        self.app = Starlette(routes=[Route("/v1/leases/{sandbox}", self.renew, methods=["POST"])])

    async def renew(self, request: Request) -> Response:
        sandbox = request.path_params["sandbox"]
        self.asked.append((sandbox, request.headers["authorization"], await request.json()))
        if self.is_refusing:
            return JSONResponse(ENDED.to_wire(), 410)
        ttl_seconds = None
        if self.ends_at is not None:
            ttl_seconds = max(0.0, self.ends_at - time.monotonic())
        return JSONResponse({"ttl_seconds": ttl_seconds})


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """Something that says that to whoever connects, and hangs up."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


def nobody() -> str:
    """A place where nothing listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def asked(urls: Sequence[str]) -> Awaitable[Answer]:
    return leases.Controllers(urls, "abcdefgh", "token").ask("ready", 60)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
        b"HTTP/1.1 410 Gone\r\n\r\n<html>This page has moved.</html>",
        b"HTTP/1.1 4xx\r\n\r\n{}",
    ],
)
async def test_what_is_no_controller_is_as_good_as_silent(answer: bytes) -> None:
    async with saying(answer) as url:
        assert isinstance(await asked([url]), Silent)


async def test_the_one_that_answers_is_asked_first_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "ASK_SECONDS", 2.0)
    controller = Controller()
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        urls = [nobody(), f"http://127.0.0.1:{hanging.getsockname()[1]}"]
        async with saying(b"HTTP/1.1 404 Not Found\r\n\r\n{}") as other:
            async with listening(controller.app) as port:
                urls += [other, f"http://127.0.0.1:{port}"]
                controllers = leases.Controllers(urls, "abcdefgh", "token")
                assert await controllers.ask("ready", 60) == Renewed(None)
                began = time.monotonic()
                assert await controllers.ask("paused", 59.99999) == Renewed(None)
                assert time.monotonic() - began < 2  # not by way of the one that hangs
        assert controller.asked[1] == (
            "abcdefgh",
            "Bearer token",
            {"state": "paused", "remaining_seconds": 60.0},
        )
        assert await asked(urls[1:2]) == Silent(f"{urls[1]} took longer than 2 s")
    for nowhere in ([], [""], ["ftp://127.0.0.1"], ["http://"], ["http://[::1"], ["file:///none"]):
        assert isinstance(await asked(nowhere), Silent)


async def test_a_controller_that_comes_back_elsewhere_is_found_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    controllers = leases.Controllers([f"file://{file}"], "abcdefgh", "token")
    assert isinstance(await controllers.ask("ready", 60), Silent)
    for _ in range(2):
        async with listening((controller := Controller()).app) as port:
            file.write_text(f"http://127.0.0.1:{port}\n")
            assert await controllers.ask("ready", 60) == Renewed(None)
            assert len(controller.asked) == 1
        assert isinstance(await controllers.ask("ready", 60), Silent)
    file.write_bytes(b"\xff no address")
    assert isinstance(await controllers.ask("ready", 60), Silent)


# With a real actor.


@pytest.fixture
async def controller() -> AsyncIterator[tuple[Controller, str]]:
    controller = Controller()
    async with listening(controller.app) as port:
        yield controller, f"http://127.0.0.1:{port}"


def leased(local_ray: Running, url: str, *, grace_seconds: float = 60) -> Cluster:
    return Cluster(
        address=local_ray.address,
        namespace=NAMESPACE,
        backends=local_ray.backends,
        strategy="spread",
        lease=Lease([url], SECRET, grace_seconds=grace_seconds, renew_seconds=0.2),
    )


async def test_a_desktop_lives_as_long_as_it_is_wanted(
    cluster: Cluster, local_ray: Running, controller: tuple[Controller, str]
) -> None:
    """``cluster`` leaves nothing; it sees what the other one has started."""
    wanted, url = controller
    workspace_id = new_id()
    own = leased(local_ray, url)
    await own.start(workspace_id, template(), ttl_seconds=60)
    (actor,) = local_ray.actors()
    assert not any(SECRET.decode() in value for value in actor.environ().values())
    await eventually(lambda: len(wanted.asked) > 3 and wanted.asked[-1][2]["state"] == "ready")
    sandbox, authorization, said = wanted.asked[-1]
    assert (sandbox, authorization) == (
        workspace_id,
        f"Bearer {leases.token(SECRET, workspace_id)}",
    )
    remaining = said["remaining_seconds"]
    assert isinstance(remaining, float)
    assert 30 < remaining < 60
    await own.pause(workspace_id)
    await eventually(lambda: wanted.asked[-1][2]["state"] == "paused")

    wanted.is_refusing = True
    ended = await asyncio.wait_for(own.ended(workspace_id), 20)
    assert (ended.code, ended.message) == ("lease_refused", ENDED.message)
    assert not (local_ray.desktops / workspace_id).exists()
    assert await own.locate(workspace_id) is None


async def test_one_that_is_refused_while_it_starts_is_not_started(
    cluster: Cluster, local_ray: Running, controller: tuple[Controller, str]
) -> None:
    wanted, url = controller
    wanted.is_refusing = True
    with pytest.raises(Exception, match="released at noon"):
        await leased(local_ray, url).start(
            new_id(), template(FAKE_START_SECONDS="30"), ttl_seconds=60
        )
    await eventually(lambda: local_ray.actors() == [])
    assert wanted.asked[-1][2]["state"] == "starting"


async def test_silence_ends_a_desktop_after_the_grace(cluster: Cluster, local_ray: Running) -> None:
    workspace_id = new_id()
    wanted = Controller()
    async with listening(wanted.app) as port:
        own = leased(local_ray, f"http://127.0.0.1:{port}", grace_seconds=1.5)
        await own.start(workspace_id, template(), ttl_seconds=60)
        await eventually(lambda: wanted.asked)
        assert await own.locate(workspace_id) is not None
    began = time.monotonic()
    ended = await asyncio.wait_for(own.ended(workspace_id), 20)
    assert ended.code == "lease_lost"
    assert "Connect call failed" in ended.message
    assert time.monotonic() - began > 1
    await eventually(lambda: not (local_ray.desktops / workspace_id).exists())


async def test_a_claim_that_did_not_reach_its_desktop_is_made_good(
    cluster: Cluster, local_ray: Running, controller: tuple[Controller, str]
) -> None:
    wanted, url = controller
    own = leased(local_ray, url)
    short, long = new_id(), new_id()
    await own.start(short, template(), ttl_seconds=3600, background=True)
    wanted.ends_at = time.monotonic() + 1
    assert (await asyncio.wait_for(own.ended(short), 20)).code == "deadline_passed"

    wanted.ends_at = time.monotonic() + 500
    await own.start(long, template(), ttl_seconds=10, background=True)
    before = len(wanted.asked)
    await eventually(lambda: len(wanted.asked) > before + 3)
    remaining = wanted.asked[-1][2]["remaining_seconds"]
    assert isinstance(remaining, float)
    assert remaining > 400


async def test_what_is_starting_is_not_paused(
    cluster: Cluster, local_ray: Running, controller: tuple[Controller, str]
) -> None:
    workspace_id = new_id()
    slow = template(FAKE_START_SECONDS="2")
    starting = asyncio.ensure_future(cluster.start(workspace_id, slow, ttl_seconds=60))
    await eventually(lambda: local_ray.actors())
    for ask in (cluster.pause, cluster.resume, cluster.stats):
        with pytest.raises(NotReady):
            await ask(workspace_id)
    assert await cluster.locate(workspace_id) is None
    await cluster.claimed(workspace_id, 50)  # who waits for it has it already
    await starting
    assert await cluster.locate(workspace_id) is not None
