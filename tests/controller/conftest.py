"""The controller over a cluster of this process: real app, real store, fake desktops on sockets."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp

from controller.app import create_app
from controller.settings import Settings
from workspace.backends.base import Endpoint
from workspace.backends.fake import FakeBackend
from workspace.errors import WorkspaceNotFound
from workspace.models import ErrorInfo, Node, Stats, Template

KEY = "the-admin-key-of-the-tests"
URL = "http://127.0.0.1:8700"
BEARER = {"Authorization": f"Bearer {KEY}"}


class Located(NamedTuple):
    workspace_id: str
    endpoint: Endpoint
    node: str = "n1"
    node_name: str = "here"


class LocalCluster:
    """Desktops of the fake backend, found again as long as this object lives."""

    def __init__(self, folder: Path) -> None:
        self.backend = FakeBackend(str(folder))
        self.live: dict[str, Located] = {}
        self.ttl: dict[str, float] = {}
        self.deaths: dict[str, asyncio.Future[ErrorInfo]] = {}
        self.is_down = False

    async def start(
        self, workspace_id: str, template: Template, *, ttl_seconds: float, timeout_seconds: float
    ) -> Located:
        endpoint = await asyncio.wait_for(
            self.backend.start(workspace_id, template), timeout_seconds
        )
        self.live[workspace_id] = located = Located(workspace_id, endpoint)
        self.ttl[workspace_id] = ttl_seconds
        return located

    async def extend(self, workspace_id: str, ttl_seconds: float) -> None:
        self.ttl[workspace_id] = ttl_seconds

    async def stop(self, workspace_id: str) -> None:
        self.live.pop(workspace_id, None)
        await self.backend.stop(workspace_id)

    async def find(self) -> Mapping[str, Located]:
        return dict(self.live)

    async def ended(self, workspace_id: str) -> ErrorInfo:
        death = self.deaths.setdefault(workspace_id, asyncio.get_running_loop().create_future())
        return await asyncio.shield(death)

    def die(self, workspace_id: str, code: str = "desktop_lost", message: str = "It died.") -> None:
        self.deaths[workspace_id].set_result(ErrorInfo(code=code, message=message))

    async def stats(self, workspace_id: str) -> Stats:
        return await self.backend.stats(workspace_id)

    async def nodes(self) -> Sequence[Node]:
        if self.is_down:
            raise WorkspaceNotFound("The cluster is gone.")
        return [Node(id="n1", name="here", desktops=len(self.live), slots=8)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", api_key=SecretStr(KEY), run_dir=tmp_path / "run")


@pytest.fixture
def short_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="c-") as folder:  # short: unix sockets lie in it
        yield Path(folder)


@pytest.fixture
def cluster(short_dir: Path) -> LocalCluster:
    return LocalCluster(short_dir)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the key of an application whose lifespan runs."""
    async with app.router.lifespan_context(app):
        async with client(app, headers=BEARER) as http:
            yield http


def client(
    app: FastAPI, headers: Mapping[str, str] | None = None, url: str = URL
) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=url, headers=headers, timeout=20
    )


@pytest.fixture
def app(settings: Settings, cluster: LocalCluster) -> FastAPI:
    return create_app(settings, cluster)


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as http:
        yield http


async def add_template(http: httpx.AsyncClient, name: str, **environment: str) -> None:
    """A template whose fake desktops misbehave as ``environment`` says."""
    body = {"name": name, "backend": "fake", "environment": environment}
    answer = await http.post("/v1/templates", json=body)
    assert answer.status_code == 201, answer.text


async def claim(http: httpx.AsyncClient, **body: object) -> dict[str, object]:
    answer = await http.post("/v1/workspaces", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert isinstance(made, dict)
    return made


class _Guest(uvicorn.Server):
    """A server that leaves this process's signals alone."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # theirs is a generator's
        return nullcontext()


@asynccontextmanager
async def listening(
    app: ASGIApp, listener: socket.socket | None = None
) -> AsyncIterator[tuple[str, int]]:
    """Serve ``app`` (whose lifespan somebody else runs) on a real socket; its address."""
    own = listener or socket.create_server(("127.0.0.1", 0))
    if listener is None:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with own:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=2,
        )
        server = _Guest(config)
        task = asyncio.ensure_future(server.serve(sockets=[own]))
        try:
            await eventually(lambda: server.started)
            yield own.getsockname() if own.family == socket.AF_INET else ("", 0)
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, 10)


async def eventually(condition: Callable[[], bool], *, seconds: float = 5) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
