"""Leases from the controller's side: who may renew one, and what it is told."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from controller.routes import Parts
from ray_cluster import leases
from tests.controller.conftest import BEARER, claim, client
from workspace.errors import Unavailable

pytestmark = pytest.mark.anyio
HOW = {"state": "ready", "remaining_seconds": 60.0}


@pytest.fixture
def bearer(app: FastAPI, http: httpx.AsyncClient) -> Callable[[object], dict[str, str]]:
    """The header that a sandbox's actor sends."""
    parts = app.state.parts
    assert isinstance(parts, Parts)

    def header(sandbox: object) -> dict[str, str]:
        return {"Authorization": f"Bearer {leases.token(parts.auth.lease_secret, str(sandbox))}"}

    return header


async def test_a_lease_lasts_until_the_deadline_and_is_refused_when_its_workspace_ended(
    app: FastAPI, http: httpx.AsyncClient, bearer: Callable[[object], dict[str, str]]
) -> None:
    made = await claim(http, ttl_seconds=600)
    path = f"/v1/leases/{made['id']}"
    async with client(app, headers=bearer(made["id"])) as actor:
        answer = await actor.post(path, json=HOW)
        assert answer.status_code == 200
        assert isinstance(leases.judge(200, answer.content), leases.Renewed)
        assert 500 < answer.json()["ttl_seconds"] <= 600
        await http.delete(f"/v1/workspaces/{made['id']}")
        answer = await actor.post(path, json=HOW)
        assert isinstance(leases.judge(answer.status_code, answer.content), leases.Refused)


async def test_what_nobody_ever_claimed_is_refused_and_what_cannot_be_told_is_not(
    app: FastAPI,
    http: httpx.AsyncClient,
    bearer: Callable[[object], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with client(app, headers=bearer("abcdefghjk")) as actor:
        answer = await actor.post("/v1/leases/abcdefghjk", json=HOW)
        assert isinstance(leases.judge(answer.status_code, answer.content), leases.Refused)

        async def cannot_tell(_: str) -> float:
            raise Unavailable("The database does not answer.")

        monkeypatch.setattr(app.state.parts.lifecycle, "lease", cannot_tell)
        answer = await actor.post("/v1/leases/abcdefghjk", json=HOW)
        assert isinstance(leases.judge(answer.status_code, answer.content), leases.Silent)


async def test_only_its_own_token_opens_a_lease_and_nothing_else(
    app: FastAPI, http: httpx.AsyncClient, bearer: Callable[[object], dict[str, str]]
) -> None:
    made = await claim(http, ttl_seconds=600)
    path = f"/v1/leases/{made['id']}"
    own = bearer(made["id"])
    stranger = {"Authorization": "Bearer \xff".encode("latin-1")}
    async with client(app) as actor:
        for headers in ({}, BEARER, bearer("abcdefghjk"), stranger):
            answer = await actor.post(path, json=HOW, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), headers
        answer = await actor.post(path, json=HOW, headers=own | {"Host": "evil.example"})
        assert answer.status_code == 403
        for other in ("/v1/workspaces", f"/v1/workspaces/{made['id']}", "/v1/leases/x", "/metrics"):
            assert (await actor.get(other, headers=own)).status_code == 401, other
        for wrong in ({}, {"state": "ready"}, HOW | {"state": "asleep"}):
            assert (await actor.post(path, json=wrong, headers=own)).status_code == 422
        assert (await actor.get(path, headers=own)).status_code == 401  # it is good for that alone
        assert (await actor.post(path, json=HOW, headers=own)).status_code == 200
