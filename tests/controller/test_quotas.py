"""Quotas and rates: what is too much is refused, by one controller or by several at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from fastapi import FastAPI

from controller import remembering
from controller.live import new_id
from controller.store import Store
from controller.store.claims import Claimed, NewClaim
from controller.tenants import Rates
from tests.controller.conftest import (
    add_template,
    bearer,
    both_databases,
    claim,
    client,
    keep,
    new_key,
    on_postgres,
)
from tests.waiting import eventually
from workspace.access import Quotas
from workspace.models import Screen, Workspace

pytestmark = pytest.mark.anyio


def new(tenant: str = "t", *, key: str | None = None, **changes: object) -> NewClaim:
    name, now = new_id(), datetime.now(timezone.utc)
    workspace = Workspace(
        id=name,
        sandbox=name,
        tenant=tenant,
        state="starting",
        template="desktop",
        screen=Screen(),
        created_at=now,
        expires_at=now + timedelta(seconds=60),
        cpus=2,
        memory_mib=1000,
    )
    workspace = workspace.model_copy(update=changes)
    return NewClaim(workspace, owner="me", keeper="me", key=key, is_limited=True)


def hows(made: list[Claimed]) -> list[str]:
    return [each.how for each in made]


async def end(store: Store, claimed: Claimed) -> None:
    now = datetime.now(timezone.utc)
    ended = claimed.workspace.model_copy(update={"state": "released", "ended_at": now})
    assert await store.save(ended, keeper="me")


@both_databases
async def test_what_is_too_much_at_once_is_refused(database_url: str) -> None:
    async with (store := Store(database_url)).run():
        await store.tenants.put("t", Quotas(workspaces=2))
        made = await store.claims.make([new(), new("other"), new(), new(), new(key="k")])
        assert hows(made) == ["cold", "cold", "cold", "refused", "refused"]
        refusal = made[3].refusal
        assert refusal is not None
        assert refusal.message == "Tenant 't' may have 2 desktops at once, and has 2."
        assert await store.get(made[3].workspace.id) is None
        assert hows(await store.claims.make([new(key="k")])) == ["refused"]
        await end(store, made[0])
        first, again = await store.claims.make([new(key="k"), new(key="k")])
        assert (first.how, again.how) == ("cold", "known")
        assert hows(await store.claims.make([new(key="k"), new()])) == ["known", "refused"]
        both = await store.claims.make([new(key="new"), new(key="new")])
        assert hows(both) == ["refused", "refused"]

        await store.tenants.put("t", Quotas(cpus=7))  # it has 4
        assert hows(await store.claims.make([new(), new()])) == ["cold", "refused"]
        await store.tenants.put("t", Quotas(memory_mib=4000))  # it has 3000
        assert hows(await store.claims.make([new(memory_mib=1001)])) == ["refused"]
        assert hows(await store.claims.make([new(), new()])) == ["cold", "refused"]
        told = await store.tenants.get("t")
        assert (told.quotas, told.used.workspaces) == (Quotas(memory_mib=4000), 4)
        assert (told.used.cpus, told.used.memory_mib) == (8.0, 4000)
        await store.tenants.put("t", Quotas())
        assert hows(await store.claims.make([new(), new()])) == ["cold", "cold"]
        names = [each.name for each in await store.tenants.page(limit=9)]
        assert names == ["default", "other", "t"]
        assert [each.name for each in await store.tenants.page(limit=1, after="other")] == ["t"]


@both_databases
async def test_a_month_s_hours_are_counted_of_what_lived_in_it(database_url: str) -> None:
    now = datetime.now(timezone.utc)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    hours = timedelta(hours=1)
    async with (store := Store(database_url)).run():
        lived = [
            (month - 9 * hours, month - 3 * hours),  # last month's
            (month - 9 * hours, month + 2 * hours),  # two hours of it
            (month + 1 * hours, month + 2.5 * hours),
        ]
        for began, ended in lived:
            each = new(created_at=began, ended_at=ended, state="released").workspace
            await keep(store, each)
        each = new(created_at=now - 0.5 * hours).workspace
        await keep(store, each)
        begun = min(0.5, (now - month) / hours)  # of the one that lives
        used = (await store.tenants.get("t")).used
        assert used.workspaces == 1
        assert used.desktop_hours == pytest.approx(3.5 + begun, abs=0.02)
        await store.tenants.put("t", Quotas(desktop_hours=5))
        assert hows(await store.claims.make([new()])) == ["cold"]
        await store.tenants.put("t", Quotas(desktop_hours=3.5))
        (refused,) = await store.claims.make([new()])
        assert refused.refusal is not None
        assert "desktop-hours" in refused.refusal.message
        until = timedelta(seconds=refused.refusal.details["retry_after_seconds"])
        assert (now + until + timedelta(minutes=5)).day == 1  # the next month's first


@on_postgres
async def test_two_controllers_never_let_in_one_too_many(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [Store(database_url) for _ in range(2)]
        for store in stores:
            await stack.enter_async_context(store.run())
        await stores[0].tenants.put("t", Quotas(workspaces=15))

        async def many(store: Store) -> list[str]:
            found: list[str] = []
            for _ in range(10):
                found += hows(await store.claims.make([new(), new()]))
            return found

        got = [how for each in await asyncio.gather(*map(many, stores)) for how in each]
        assert (got.count("cold"), got.count("refused")) == (15, 25)
        assert (await stores[0].tenants.get("t")).used.workspaces == 15


async def test_a_claim_too_many_is_told_and_leaves_nothing(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    await add_template(http, "fake")
    key = (await new_key(http, "ci", tenant="small"))["key"]
    put = await http.put("/v1/tenants/small", json={"workspaces": 1})
    assert put.json()["quotas"]["workspaces"] == 1
    async with client(app, headers=bearer(key)) as user:
        made = await claim(user, template="fake")
        for body in ({"template": "fake"}, {"template": "fake", "wait": False}):
            answer = await user.post("/v1/workspaces", json=body)
            assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
            assert answer.headers["retry-after"] == "30"
        assert len((await user.get("/v1/workspaces?state=all")).json()["workspaces"]) == 1
        await claim(http, template="fake")  # another tenant's
        assert (await user.delete(f"/v1/workspaces/{made['id']}")).status_code == 204
        await claim(user, template="fake")
    listed = (await http.get("/v1/tenants")).json()["tenants"]
    assert [(each["name"], each["used"]["workspaces"]) for each in listed] == [
        ("default", 1),
        ("small", 1),
    ]
    for path, body in (("/v1/tenants/small", {"more": 1}), ("/v1/tenants/A%20B", {})):
        assert (await http.put(path, json=body)).json()["code"] == "invalid_request"


async def test_a_key_that_asks_too_often_is_told_when_to_come_again(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    one, two = [(await new_key(http, name, tenant="t"))["key"] for name in ("one", "two")]
    await http.put("/v1/tenants/t", json={"requests_per_minute": 3})
    async with client(app) as anybody:

        async def ask(key: str) -> httpx.Response:
            return await anybody.get("/v1/whoami", headers=bearer(key))

        assert [(await ask(one)).status_code for _ in range(4)] == [200, 200, 200, 429]
        answer = await ask(one)
        assert answer.json()["code"] == "rate_limited"
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert (await ask(two)).status_code == 200  # each key has its own
        assert (await http.get("/v1/whoami")).status_code == 200  # the admin's has none
        await http.put("/v1/tenants/t", json={})
        assert (await ask(one)).status_code == 200


async def test_quotas_set_elsewhere_count_within_seconds(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    await http.get("/v1/tenants/default")
    tenants, store = app.state.parts.tenants, app.state.parts.store
    assert (await tenants.quotas("t")).workspaces is None
    await store.tenants.put("t", Quotas(workspaces=1))  # another controller did

    async def is_seen() -> bool:
        return (await tenants.quotas("t")).workspaces == 1

    await eventually(is_seen, seconds=2 * remembering.FRESH_SECONDS)


def test_rates_let_a_minute_s_worth_come_at_once_and_then_one_by_one() -> None:
    rates = Rates()
    assert [rates.take("a", 60, 0.0) for _ in range(60)] == [0.0] * 60
    assert rates.take("a", 60, 0.0) == pytest.approx(1.0)
    assert rates.take("a", 60, 0.5) == pytest.approx(0.5)  # what was refused was not counted
    assert rates.take("b", 60, 0.5) == 0.0
    assert rates.take("a", 60, 1.0) == 0.0
    assert rates.take("a", 60, 1.0) == pytest.approx(1.0)
    assert [rates.take("a", 60, 1000.0) for _ in range(61)].count(0.0) == 60
    assert rates.take("c", 1, 0.0) == 0.0
    assert rates.take("c", 1, 30.0) == pytest.approx(30.0)
    for number in range(20_000):
        rates.take(str(number), 60, 2000.0)
    assert len(rates._due) == 10_000
