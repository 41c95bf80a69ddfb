"""The idle clock: what starts it anew, and what may ask without being use."""

from __future__ import annotations

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.waiting import eventually
from tests.workspace.desktopd.conftest import TOKEN, Daemon
from workspace.desktop import Desktop
from workspace.desktopd.requests import Authorized
from workspace.desktopd.usage import Counted, Usage

pytestmark = pytest.mark.anyio


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def served(usage: Usage, *, held: anyio.Event | None = None) -> httpx.AsyncClient:
    async def answer(request: Request) -> Response:
        if request.url.path == "/fails":
            raise ZeroDivisionError
        if held is not None:
            await held.wait()
        return Response()

    app = Starlette(routes=[Route("/{rest:path}", answer)])
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(
            Authorized(Counted(app, usage), TOKEN), raise_app_exceptions=False
        ),
        base_url="http://desktop",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )


@pytest.mark.parametrize(
    ("path", "is_use"),
    [
        ("/windows", True),
        ("/no/such/path", True),
        ("/fails", True),
        ("/screenshot", True),
        ("/screenshot?passive=false", True),
        ("/windows?passive=1", True),
        ("/screenshot?scale=0.5&passive=1", False),
        ("/screenshot?passive=true", False),
        ("/health", False),
    ],
)
async def test_what_is_use(clock: Clock, path: str, is_use: bool) -> None:
    usage = Usage(clock)
    clock.now += 50
    async with served(usage) as http:
        await http.get(path)
    assert usage.idle_seconds == (0 if is_use else 50)


async def test_nobody_without_the_token_uses_it(clock: Clock) -> None:
    usage = Usage(clock)
    clock.now += 50
    async with served(usage) as http:
        answer = await http.get("/windows", headers={"Authorization": "Bearer wrong"})
    assert (answer.status_code, usage.idle_seconds) == (401, 50)


async def test_what_is_open_is_use_until_it_ends(clock: Clock) -> None:
    usage, held = Usage(clock), anyio.Event()
    async with served(usage, held=held) as http, anyio.create_task_group() as tasks:
        for path in ("/wait", "/health", "/wait"):
            tasks.start_soon(http.get, path)
        await anyio.wait_all_tasks_blocked()
        clock.now += 3600
        assert usage.idle_seconds == 0
        held.set()
    assert usage.idle_seconds == 0
    clock.now += 7
    assert usage.idle_seconds == 7


async def test_a_caller_that_goes_away_uses_it_no_more(clock: Clock) -> None:
    usage = Usage(clock)

    async def watch() -> None:
        async with served(usage, held=anyio.Event()) as http:
            await http.get("/wait")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        clock.now += 9
        assert usage.idle_seconds == 0
        tasks.cancel_scope.cancel()
    clock.now += 1
    assert usage.idle_seconds == 1


async def test_a_real_desktop_says_so(daemon: Daemon, desktop: Desktop) -> None:
    async def idle() -> float:
        return (await desktop.health()).idle_seconds

    async def rests() -> bool:
        return await idle() >= 0.2

    await eventually(rests)
    assert await desktop.screenshot_since(None, scale=0.1, passive=True) is not None
    assert await idle() >= 0.2
    async with daemon.web_socket("/vnc?role=view"):
        for _ in range(10):
            assert await idle() == 0
            await anyio.sleep(0.03)
    await eventually(rests)
