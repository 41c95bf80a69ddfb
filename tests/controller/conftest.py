"""The controller over a cluster of this process: real app, real store, fake desktops on sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple  # Any: OpenAPI's own words

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from controller import access
from controller.app import create_app
from controller.settings import Settings
from controller.store import Store
from controller.store.rows import columns
from controller.store.tables import workspaces
from tests.postgres import Postgres, postgres
from workspace.backends.base import Endpoint, Mount, PauseResult
from workspace.backends.fake import FakeBackend
from workspace.backends.footprint import Footprint
from workspace.egress import Egress, EgressUse, Secret
from workspace.errors import NoCapacity, WorkspaceNotFound
from workspace.models import ErrorInfo, Node, Stats, Template, Workspace

KEY = "the-admin-key-of-the-tests"
URL = "http://127.0.0.1:8700"
BEARER = {"Authorization": f"Bearer {KEY}"}


async def keep(store: Store, *kept: Workspace, owner: str = "admin", keeper: str = "me") -> None:
    """Write workspaces as if they had been claimed; what is there stays as it is."""
    for each in kept:
        new = store._insert(workspaces).values(owner=owner, keeper=keeper, **columns(each))
        statement = new.on_conflict_do_nothing()
        await store._do(lambda it, statement=statement: it.execute(statement))


class Located(NamedTuple):
    workspace_id: str
    endpoint: Endpoint
    node: str = "n1"
    node_name: str = "here"
    remaining_seconds: float = 600.0


class LocalCluster:
    """Desktops of the fake backend, found again as long as this object lives."""

    def __init__(self, folder: Path) -> None:
        self.backend = FakeBackend(str(folder))
        self.live: dict[str, Located] = {}
        self.starting: set[str] = set()
        self.ttl: dict[str, float] = {}
        self.whose: dict[str, dict[str, str]] = {}
        self.deaths: dict[str, asyncio.Future[ErrorInfo]] = {}
        self.is_down = False
        self.paused: set[str] = set()
        self.turns: list[str] = []  # each pause and resume that it was asked for
        self.egress_of: dict[str, Egress] = {}  # by sandbox, as is the next
        self.secrets_of: dict[str, Sequence[Secret]] = {}

    async def start(
        self,
        workspace_id: str,
        template: Template,
        *,
        ttl_seconds: float,
        timeout_seconds: float,
        background: bool = False,
        node: str | None = None,
        volume: Mount | None = None,
        avoid: Collection[str] = (),
        placed: Callable[[], None] | None = None,
        whose: Mapping[str, str] | None = None,
    ) -> Located:
        if "n1" in avoid:
            raise NoCapacity("Every node of this cluster is being taken out of service.")
        self.starting.add(workspace_id)
        if placed is not None:
            placed()
        try:
            endpoint = await asyncio.wait_for(
                self.backend.start(workspace_id, template, volume=volume), timeout_seconds
            )
            self.live[workspace_id] = located = Located(workspace_id, endpoint)
            self.egress_of[workspace_id] = template.egress
        finally:
            self.starting.discard(workspace_id)
        self.ttl[workspace_id] = ttl_seconds
        self.whose[workspace_id] = dict(whose or {})
        return located

    async def extend(self, workspace_id: str, ttl_seconds: float) -> None:
        self.ttl[workspace_id] = ttl_seconds

    async def claimed(
        self, workspace_id: str, ttl_seconds: float, *, whose: Mapping[str, str] | None = None
    ) -> None:
        self.ttl[workspace_id] = ttl_seconds
        self.whose[workspace_id] = dict(whose or {})

    async def set_egress(
        self,
        workspace_id: str,
        *,
        egress: Egress | None = None,
        secrets: Sequence[Secret] | None = None,
    ) -> None:
        await self.backend.set_egress(workspace_id, egress=egress, secrets=secrets)
        if egress is not None:
            self.egress_of[workspace_id] = egress
        if secrets is not None:
            self.secrets_of[workspace_id] = secrets

    async def egress(self, workspace_id: str) -> EgressUse:
        return EgressUse()

    async def locate(self, workspace_id: str) -> Located | None:
        return self.live.get(workspace_id)

    async def pause(self, workspace_id: str) -> PauseResult:
        self.turns.append("pause")
        self.paused.add(workspace_id)
        return await self.backend.pause(workspace_id)

    async def resume(self, workspace_id: str) -> None:
        self.turns.append("resume")
        self.paused.discard(workspace_id)
        await self.backend.resume(workspace_id)

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

    def takes(self, template: Template) -> Footprint:
        return Footprint(template.memory_mib, 0)

    async def names(self) -> set[str]:
        return self.starting | self.live.keys()

    async def left(self) -> Mapping[str, set[str]]:
        left = set(await self.backend.list()) - await self.names()
        return {"n1": left} if left else {}

    async def clear(self, node: str, sandboxes: Collection[str]) -> None:
        for sandbox in sandboxes:
            await self.backend.stop(sandbox)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A PostgreSQL that the tests share, a database each; who stops it starts one of his own."""
    with postgres() as server:
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database: SQLite's, or, for tests marked ``both_databases``, one of each."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'home' / 'carrel.db'}"
    server = request.getfixturevalue("server")
    assert isinstance(server, Postgres)
    return server.database()


both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
on_postgres = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        home=tmp_path / "home",
        api_key=SecretStr(KEY),
        run_dir=tmp_path / "run",
        database_url=database_url,
    )


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
    return httpx.AsyncClient(transport=Documented(app), base_url=url, headers=headers, timeout=20)


class Documented(httpx.ASGITransport):
    """Requests in process; an answer that the OpenAPI does not tell of fails the test."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app)
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        check_documented(self._app, request.method, request.url.path, answer.status_code)
        return answer


_told: dict[str, dict[str, Any]] = {}  # by path: what the OpenAPI tells, the same of every app


def check_documented(app: FastAPI, method: str, path: str, status: int) -> None:
    """Whether a route's OpenAPI tells of a status. Of 500 `internal`, a defect, none does."""
    if not _told:
        _told.update(app.openapi()["paths"])
    rule = access.find(method, path).rule
    told = _told.get(rule.path, {}).get(method.lower()) if rule else None
    if told is not None and status != 500:
        assert str(status) in told["responses"], f"{method} {path} answered {status}"


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


async def new_key(http: httpx.AsyncClient, name: str, **body: object) -> dict[str, str]:
    """A key that the admin makes, as it is told."""
    answer = await http.post("/v1/keys", json={"name": name, **body})
    assert answer.status_code == 201, answer.text
    made: dict[str, str] = answer.json()
    return made


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
